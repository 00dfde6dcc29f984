"""The newest inspections for MES software, and who reads them: a Sink.

Owns one ring of serialised records, shared by all watchers: a watcher is a position in it, so a
slow one holds no memory and costs the others nothing. No frame is kept alive: a record is
serialised once. Must not decide anything about a record, nor keep it for longer than the ring does.

Decision. With a journal the ring holds what the journal has made durable, under the journal's
positions: whoever has seen a position can go on from it after any crash. A watcher that the ring
has overtaken, or that begins further back, reads the journal until it has caught up; the callers
do that (`inspections.py`), off the loop. Without a journal positions count this life only, `run`
says which, and a watcher that was overtaken loses the oldest and sees the gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from edged.core.errors import Busy
from edged.core.protocols import JournalEntry, LiveJournal
from edged.core.types import Inspection, new_id
from edged.wire import proto

log = logging.getLogger(__name__)

MAX_WATCHERS = 64
SCAN = 256
"""Records looked at in one go: the lock is held, and the loop kept, that long at most."""


class RingRecord(NamedTuple):
    """A record in the ring; data: edged.v1.Inspection, serialised."""

    position: int
    station: str
    data: bytes
    id: str = ""


@dataclass(slots=True, eq=False)
class Watcher:
    """Where one client is: it has seen, or not asked for, everything up to `position`.

    caught_up: it has read the journal to its end. Touched on the loop's thread only.
    """

    position: int
    stations: frozenset[str]
    caught_up: bool = False
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    missed: int = 0


class Taken(NamedTuple):
    """What a watcher gets next.

    more: the ring has more. lags: the journal must be read first. until: up to this position;
    None = to its end. ended: nothing comes any more.
    """

    records: list[bytes]
    more: bool = False
    lags: bool = False
    until: int | None = None
    ended: bool = False


class ResultsStream:
    """The last `capacity` inspections, and whoever watches them."""

    name = "results"

    def __init__(self, capacity: int = 4096, journal: LiveJournal | None = None) -> None:
        self.journal = journal
        self.run = "" if journal is not None else new_id()
        """What counts the positions: this life, or (empty) the journal."""
        self._ring = _Ring(capacity)
        self._lock = threading.Lock()
        self._closed = False
        self._waking = False
        self._watchers: set[Watcher] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._awaited: dict[str, asyncio.Event] = {}
        """Of inspections whose callers wait until they are on disk."""

    def start(self) -> None:
        """Hear of what the journal makes durable; watchers come in through the doors."""
        if self.journal is not None:
            self.journal.subscribe(self._written)

    def accept(self, inspection: Inspection) -> None:
        """Give a record its position and wake the watchers. Any thread, several at once.

        With a journal nothing: the record comes when it is durable.
        """
        if self.journal is not None:
            return
        message = proto.inspection(inspection, run=self.run)
        with self._lock:
            position = message.position = self._ring.newest + 1
            self._ring.add(RingRecord(position, message.station, message.SerializeToString()))
            wake = self._wants_wake()
        if wake:
            self._call_loop()

    def close(self) -> None:
        """Let every watcher receive what the ring holds, then end its stream with OK.

        Does not wait: a client that does not read must not use up the time that other sinks need
        to deliver. The doors wait for the streams, by their own deadline, when they close.
        """
        with self._lock:
            self._closed = True
            wake = self._wants_wake()
        if wake:
            self._call_loop()

    def join(self, watcher: Watcher) -> None:
        """Wake `watcher` from now on, until it leaves. Loop thread. Raises Busy."""
        with self._lock:
            if len(self._watchers) >= MAX_WATCHERS:
                raise Busy(f"{MAX_WATCHERS} clients watch already: close one, or try again later.")
            self._watchers.add(watcher)
            self._loop = asyncio.get_running_loop()

    def leave(self, watcher: Watcher) -> None:
        """Forget it; safe for one that never joined."""
        with self._lock:
            self._watchers.discard(watcher)
        if watcher.missed:
            log.warning("a watcher of the results was too slow: %d passed it by", watcher.missed)

    async def recorded(self, id: str, seconds: float) -> bool:
        """Wait until the journal has an inspection on disk; whether it has in time. Loop thread."""
        event = asyncio.Event()
        with self._lock:
            self._loop = asyncio.get_running_loop()
            if self._ring.has(id):
                return True
            self._awaited[id] = event
        try:
            await asyncio.wait_for(event.wait(), max(0.0, seconds))
        except asyncio.TimeoutError:
            return False
        finally:
            with self._lock:
                self._awaited.pop(id, None)
        return True

    def place(self, since: int, run: str) -> int:
        """The position to go on from without a journal, for a client that has seen `since`."""
        with self._lock:
            # Positions begin again at each start: one from an earlier life says nothing here.
            foreign = since > self._ring.newest or (run and run != self.run)
            return max(0 if foreign else since, self._ring.oldest - 1)

    def page(self, since: int, stations: frozenset[str], most: int) -> list[RingRecord]:
        """At most so many records of the ring after `since`."""
        with self._lock:
            found: list[RingRecord] = []
            index = self._ring.after(since)
            while index < len(self._ring) and len(found) < most:
                kept = self._ring[index]
                if not stations or kept.station in stations:
                    found.append(kept)
                index += 1
            return found

    def take(self, watcher: Watcher) -> Taken:
        """The watcher's next records, or where to look for them. Loop thread."""
        with self._lock:
            ring = self._ring
            before = ring.oldest - 1
            if self.journal is None:
                if watcher.position < before:
                    watcher.missed += before - watcher.position
                    watcher.position = before
            elif watcher.position < before or (not len(ring) and not watcher.caught_up):
                until = before if len(ring) else None
                return Taken([], lags=True, until=until, ended=self._closed)
            begin = ring.after(watcher.position)
            end = min(begin + SCAN, len(ring))
            records = []
            for index in range(begin, end):
                kept = ring[index]
                if not watcher.stations or kept.station in watcher.stations:
                    records.append(kept.data)
            if end > begin:
                watcher.position = ring[end - 1].position
            more = end < len(ring)
            return Taken(records, more, ended=self._closed and not more)

    def _written(self, entries: Sequence[JournalEntry]) -> None:
        """The journal has these on disk (its thread, in the order of their positions)."""
        kept = []
        for entry in entries:
            try:
                message = proto.inspection_from_record(entry)
            except ValueError as error:
                log.error("an inspection is left out of the stream: %s", error)
                continue
            data = message.SerializeToString()
            kept.append(RingRecord(entry.position, message.station, data, message.id))
        with self._lock:
            for one in kept:
                self._ring.add(one)
            awaited = [self._awaited.pop(k.id) for k in kept if k.id in self._awaited]
            wake = self._wants_wake()
        if self._loop is not None:
            for event in awaited:
                with contextlib.suppress(RuntimeError):  # the loop has ended
                    self._loop.call_soon_threadsafe(event.set)
        if wake:
            self._call_loop()

    def _wants_wake(self) -> bool:
        """Whether the loop must be told; one wake serves all records until it has run."""
        wake = bool(self._watchers) and not self._waking
        self._waking = self._waking or wake
        return wake

    def _call_loop(self) -> None:
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and all watchers with it
                loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        with self._lock:
            self._waking = False
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher.wake.set()


class _Ring:
    """The last records in the order of their positions, which rise but may leave gaps."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._slots: list[RingRecord] = []
        self._first = 0

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, index: int) -> RingRecord:
        return self._slots[(self._first + index) % len(self._slots)]

    def has(self, id: str) -> bool:
        """Whether it is among the newest; who asks has only just heard of it."""
        newest = range(len(self), max(0, len(self) - SCAN), -1)
        return any(self[index - 1].id == id for index in newest)

    @property
    def oldest(self) -> int:
        """Its position; 1 while there is none."""
        return self[0].position if self._slots else 1

    @property
    def newest(self) -> int:
        """Its position; 0 while there is none."""
        return self[len(self) - 1].position if self._slots else 0

    def add(self, kept: RingRecord) -> None:
        if len(self._slots) < self._capacity:
            self._slots.append(kept)
        else:
            self._slots[self._first] = kept
            self._first = (self._first + 1) % self._capacity

    def after(self, position: int) -> int:
        """The index of the first record after `position`; len(self) when there is none."""
        return bisect_right(range(len(self)), position, key=lambda index: self[index].position)
