"""One station: from a trigger, or a picture, to exactly one answer.

    request  somebody says: inspect this part. It is taken or missed, at once (the ack).
    picture  the camera delivers. The request that waits gets the first picture exposed after it was
             received; a free-running or hardware-triggered camera's picture is a request itself.
    expire   the deadline, which runs on our own monotonic clock from receipt, has come.

Every request has one terminal inspection, whoever ends it first: the unit with a verdict, the clock
with a timeout, the camera's loss, the stop. What comes after is counted, and a verdict that came
too late goes into the record as such, never to the PLC.

Decision: one request at a time waits for its picture. A trigger says that its part is in view now;
when the next trigger comes before the camera has delivered, the picture that follows shows the
next part. So the first is answered `stale_frame`, and never with the picture of another part.

Locks: `_lock` guards the requests in progress; nothing is called while it is held. `_numbering` is
held while a number is drawn and told to the publisher, so that both know the same order; neither of
them calls back.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edged.core.errors import BadImage, Busy, EdgedError, ShuttingDown, WrongState
from edged.core.names import TriggerKind
from edged.core.observer import Observer
from edged.core.types import (
    Ack,
    Inspection,
    Job,
    NoVerdict,
    Picture,
    Reason,
    Timing,
    Trigger,
    TriggerRequest,
    new_id,
)
from edged.line.in_progress import PartInProgress, Rules, Unconfirmed, blank, with_picture
from edged.line.publish import Publisher
from edged.runtime.workers import Worker
from edged.wire.results import result_number

WINDOW = 4
"""Pictures of a camera that waits for its consumer (`paced`), on their way at once."""
PAUSE = 0.05  # seconds until a paced frame tries again for its place
EACH = ("free", "hardware")
"""Kinds of trigger with which each picture is a part."""
REMEMBERED, REMEMBERED_NS = 4096, 60 * 10**9
"""Requests by which a repeated trigger is known, and for how long: a PLC that begins to count anew
must not be taken for one that asks again."""


class Station:
    """One station. `request` any thread, `picture` the capture thread, `expire` the clock's."""

    def __init__(
        self,
        rules: Rules,
        offer: Callable[[Job], None],
        publisher: Publisher,
        next_sequence: Callable[[str], int],
        observer: Observer,
        wake: Callable[[], None] = lambda: None,
    ) -> None:
        """`offer` seats a job or raises; `wake` makes somebody call `expire` soon."""
        self.rules = rules
        self.refusal: tuple[Reason, str] | None = None
        """Why no request is taken now; None = they are. Set by who watches the station."""
        self._offer = offer
        self._publisher = publisher
        self._next_sequence = next_sequence
        self._observer = observer
        self._wake = wake
        self._lock = threading.Condition()
        self._numbering = threading.Lock()
        self._open: deque[PartInProgress] = deque()
        self._ended: list[tuple[PartInProgress, NoVerdict]] = []
        """Decided here, to be published by the clock's thread."""
        self._late: list[Inspection] = []
        self._seen: dict[tuple[str, int], int] = {}
        self._unconfirmed = Unconfirmed(rules, observer)
        self._pace = threading.Semaphore(WINDOW)
        self._camera_up = self._camera_known = False
        self._closed = False

    @property
    def each(self) -> bool:
        """Whether each picture is a part, so that nobody needs to ask."""
        return self.rules.kind in EACH

    def waits(self, paced: bool) -> bool:
        """Whether a camera that is open and delivers nothing is in order: it waits for a part."""
        return self.rules.kind == "hardware" or (paced and not self.each)

    @property
    def camera_up(self) -> bool:
        """Whether the camera delivers."""
        return self._camera_up

    @property
    def camera_known(self) -> bool:
        """Whether the camera has come up or failed to; before, nobody can say."""
        return self._camera_known

    @property
    def in_progress(self) -> int:
        """Requests without their answer."""
        with self._lock:
            return len(self._open)

    def request(
        self,
        request: TriggerRequest,
        received_ns: int,
        kind: TriggerKind,
        on_answer: Callable[[Inspection], None] | None = None,
    ) -> Ack:
        """Take a request or miss it; a missed one has its inspection, too.

        Three have none: a repeat, one whose record could not be kept, and one that came while
        edged was stopping. `on_answer` gets the one inspection. Raises nothing; does not wait.
        """
        limit = self.rules.limit_ns if request.deadline is None else int(request.deadline * 1e9)
        deadline = received_ns + limit if limit else 0
        with self._numbering:
            if not self._is_new(request):
                return self._acked(Ack(Reason.DUPLICATE, "this part and number came before"))
            self.spoil()
            missed = self._missed(deadline)
            if missed is not None and missed.reason in (Reason.NO_RECORD, Reason.SHUTDOWN):
                return self._acked(missed)
            try:
                number = self._next_sequence(self.rules.name)
            except EdgedError as error:
                return self._acked(Ack(Reason.NO_RECORD, str(error)))
            self._seen[request.part, request.sequence] = time.monotonic_ns()
            trigger = Trigger(request.part, request.sequence, received_ns, deadline, kind)
            entry = PartInProgress(
                blank(self.rules, number, received_ns, trigger), deadline, on_answer
            )
            self._publisher.expect(entry.frame)
            self._take(entry, missed)
        self._wake()
        return self._acked(missed or Ack())

    def spoil(self) -> None:
        """There was a trigger, whatever becomes of it: another part is in view now.

        A request that still waits for its picture must not get the one of that part.
        """
        with self._lock:
            waiting = [e for e in self._open if not e.pictured]
            for earlier in waiting:
                words = "the next trigger came before the camera gave a picture of this part"
                self._end(earlier, NoVerdict(Reason.STALE_FRAME, words))
        if waiting:
            self._wake()

    def await_turn(self, worker: Worker) -> None:
        """Before a camera that waits for its consumer is read: wait until a picture is wanted."""
        if self.each:
            return
        with self._lock:
            while not worker.stop.is_set() and all(e.pictured for e in self._open):
                worker.beat()
                self._lock.wait(0.5)

    def picture(self, picture: Picture, worker: Worker, paced: bool) -> None:
        """A picture came; on the capture thread, which it holds only while a paced one waits."""
        picture.image.setflags(write=False)
        if self.each:
            return self._inspect_each(picture, worker, paced)
        with self._lock:
            entry = next((e for e in self._open if not e.pictured), None)
            if entry is None:
                return  # between two parts
            if picture.captured_ns < entry.received_ns:
                entry.stale = True
                return
            if entry.is_over(picture.captured_ns, self.rules.window_ns):
                return self._wake()  # the clock is late, and ends it now
            entry.pictured = True
            entry.frame = with_picture(entry.frame, picture)
        self._submit(entry, worker, paced, sheddable=False)

    def camera(self, up: bool, detail: str) -> None:
        """The camera delivers, or is gone: what waits for a picture gets none. Capture thread."""
        self._camera_up, self._camera_known = up, True
        if not up:
            self._end_waiting(Reason.CAMERA_LOST, detail)

    def expire(self, now_ns: int) -> int:
        """Publish what was decided without a verdict; when the next deadline is, 0 = none."""
        window = self.rules.window_ns
        with self._lock:
            for entry in [e for e in self._open if 0 < e.deadline_ns <= now_ns]:
                self._end(entry, entry.timeout())
            for entry in [e for e in self._open if window and not e.pictured]:
                if entry.received_ns + window <= now_ns:
                    self._end(entry, NoVerdict(Reason.STALE_FRAME, "no picture in its window"))
            ended, self._ended = self._ended, []
            late, self._late = self._late, []
            moments = [e.deadline_ns for e in self._open if e.deadline_ns]
            moments += [e.received_ns + window for e in self._open if window and not e.pictured]
        for entry, outcome in ended:
            self._publish(entry, entry.ended(outcome), wait=False)
        for inspection in late:
            self._publish_late(inspection)
        return min(moments, default=0)

    def delivered(self, sequence: int) -> None:
        """The PLC has processed its results up to this one."""
        self._unconfirmed.confirmed(sequence)

    def close(self) -> None:
        """Take no more requests, and answer those that have no picture; the clock publishes it."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._end_waiting(Reason.SHUTDOWN, "edged is stopping")

    def abandon(self) -> None:
        """Answer everything that a stuck unit did not; the clock's thread, at its end."""
        with self._lock:
            for entry in list(self._open):
                self._end(entry, NoVerdict(Reason.SHUTDOWN, "edged stopped before its verdict"))

    def _is_new(self, request: TriggerRequest) -> bool:
        oldest = time.monotonic_ns() - REMEMBERED_NS
        while self._seen:
            key, at = next(iter(self._seen.items()))
            if at > oldest and len(self._seen) <= REMEMBERED:
                break
            del self._seen[key]
        return (request.part, request.sequence) not in self._seen

    def _missed(self, deadline_ns: int) -> Ack | None:
        if self._closed:
            return Ack(Reason.SHUTDOWN, "edged is stopping")
        if self.refusal is not None:
            return Ack(*self.refusal)
        if not self._camera_up:
            return Ack(Reason.CAMERA_LOST, f"camera {self.rules.camera} does not deliver")
        if 0 < deadline_ns <= time.monotonic_ns():
            return Ack(Reason.TIMEOUT, "its deadline had passed when it was read")
        if self.in_progress >= self.rules.waiting:
            return Ack(Reason.OVERLOAD, f"{self.rules.waiting} parts are in progress already")
        return None

    def _acked(self, ack: Ack) -> Ack:
        word = "accepted" if ack.reason is None else ack.reason.word
        self._observer.triggered(self.rules.name, word)
        return ack

    def _take(self, entry: PartInProgress, missed: Ack | None) -> None:
        with self._lock:
            if missed is not None and missed.reason is not None:
                entry.done = True
                self._ended.append((entry, NoVerdict(missed.reason, missed.detail)))
                return
            self._open.append(entry)
            self._lock.notify_all()

    def _inspect_each(self, picture: Picture, worker: Worker, paced: bool) -> None:
        """Each picture is a part: of a camera that runs freely, or has a trigger of its own."""
        rules = self.rules
        if self.refusal is not None and self.refusal[0] is Reason.HALTED:
            return
        while paced and not self._pace.acquire(timeout=1.0):
            worker.beat()
            if worker.stop.is_set():
                return
        deadline = picture.captured_ns + rules.limit_ns if rules.limit_ns else 0
        trigger = Trigger("", 0, picture.captured_ns, deadline, rules.kind)
        with self._numbering:
            try:
                number = self._next_sequence(rules.name)
            except EdgedError:
                if paced:
                    self._pace.release()
                raise
            frame = with_picture(blank(rules, number, picture.captured_ns, trigger), picture)
            self._publisher.expect(frame)
        entry = PartInProgress(frame, deadline, pictured=True)
        with self._lock:
            self._open.append(entry)
        if deadline:
            self._wake()
        self._submit(entry, worker, paced, sheddable=rules.kind == "free" and not paced)

    def _submit(self, entry: PartInProgress, worker: Worker, paced: bool, sheddable: bool) -> None:
        reply = partial(self._answered, entry, paced)
        job = Job(entry.frame, reply, sheddable=sheddable, deadline_ns=entry.deadline_ns)
        while True:
            try:
                return self._offer(job)
            except (Busy, WrongState) as error:
                detail = str(error)
                if paced and not entry.deadline_ns and not worker.stop.wait(PAUSE):
                    worker.beat()
                    continue
                reason = Reason.OVERLOAD if isinstance(error, Busy) else Reason.MODEL_MISSING
            except ShuttingDown as error:
                reason, detail = Reason.SHUTDOWN, str(error)
            except EdgedError as error:
                detail = str(error)
                reason = Reason.IMAGE_SIZE if isinstance(error, BadImage) else Reason.MODEL_MISSING
            if worker.stop.is_set():
                reason = Reason.SHUTDOWN
            return self._refuse(entry, paced, NoVerdict(reason, detail))

    def _refuse(self, entry: PartInProgress, paced: bool, outcome: NoVerdict) -> None:
        """No unit takes it. Of a trigger the clock says so: the camera's thread must not wait."""
        if self.each:
            timing = Timing(entry.frame.captured_ns)
            return self._answered(entry, paced, Inspection(entry.frame, None, outcome, timing))
        with self._lock:
            if not entry.done:
                self._end(entry, outcome)
        self._wake()

    def _answered(self, entry: PartInProgress, paced: bool, inspection: Inspection) -> None:
        """The unit's or the batcher's answer, on whichever thread ends the job."""
        if paced and self.each:
            self._pace.release()
        judged = inspection.verdict is not None
        overdue = 0 < entry.deadline_ns <= time.monotonic_ns()
        with self._lock:
            first = not entry.done
            if first:
                self._open.remove(entry)
                entry.done = True
            late = judged and (overdue or not first)
            if late:
                self._late.append(inspection)
        if first and late:
            inspection = replace(inspection, outcome=entry.timeout(), id=new_id())
        if first:
            self._publish(entry, inspection)
        if late:
            self._wake()

    def _end_waiting(self, reason: Reason, detail: str) -> None:
        with self._lock:
            for entry in [e for e in self._open if not e.pictured]:
                self._end(entry, NoVerdict(reason, detail))
        self._wake()

    def _end(self, entry: PartInProgress, outcome: NoVerdict) -> None:
        """Under the lock: this is the one answer; the clock's thread publishes it."""
        entry.done = True
        self._open.remove(entry)
        self._ended.append((entry, outcome))

    def _publish(self, entry: PartInProgress, inspection: Inspection, wait: bool = True) -> None:
        outcome = inspection.outcome
        shed = isinstance(outcome, NoVerdict) and outcome.reason is Reason.SUPERSEDED
        if self.rules.confirm and not shed:
            self._unconfirmed.sent(result_number(inspection))
        if entry.on_answer is not None:
            entry.on_answer(inspection)
        self._publisher.publish(inspection, wait)

    def _publish_late(self, inspection: Inspection) -> None:
        """The verdict of a part that has had its timeout, as a record of its own."""
        of = inspection.frame.sequence
        with self._numbering:
            try:
                number = self._next_sequence(self.rules.name)
            except EdgedError:
                return  # the part has its record: the timeout
            frame = replace(inspection.frame, sequence=number)
            self._publisher.expect(frame)
        self._publisher.publish(replace(inspection, frame=frame, late_of=of), wait=False)
