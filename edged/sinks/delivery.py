"""How records flow through a sink: in (Inbox), to disk (Writer), out again in order (Replay).

Knows the outbox and no protocol: it decides which record goes next, not how it travels.
It must not block the inspecting threads for longer than it promises, nor forget a record.

Decision: a far end that refuses one topic must not hold up the others. A refused record puts its
topic on hold; after a while one record of it is sent as a probe, and if that is taken the topic
is read again from its first refused record. Order holds per topic, which is all MQTT promises.
So the first record of a topic on a new connection goes alone, and its answer is awaited: were many
out at once, a subscriber that comes back between two would get the later ones before the earlier.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edged.core.errors import SinkError
from edged.core.observer import Observer
from edged.sinks.outbox import Outbox, Row

log = logging.getLogger(__name__)

QUEUE = 1024
"""Messages that may wait in memory for the disk."""
_LOAD = 256
_LOADS = 16  # at a time, when they hold nothing but what must wait: results want their turn
_AHEAD = 1024
_FLUSH_SECONDS = 0.2
_DISK_SECONDS = 1.0


class Message(NamedTuple):
    """One inspection, ready for both lanes; or an ack, which has no record (`full` empty).

    flat: the result, empty = none is sent. number: the record's, in its station. withheld: what
    is sent in the place of an OK whose record is not on disk; empty for what is no OK anyway.
    deadline_ns: monotonic; after it the result is not sent; 0 = none. limit: how many results of
    its station may wait to leave.
    """

    result_topic: str
    flat: bytes
    full_topic: str
    full: bytes
    number: int = 0
    withheld: bytes = b""
    deadline_ns: int = 0
    qos: int = 1
    limit: int = 1024
    station: str = ""


class Inbox:
    """Bounded queue from the inspecting threads to one worker, which sleeps in `poll` on `fileno`.

    A message counts against the bound until the worker says it is on disk (`release`).
    """

    def __init__(self, limit: int = QUEUE) -> None:
        self._limit = limit
        self._room = threading.Condition()
        self._queue: list[Message] = []
        self._held = 0
        self._asleep = False
        self._nudged = False
        self._pipe: tuple[int, int] | None = None

    def open(self) -> None:
        """Get ready to be slept on."""
        read, write = os.pipe()
        os.set_blocking(read, False)
        os.set_blocking(write, False)
        self._pipe = read, write

    def close(self) -> None:
        """Refuse further messages; called when the worker has ended."""
        with self._room:
            pipe, self._pipe = self._pipe, None
            self._room.notify_all()
            for descriptor in pipe or ():
                os.close(descriptor)

    @property
    def fileno(self) -> int:
        """Readable when the sleeping worker should wake (worker thread)."""
        if self._pipe is None:
            raise SinkError("The sink is not running.")
        return self._pipe[0]

    def put(self, message: Message, seconds: float) -> None:
        """Leave a message (any thread); waits at most `seconds` for room, then raises SinkError."""
        with self._room:
            if self._held >= self._limit:
                self._room.wait_for(lambda: self._held < self._limit, seconds)
                if self._held >= self._limit:
                    raise SinkError(
                        f"{self._held} records wait for the disk, which has stalled: "
                        "check its free space and health."
                    )
            if self._pipe is None:
                raise SinkError("The sink is not running: the record was not taken.")
            self._queue.append(message)
            self._held += 1
            self._wake()

    def wake(self) -> None:
        """Make the worker look around (any thread)."""
        with self._room:
            self._nudged = True
            self._wake()

    def take(self) -> list[Message]:
        """Everything that waits, oldest first (worker thread)."""
        with self._room:
            taken, self._queue = self._queue, []
            self._nudged = False
            return taken

    def release(self, count: int) -> None:
        """So many taken messages are safe now; lets waiting threads go on (worker thread)."""
        with self._room:
            full = self._held >= self._limit
            self._held -= count
            if full:
                self._room.notify_all()

    def rest(self) -> bool:
        """True if the worker may sleep now; from here on a message makes `fileno` readable."""
        with self._room:
            self._asleep = not (self._queue or self._nudged)
            return self._asleep

    def rise(self) -> None:
        """The worker is awake; messages need no wake-up call any more."""
        with self._room:
            if not self._asleep and self._pipe is not None:
                os.read(self._pipe[0], 16)  # somebody called: exactly then is there a byte
            self._asleep = False

    def _wake(self) -> None:
        if self._asleep and self._pipe is not None:
            self._asleep = False
            os.write(self._pipe[1], b"\0")


@dataclass(slots=True)
class _Hold:
    """A topic whose records the far end does not take now."""

    first: int
    """The oldest record it refused or that was passed over."""
    until: float
    probe: int = 0
    """The record that is out to try; 0 = none."""


class Replay:
    """Which record of an outbox goes next, on one connection at a time. Worker thread only.

    Recent records are kept in memory besides, so the disk is read only after an outage. Times are
    `time.monotonic()`. Methods that touch the disk raise SinkError.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._out: set[int] = set()
        self._done: set[int] = set()
        self._done_since = 0.0
        self._holds: dict[str, _Hold] = {}
        self._taking: set[str] = set()
        """Topics of which the far end has taken a record on this connection."""
        self._trial = 0
        """The record that is out as the first of its topic; 0 = none."""
        self._cursor = 0
        self._ahead: deque[Row] = deque()
        self._complete = False
        self._unread = False

    @property
    def backlog(self) -> int:
        """Records on disk that the far end has not taken."""
        return max(0, self._outbox.count - len(self._done))

    @property
    def idle(self) -> bool:
        """Nothing is out and nothing can be sent: what is left is on hold."""
        return self._complete and not self._ahead and not self._out

    def store(self, batch: Sequence[tuple[str, bytes]]) -> int:
        """Put (topic, payload) pairs on disk; returns how many old records had to go."""
        appended = self._outbox.append(batch, self._done)
        self._done.clear()
        if self._complete and len(self._ahead) + len(batch) <= _AHEAD:
            self._ahead.extend(
                Row(seq, *pair) for seq, pair in zip(appended.seqs, batch, strict=True)
            )
        else:
            self._complete = False
        return appended.dropped

    def restart(self) -> None:
        """A new connection: whatever was out is unknown and goes again, in order."""
        self._out.clear()
        self._holds.clear()
        self._taking.clear()
        self._trial = 0
        self._rewind(1)

    def next(self, now: float) -> Row | None:
        """The record to send now, or None. It counts as out until answered or restarted."""
        row = self._next_probe(now) or self._next_in_order()
        if row is not None:
            self._out.add(row.seq)
        return row

    def taken(self, row: Row, now: float) -> None:
        """The far end has this record."""
        self._answered(row)
        if not self._done:
            self._done_since = now
        self._done.add(row.seq)
        self._taking.add(row.topic)
        hold = self._holds.get(row.topic)
        if hold is not None and hold.probe == row.seq:
            del self._holds[row.topic]
            self._rewind(hold.first)

    def refused(self, row: Row, until: float) -> None:
        """The far end does not take this record: keep it, try its topic again at `until`."""
        self._answered(row)
        hold = self._holds.setdefault(row.topic, _Hold(row.seq, until))
        hold.first = min(hold.first, row.seq)
        hold.until = until
        if hold.probe == row.seq:
            hold.probe = 0

    def due(self) -> float:
        """When `next` should be asked again without news: a topic on hold, records unread."""
        if self._unread:
            return 0.0
        times = [hold.until for hold in self._holds.values() if not hold.probe]
        return min(times, default=float("inf"))

    def flush_due(self) -> float:
        """When answered records should be forgotten on disk, if no append does it before."""
        return self._done_since + _FLUSH_SECONDS if self._done else float("inf")

    def flush(self) -> None:
        """Forget answered records on disk. A crash before it only sends them twice."""
        if self._done:
            self._outbox.acknowledge(self._done)
            self._done.clear()

    def _answered(self, row: Row) -> None:
        self._out.discard(row.seq)
        if row.seq == self._trial:
            self._trial = 0

    def _rewind(self, seq: int) -> None:
        self._cursor = min(self._cursor, seq - 1)
        self._ahead.clear()
        self._complete = self._unread = False

    def _next_probe(self, now: float) -> Row | None:
        for topic, hold in list(self._holds.items()):
            if hold.probe or hold.until > now:
                continue
            self.flush()
            row = self._outbox.first(topic, hold.first)
            if row is None or row.seq in self._out:
                del self._holds[topic]  # the bound of the outbox took the refused ones
                self._rewind(hold.first)
                continue
            hold.first = hold.probe = row.seq
            return row
        return None

    def _next_in_order(self) -> Row | None:
        loads, self._unread = 0, False
        while not self._trial and (self._ahead or not self._complete):
            if not self._ahead:
                if loads == _LOADS:
                    self._unread = True
                    return None
                loads += 1
                self._ahead.extend(self._outbox.pending(self._cursor, _LOAD))
                self._complete = len(self._ahead) < _LOAD
                continue
            row = self._ahead.popleft()
            self._cursor = row.seq
            if row.seq in self._out or row.seq in self._done:
                continue
            hold = self._holds.get(row.topic)
            if hold is None:
                if row.topic not in self._taking:
                    self._trial = row.seq
                return row
            hold.first = min(hold.first, row.seq)
        return None


class Writer:
    """Takes messages to disk; keeps in memory what the disk refuses, until it does not.

    Worker thread only; `write_the_rest` on whichever thread ends the sink.
    """

    def __init__(self, inbox: Inbox, replay: Replay, observer: Observer, name: str) -> None:
        self._inbox = inbox
        self._replay = replay
        self._observer = observer
        self._name = name
        self._unwritten: list[Message] = []
        self._fails = ""
        self.retry_at = 0.0
        """Leave the disk alone until then."""

    @property
    def waiting(self) -> int:
        """Messages that are in memory only."""
        return len(self._unwritten)

    @property
    def due(self) -> float:
        """When there is something to do without new messages; infinity if nothing."""
        if self._unwritten:
            return self.retry_at
        return max(self.retry_at, self._replay.flush_due())

    @property
    def fails(self) -> str:
        """Why the disk does not take records now; empty if it does. Any thread."""
        return self._fails

    def write(self, messages: Sequence[Message], now: float) -> bool:
        """One transaction for these and whatever waits; trouble is logged, and tried again.

        Whether everything is on disk now.
        """
        self._unwritten += messages
        if now < self.retry_at:
            return not self._unwritten
        try:
            if self._unwritten:
                self._store()
            elif now >= self._replay.flush_due():
                self._replay.flush()
            else:
                return True
        except SinkError as error:
            self.trouble(error, now)
            return not self._unwritten
        if self._fails:
            self._fails = ""
            log.info("sink %s: the outbox works again", self._name)
        return True

    def trouble(self, error: SinkError, now: float) -> None:
        """The disk refused: say so once, give it a rest."""
        self.retry_at = now + _DISK_SECONDS
        if not self._fails:
            self._fails = str(error)
            log.error("%s Records wait in memory; trying again every second.", error)

    def write_the_rest(self) -> None:
        """The worker has ended, or crashed: what it left behind goes to disk now or never."""
        self._unwritten += self._inbox.take()
        try:
            if self._unwritten:
                self._store()
            self._replay.flush()
        except SinkError as error:
            log.error("%s Lost with this stop: %d records in memory.", error, self.waiting)
            for _ in self._unwritten:
                self._observer.sink_dropped(self._name, "disk")

    def _store(self) -> None:
        dropped = self._replay.store([(m.full_topic, m.full) for m in self._unwritten])
        written, self._unwritten = len(self._unwritten), []
        self._inbox.release(written)
        for _ in range(dropped):
            self._observer.sink_dropped(self._name, "outbox_full")
