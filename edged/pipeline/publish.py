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
from edged.core.types import Frame, Inspection, NoVerdict, Reason

log = logging.getLogger(__name__)


class _Queue:
    """One camera's frames on their way, in the order they were taken."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.expected: deque[int] = deque()
        self.answered: dict[int, Inspection] = {}
        self.releasing = False

    def release(self) -> Inspection | None:
        """The next one whose turn it is; None (and releasing ends) when it is not there yet."""
        with self.lock:
            if self.expected and self.expected[0] in self.answered:
                return self.answered.pop(self.expected.popleft())
            self.releasing = False
            return None


class Publisher:
    """Fan-out to the sinks, in order for each camera.

    Units overtake each other, and a PLC ignores a sequence number below the last it saw: so an
    answer waits here until the earlier frames of its camera have theirs. Whichever thread brings
    the awaited one releases all that are ready, without holding a lock meanwhile.
    """

    def __init__(self, sinks: Sequence[Sink], observer: Observer) -> None:
        self._sinks = tuple(sinks)
        self._observer = observer
        self._queues: defaultdict[str, _Queue] = defaultdict(_Queue)

    def expect(self, frame: Frame) -> None:
        """A frame is on its way; called on its capture thread, in order, before it is offered."""
        queue = self._queues[frame.source]
        with queue.lock:
            queue.expected.append(frame.sequence)

    def publish(self, inspection: Inspection) -> None:
        """The answer to an expected frame, on any thread; never raises."""
        queue = self._queues[inspection.frame.source]
        sequence = inspection.frame.sequence
        with queue.lock:
            if _superseded(inspection):  # nothing to deliver: it need not wait, nor be kept
                queue.expected.remove(sequence)
            else:
                queue.answered[sequence] = inspection
            if queue.releasing:
                return
            queue.releasing = True
        while (ready := queue.release()) is not None:
            self._deliver(ready)

    def _deliver(self, inspection: Inspection) -> None:
        self._observer.inspected(inspection)
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
