"""Where jobs wait for a free inference unit: a bounded monitor without a thread of its own.

It owns the one admission rule of edged. While there is room everybody is let in. When full:

- a sheddable newcomer (a free-running camera's frame) replaces the oldest waiting sheddable job
  of the same camera: the freshest wins, and no camera starves another. If its camera has none
  waiting, the oldest of the camera with the most waiting goes, provided that is more than one;
- a job somebody waits for is never evicted;
- a newcomer that cannot be seated gets Busy at once.

Every evicted or expired job is replied to. `max_wait` is zero by design: a free unit takes what
is there, so batches form by themselves while all units are busy, and an idle line has no delay.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from concurrent.futures import Future
from functools import partial

from edged.core.errors import Busy, DeadlineExceeded, EngineError, ShuttingDown
from edged.core.observer import Observer
from edged.core.types import Frame, Inspection, Job, ModelRef, NoVerdict, Reason, Timing


class Batcher:
    """A bounded queue of jobs for one model. All methods may be called on any thread."""

    def __init__(self, model: ModelRef, capacity: int, observer: Observer) -> None:
        self._model = model
        self._capacity = capacity
        self._observer = observer
        self._changed = threading.Condition()
        self._jobs: deque[Job] = deque()
        self._closed = False

    def offer(self, job: Job) -> None:
        """Seat a job, evicting by the rule above. Raises Busy or ShuttingDown; never blocks."""
        with self._changed:
            if self._closed:
                raise ShuttingDown(f"Model {self._model.name} is stopping and takes no new work.")
            evicted = None
            if len(self._jobs) >= self._capacity:
                evicted = self._victim(job)
                self._jobs.remove(evicted)
            now = time.monotonic_ns()
            seated = Job(job.frame, job.reply, job.sheddable, job.deadline_ns, now)
            self._jobs.append(seated)
            self._changed.notify()
        if evicted is not None:
            self.drop(evicted, Reason.SUPERSEDED, "a newer frame took its place in the full queue")

    def _victim(self, newcomer: Job) -> Job:
        busy = Busy(f"All {self._capacity} places in the queue of {self._model.name} are taken.")
        if not newcomer.sheddable:
            raise busy
        waiting = Counter(job.frame.station for job in self._jobs if job.sheddable)
        source = newcomer.frame.station
        if not waiting[source]:
            if not waiting:
                raise busy
            source, count = waiting.most_common(1)[0]
            if count < 2:  # one each: evicting would only rotate who starves
                raise busy
        return next(j for j in self._jobs if j.sheddable and j.frame.station == source)

    def take(self, most: int, timeout: float) -> list[Job]:
        """Up to `most` jobs in order, or [] after `timeout` seconds or when closed and empty.

        Jobs whose deadline has passed are answered here, before they cost an inference.
        """
        with self._changed:
            if not self._jobs and not self._closed:
                self._changed.wait(timeout)
            jobs = [self._jobs.popleft() for _ in range(min(most, len(self._jobs)))]
        now = time.monotonic_ns()
        for job in (j for j in jobs if 0 < j.deadline_ns <= now):
            self.drop(job, Reason.TIMEOUT, "its deadline passed while it waited for a free unit")
        return [j for j in jobs if not 0 < j.deadline_ns <= now]

    def wake(self) -> None:
        """Let every waiting unit look again at whether it shall stop."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Take no new jobs; those that wait are still given out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def abandon(self, reason: Reason, detail: str) -> int:
        """Answer every waiting job with no verdict; how many there were."""
        with self._changed:
            jobs = list(self._jobs)
            self._jobs.clear()
        for job in jobs:
            self.drop(job, reason, detail)
        return len(jobs)

    @property
    def finished(self) -> bool:
        """Closed, and nothing waits any more."""
        with self._changed:
            return self._closed and not self._jobs

    @property
    def waiting(self) -> int:
        """How many jobs wait."""
        with self._changed:
            return len(self._jobs)

    @property
    def oldest_wait(self) -> float:
        """Seconds that the oldest waiting job has waited; 0.0 when none waits."""
        with self._changed:
            return (time.monotonic_ns() - self._jobs[0].queued_ns) / 1e9 if self._jobs else 0.0

    def drop(self, job: Job, reason: Reason, detail: str) -> None:
        """End a job that got no verdict: the observer hears of it, the sender gets a reply."""
        now = time.monotonic_ns()
        timing = Timing(job.frame.captured_ns, job.queued_ns, decided_ns=now)
        self._observer.job_dropped(self._model.name, job, reason)
        job.reply(Inspection(job.frame, self._model, NoVerdict(reason, detail), timing))


def awaited(frame: Frame, deadline_ns: int = 0) -> tuple[Job, Future[Inspection]]:
    """A job that somebody waits for; the future raises what kept it from a verdict."""
    future: Future[Inspection] = Future()
    return Job(frame, partial(_resolve, future), deadline_ns=deadline_ns), future


def _resolve(future: Future[Inspection], inspection: Inspection) -> None:
    outcome = inspection.outcome
    if not future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, NoVerdict):
        kinds = {Reason.TIMEOUT: DeadlineExceeded, Reason.SHUTDOWN: ShuttingDown}
        kind = kinds.get(outcome.reason, EngineError)
        future.set_exception(kind(f"The picture was not judged: {outcome.detail}."))
    else:
        future.set_result(inspection)
