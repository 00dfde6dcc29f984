"""How records flow through a sink: in (Inbox), to disk (Writer); send_order.py says which leaves.

Knows the outbox and no protocol. It must not block the inspecting threads for longer than it
promises, nor forget a record.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from typing import Generic, TypeVar

from edged.core.errors import SinkError
from edged.core.observer import Observer
from edged.core.types import Reason
from edged.outbox.records import Appended, Record, Recorded
from edged.outbox.send_order import SendOrder

log = logging.getLogger(__name__)

QUEUE = 1024
"""Messages that may wait in memory for the disk."""
_DISK_SECONDS = 1.0
_LOOK_SECONDS = 1.0
_TIDY_SECONDS = 10.0


M = TypeVar("M")
R = TypeVar("R", bound=Recorded)


class Inbox(Generic[M]):
    """Bounded queue from the inspecting threads to one worker, which sleeps in `poll` on `fileno`.

    A message counts against the bound until the worker says it is on disk (`release`).
    """

    def __init__(self, limit: int = QUEUE) -> None:
        self._limit = limit
        self._room = threading.Condition()
        self._queue: list[M] = []
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

    def put(self, message: M, seconds: float) -> None:
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

    def take(self) -> list[M]:
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


class Writer(Generic[R]):
    """Takes messages to disk; keeps in memory what the disk refuses, until it does not.

    Worker thread only, but `confirm`, `refusal` and `accepting`: any thread; `write_the_rest` on
    whichever thread ends the sink.
    """

    def __init__(
        self, inbox: Inbox[R], send_order: SendOrder, observer: Observer, name: str
    ) -> None:
        self._inbox = inbox
        self._send_order = send_order
        self._observer = observer
        self._name = name
        self._unwritten: list[R] = []
        self._fails = ""
        self._write_at = 0.0
        self._look_at = 0.0
        self._tidy_at = 0.0
        self._lock = threading.Lock()
        self._confirmed: dict[str, int] = {}
        self.retry_at = 0.0
        """Do not read the disk until then. A full one can be read, and must be to get emptier."""

    @property
    def waiting(self) -> int:
        """Messages that are in memory only."""
        return len(self._unwritten)

    @property
    def refusal(self) -> str:
        """Why no further record should be accepted, as a sentence; empty = it may be.

        With `when_full = "refuse"` as soon as the outbox is full or its disk refuses, always when
        the memory in front of the disk is full. What was accepted is kept whatever this says, so
        at most QUEUE records stand beyond the bound.
        """
        if self._fails and (self._refuses or self.waiting >= QUEUE):
            return self._fails
        if self._refuses and self._send_order.outbox.full_with(self.waiting):
            return (
                f"The outbox is full ({self._send_order.outbox.count} records wait) and "
                'when_full = "refuse": bring the broker or its receiver back.'
            )
        return ""

    @property
    def accepting(self) -> bool:
        """Whether a record may be accepted."""
        return not self.refusal

    @property
    def due(self) -> float:
        """When there is something to do without new messages; infinity if nothing."""
        at = self._look_at
        if not self._unwritten:
            at = min(at, self._send_order.flush_due())
        elif not self._fails:
            at = 0.0
        return max(at, self._write_at)

    def confirm(self, topic: str, up_to: int) -> None:
        """The receiver has processed the records of `topic` up to this number of theirs."""
        with self._lock:
            self._confirmed[topic] = max(up_to, self._confirmed.get(topic, 0))
        self._inbox.wake()

    @property
    def fails(self) -> str:
        """Why the disk does not take records now; empty if it does. Any thread."""
        return self._fails

    def write(self, messages: Sequence[R], now: float) -> bool:
        """One transaction for these and whatever waits; trouble is logged, and tried again.

        Whether everything is on disk now.
        """
        self._unwritten += messages
        owed, self._send_order.owed = self._send_order.owed, []
        for appended in owed:
            self._count(appended)
        with self._lock:
            confirmed, self._confirmed = self._confirmed, {}
        for topic, up_to in confirmed.items():
            self._send_order.confirm(topic, up_to, now)
        if now < self._write_at:
            self._unwritten = [m.without_ok(Reason.NO_RECORD) for m in self._unwritten]
            return not self._unwritten
        try:
            if self._work(now) and self._fails:
                self._fails = ""
                log.info("sink %s: the outbox works again", self._name)
        except SinkError as error:
            self._refused(error, now)
            # Their results leave as no OK, so their records must not tell of one later.
            self._unwritten = [m.without_ok(Reason.NO_RECORD) for m in self._unwritten]
        return not self._unwritten

    def trouble(self, error: SinkError, now: float) -> None:
        """The disk cannot be read: say so once, give it a rest."""
        self.retry_at = now + _DISK_SECONDS
        self._say(error)

    def write_the_rest(self) -> None:
        """The worker has ended, or crashed: what it left behind goes to disk now or never."""
        self._unwritten += self._inbox.take()
        try:
            if self._unwritten:
                self._store()
            self._count(self._send_order.flush())
        except SinkError as error:
            log.error("%s Lost with this stop: %d records in memory.", error, self.waiting)
            for _ in self._unwritten:
                self._observer.sink_dropped(self._name, "disk")

    @property
    def _refuses(self) -> bool:
        return self._send_order.outbox.bounds.refuse

    def _work(self, now: float) -> bool:
        """Whatever is due; whether the disk was written."""
        wrote = True
        if self._unwritten:
            self._store()
        elif now >= self._send_order.flush_due() or (
            now >= self._tidy_at and self._send_order.backlog
        ):
            self._tidy_at = now + _TIDY_SECONDS  # records also age while nothing is appended
            self._count(self._send_order.flush())
        else:
            wrote = False
        if now >= self._look_at:
            self._look_at = now + _LOOK_SECONDS
            outbox = self._send_order.outbox
            self._observer.sink_outbox(self._name, outbox.size, outbox.oldest_age())
        return wrote

    def _refused(self, error: SinkError, now: float) -> None:
        """The disk takes nothing more: forget on it what can be, so that there is room again."""
        self._write_at = now + _DISK_SECONDS
        self._say(error)
        try:
            self._count(self._send_order.flush())
        except SinkError as worse:
            log.debug("nor can answered records be forgotten: %s", worse)

    def _say(self, error: SinkError) -> None:
        if not self._fails:
            log.error("%s Records wait in memory; trying again every second.", error)
        self._fails = str(error)

    def _store(self) -> None:
        confirming = self._send_order.confirming
        batch = [
            Record(m.full_topic, m.full, m.number if m.full_topic in confirming else 0)
            for m in self._unwritten
        ]
        appended = self._send_order.store(batch)
        written, self._unwritten = len(self._unwritten), []
        self._inbox.release(written)
        self._count(appended)

    def _count(self, appended: Appended) -> None:
        for policy, records in appended.dropped.items():
            for _ in range(records):
                self._observer.sink_dropped(self._name, policy)
        if appended.confirmed:
            self._observer.sink_confirmed(self._name, appended.confirmed)
