"""From one inspection to every sink: the reply of all camera jobs.

A frame that a newer one of its free-running camera replaced is counted and not published: it was
no part that anybody asked about. Every other inspection goes out, judged or not, so that a part
without a verdict is seen as such. One sink that fails does not keep the record from the others.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict, deque
from collections.abc import Sequence

from edged.core.errors import SinkError
from edged.core.observer import Observer
from edged.core.protocols import Sink
from edged.core.types import Frame, Inspection, NoVerdict, Reason, Timing

log = logging.getLogger(__name__)


HELD = 16
"""Answers of one camera that may wait for an earlier one; who brings more waits with them."""


class _Queue:
    """One camera's frames on their way, in the order they were taken."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.expected: deque[Frame] = deque()
        self.answered: dict[int, Inspection] = {}
        self.releasing = False
        self.closed = False

    def answer(self, inspection: Inspection, wait: bool) -> bool:
        """Take an answer; True for the thread that shall release. Waits while too many wait."""
        sequence = inspection.frame.sequence
        with self.changed:
            # Whoever waits here holds no lock and no place that the awaited answer needs.
            while wait and self._too_many(sequence):
                self.changed.wait()
            if not any(frame.sequence == sequence for frame in self.expected):
                return False  # answered at the close, when it came too late
            if _superseded(inspection):  # nothing to deliver: it need not wait, nor be kept
                self.expected = deque(f for f in self.expected if f.sequence != sequence)
            else:
                self.answered[sequence] = inspection
            first, self.releasing = not self.releasing, True
            return first

    def _too_many(self, sequence: int) -> bool:
        return len(self.answered) >= HELD and not self._next(sequence) and not self.closed

    def _next(self, sequence: int) -> bool:
        return bool(self.expected) and self.expected[0].sequence == sequence

    def release(self) -> Inspection | None:
        """The next one whose turn it is; None (and releasing ends) when it is not there yet."""
        with self.changed:
            if self.expected and self.expected[0].sequence in self.answered:
                self.changed.notify_all()
                return self.answered.pop(self.expected.popleft().sequence)
            self.releasing = False
            return None

    def close(self) -> None:
        """Answer for every frame that nobody answered; the caller releases."""
        with self.changed:
            self.closed = True
            for frame in self.expected:
                self.answered.setdefault(frame.sequence, _unanswered(frame))
            self.changed.notify_all()


class Publisher:
    """Fan-out to the sinks, in order for each camera.

    Units overtake each other, and a PLC ignores a sequence number below the last it saw: so an
    answer waits here until the earlier frames of its camera have theirs. Whichever thread brings
    the awaited one releases all that are ready, without holding a lock meanwhile. Memory is
    bounded: beyond HELD waiting answers their units wait too, so the batcher fills and sheds.
    """

    def __init__(self, sinks: Sequence[Sink], observer: Observer) -> None:
        self._sinks = tuple(sinks)
        self._observer = observer
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)

    def expect(self, frame: Frame) -> None:
        """A frame is on its way; called on its capture thread, in order, before it is offered."""
        queue = self._queues[frame.station]
        with queue.changed:
            queue.expected.append(frame)

    def publish(self, inspection: Inspection, wait: bool = True) -> None:
        """The answer to an expected frame, on any thread; never raises.

        wait: False for who must not wait for earlier answers, because it gives them itself.
        """
        queue = self._queues[inspection.frame.station]
        if queue.answer(inspection, wait):
            self._release(queue)

    def close(self) -> None:
        """Deliver what waits, and a `shutdown` for frames that a stuck unit left without answer.

        Called on main when the models are closed and before the sinks are.
        """
        for queue in list(self._queues.values()):
            queue.close()
            with queue.changed:
                busy, queue.releasing = queue.releasing, True
            if not busy:
                self._release(queue)

    def _release(self, queue: _Queue) -> None:
        while (ready := queue.release()) is not None:
            self._deliver(ready)

    def _deliver(self, inspection: Inspection) -> None:
        try:
            self._observer.inspected(inspection)
        except Exception:
            log.exception("inspection %s was not counted", inspection.id)
        for sink in self._sinks:
            try:
                sink.accept(inspection)
            except SinkError as error:
                log.error("sink %s lost inspection %s: %s", sink.name, inspection.id, error)
            except Exception:
                log.exception("sink %s failed on inspection %s", sink.name, inspection.id)


def _superseded(inspection: Inspection) -> bool:
    outcome = inspection.outcome
    return isinstance(outcome, NoVerdict) and outcome.reason is Reason.SUPERSEDED


def _unanswered(frame: Frame) -> Inspection:
    outcome = NoVerdict(Reason.SHUTDOWN, "edged stopped before the part was judged")
    return Inspection(frame, None, outcome, Timing(frame.captured_ns))
