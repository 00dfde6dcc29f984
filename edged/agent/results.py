"""The stream of inspections for MES software: a Sink on one side, `Inspections.Watch` on the other.

Owns one ring of serialised records, shared by all watchers: a watcher is a cursor into it, so a
slow one holds no memory and costs the others nothing. When the ring overtakes it, it loses the
oldest and sees the gap in `position`. No frame is kept alive: a record is serialised once, on
acceptance. Must not decide anything about a record, nor keep it for longer than the ring does:
what must survive a restart is the outbox's business.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from dataclasses import dataclass, field
from typing import Any

from edged.agent.calls import Calls
from edged.core.errors import Busy, InvalidInput
from edged.core.types import Inspection, new_id
from edged.wire import proto
from edged.wire.pb import results_pb2 as pb

log = logging.getLogger(__name__)

NAME = "edged.v1.Inspections"
MAX_WATCHERS = 64
MAX_CAMERAS = 1024
SCAN = 256
"""Positions looked at in one go: the lock is held, and the loop kept, that long at most."""


@dataclass(slots=True, eq=False)
class _Watcher:
    """Where one client is. Touched on the loop's thread only."""

    position: int
    cameras: frozenset[str]
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    missed: int = 0


class ResultsStream:
    """The last `capacity` inspections of this daemon's life, and whoever watches them."""

    name = "results"

    def __init__(self, capacity: int = 4096) -> None:
        self._capacity = capacity
        self._run = new_id()
        self._lock = threading.Lock()
        self._ring: list[tuple[str, bytes]] = []  # position p is at p - 1, modulo
        self._newest = 0
        self._closed = False
        self._waking = False
        self._watchers: set[_Watcher] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Nothing to open: watchers come in through the doors."""

    def accept(self, inspection: Inspection) -> None:
        """Give a record its position and wake the watchers. Any thread, several at once."""
        message = proto.inspection(inspection, run=self._run)
        with self._lock:
            message.position = self._newest + 1
            entry = (inspection.frame.source, message.SerializeToString())
            if len(self._ring) < self._capacity:
                self._ring.append(entry)
            else:
                self._ring[self._newest % self._capacity] = entry
            self._newest += 1
            wake = self._wants_wake()
        if wake:
            self._call_loop()

    def close(self) -> None:
        """Let every watcher receive what was accepted, then end its stream with OK.

        Does not wait: a client that does not read must not use up the time that other sinks need
        to deliver. The doors wait for the streams, by their own deadline, when they close.
        """
        with self._lock:
            self._closed = True
            wake = self._wants_wake()
        if wake:
            self._call_loop()

    def handlers(self, calls: Calls) -> dict[str, Any]:
        """The gRPC method handlers by the method's name."""
        return {"Watch": calls.stream("Watch", pb.WatchRequest, self.watch)}

    async def watch(self, request: pb.WatchRequest, context: Any) -> None:
        """Write the records after `since`, then live ones, until closed. Loop thread.

        Raises Busy beyond MAX_WATCHERS, InvalidInput for too many cameras.
        """
        watcher = self._join(request)
        try:
            # Tells the client that it watches, long before there may be a record.
            await context.send_initial_metadata(())
            while True:
                watcher.wake.clear()
                records, more, ended = self._take(watcher)
                for record in records:
                    await context.write(record)
                if ended:
                    return
                if more:
                    await asyncio.sleep(0)
                else:
                    await watcher.wake.wait()
        finally:
            self._leave(watcher)

    def _join(self, request: pb.WatchRequest) -> _Watcher:
        if len(request.cameras) > MAX_CAMERAS:
            raise InvalidInput(
                f"{len(request.cameras)} cameras are named; {MAX_CAMERAS} are allowed, and none "
                "means all."
            )
        with self._lock:
            if len(self._watchers) >= MAX_WATCHERS:
                raise Busy(f"{MAX_WATCHERS} clients watch already: close one, or try again later.")
            since = request.since
            # Positions begin again at each start: one from an earlier life says nothing here.
            if since > self._newest or (request.run and request.run != self._run):
                since = 0
            watcher = _Watcher(max(since + 1, self._oldest()), frozenset(request.cameras))
            self._watchers.add(watcher)
            self._loop = asyncio.get_running_loop()
        return watcher

    def _leave(self, watcher: _Watcher) -> None:
        with self._lock:
            self._watchers.discard(watcher)
        if watcher.missed:
            log.warning("a watcher of the results was too slow: %d passed it by", watcher.missed)

    def _take(self, watcher: _Watcher) -> tuple[list[bytes], bool, bool]:
        """The watcher's next records; whether more are there; whether that was all for ever."""
        with self._lock:
            oldest = self._oldest()
            if watcher.position < oldest:
                watcher.missed += oldest - watcher.position
                watcher.position = oldest
            end = min(watcher.position + SCAN, self._newest + 1)
            records = []
            for position in range(watcher.position, end):
                camera, record = self._ring[(position - 1) % self._capacity]
                if not watcher.cameras or camera in watcher.cameras:
                    records.append(record)
            watcher.position = end
            more = end <= self._newest
            return records, more, self._closed and not more

    def _oldest(self) -> int:
        return self._newest - len(self._ring) + 1

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
