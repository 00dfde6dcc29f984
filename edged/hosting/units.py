"""Inference units: each a thread with an engine context of its own, and the pool of them.

A unit takes jobs from the batcher, copies their pictures straight into the rows of its context's
input buffer (scaling on the way, if they are not of the model's size), runs the engine, judges,
and answers each job. Nothing is encoded, queued or copied in between.

An engine that fails answers its batch with ENGINE_FAILED and is opened anew; one that fails
FAILURES times in a row, without a good batch between, ends its unit. A pool without units answers
for the jobs that wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edged.core.errors import BadImage, DeviceLost, EngineError
from edged.core.observer import Observer
from edged.core.protocols import Engine, EngineLoader
from edged.core.types import (
    Image,
    Inspection,
    Job,
    ModelSpec,
    NoVerdict,
    Prediction,
    Reason,
    Timing,
    Verdict,
)
from edged.hosting.batch import Batcher
from edged.hosting.decide import decide
from edged.runtime.workers import Crew, Deadline, Worker
from edged.wire import imaging

log = logging.getLogger(__name__)

FAILURES = 3
IDLE_SECONDS = 2.0  # a unit without work beats this often
GROW_WAIT = 0.1  # seconds a job has waited when one more unit is worth its memory
RENEW_TICKS = 10  # ticks of `adjust` until a unit that died is replaced
IDLE_TICKS = 30  # ticks of `adjust` without waiting jobs before a unit leaves
WARM_UPS = 2  # batches before a unit takes work: the first are slow (measured: four times)


def predict(engine: Engine, images: Sequence[Image]) -> Prediction:
    """Numbers for at most as many images as the engine's batch; on the engine's thread."""
    for row, image in zip(engine.input, images, strict=False):
        imaging.resize_into(image, row)
    return engine.infer(len(images))


def _warm_up(engine: Engine) -> None:
    try:
        for _ in range(WARM_UPS):
            engine.infer(len(engine.input))
    except EngineError:
        raise
    except Exception as error:  # whatever a runtime throws
        log.exception("an engine does not warm up")
        raise EngineError(f"The engine does not warm up ({type(error).__name__}).") from error


def check_size(shape: tuple[int, int], spec: ModelSpec) -> None:
    """Raise BadImage unless a picture of (height, width) has the size of the training pictures.

    Another size is another scale or another cut of the part: its score would mean nothing.
    """
    if spec.image_size is not None and shape != spec.image_size:
        height, width = shape
        want_height, want_width = spec.image_size
        raise BadImage(
            f"The picture has {width}x{height} pixels; model {spec.ref.name} was trained on "
            f"{want_width}x{want_height}."
        )


class UnitPool:
    """The units of one hosted model; grows and shrinks while it runs."""

    def __init__(
        self,
        spec: ModelSpec,
        loader: EngineLoader,
        batch: int,
        batcher: Batcher,
        crew: Crew,
        observer: Observer,
        on_empty: Callable[[str], None],
    ) -> None:
        """`on_empty` is told why when the last unit died of its engine (on that unit's thread)."""
        self._spec = spec
        self._loader = loader
        self._batch = batch
        self._batcher = batcher
        self._crew = crew
        self._observer = observer
        self._on_empty = on_empty
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._units: dict[int, Worker] = {}
        self._open: set[int] = set()
        self._made = 0
        self._closed = False
        self._idle = self._short = 0
        """Of `adjust`: ticks in a row without waiting jobs, and without all of the least units."""

    @property
    def size(self) -> int:
        """Units that run or are on their way up."""
        with self._lock:
            return len(self._units)

    def resize(self, units: int, beside: int = 0) -> None:
        """Grow or shrink to `units`; a unit that leaves finishes its batch first.

        A closed pool stays as it is: whoever closes and whoever adjusts need not know each other.
        beside: how many units of the model are in another pool.
        """
        with self._lock:
            if self._closed:
                return
            for number in sorted(self._units, reverse=True)[: max(0, len(self._units) - units)]:
                self._units.pop(number).stop.set()
            while len(self._units) < units:
                self._made += 1
                number = self._made
                name = f"unit-{self._spec.ref.name}-{number}"
                self._units[number] = self._crew.start(name, partial(self._run, number))
        self._batcher.wake()
        self._observer.units_changed(self._spec.ref.name, units + beside)

    def adjust(self, least: int, most: int) -> None:
        """Grow or shrink by one unit between the bounds; called about once a second on main.

        A unit that its engine ended is replaced after RENEW_TICKS.
        """
        size, batcher = self.size, self._batcher
        self._short = self._short + 1 if size < least else 0
        if self._short >= RENEW_TICKS:
            self._short = 0
            return self.resize(least)
        surplus = batcher.waiting == 0 and size > least
        if batcher.oldest_wait > GROW_WAIT and least <= size < most:
            self.resize(size + 1)
        elif surplus and self._idle + 1 < IDLE_TICKS:
            self._idle += 1
            return
        elif surplus:
            self.resize(size - 1)
        self._idle = 0

    @property
    def serving(self) -> bool:
        """Whether a unit has its engine open."""
        with self._lock:
            return bool(self._open)

    def wait_open(self, units: int, seconds: float) -> bool:
        """Wait until so many units have their engines open and take work; whether they have."""
        with self._changed:
            enough = lambda: len(self._open) >= units or len(self._units) < units  # noqa: E731
            self._changed.wait_for(enough, seconds)
            return len(self._open) >= units

    def retire(self, seconds: float) -> bool:
        """End all units, each after its batch; whether they have ended."""
        with self._lock:
            self._closed = True
            units = list(self._units.values())
            self._units.clear()
            for unit in units:
                unit.stop.set()
        self._batcher.wake()
        with self._changed:
            return self._changed.wait_for(lambda: not self._open, seconds)

    def close(self, deadline: Deadline) -> None:
        """Let the units finish what waits, then end them; after the batcher was closed."""
        with self._lock:
            self._closed = True
            units = list(self._units.values())
        for unit in units:
            unit.join(deadline.remaining(60.0))
        with self._lock:
            for unit in self._units.values():
                unit.stop.set()
            self._units.clear()
        self._batcher.wake()

    def _run(self, number: int, worker: Worker) -> None:
        failures = 0
        why = ""
        while failures < FAILURES and not worker.stop.is_set():
            try:
                engine = self._loader.open()
            except DeviceLost:
                raise
            except EngineError as error:
                failures, why = failures + 1, str(error)
                log.error("%s: engine does not open: %s", worker.name, error)
                continue
            try:
                _warm_up(engine)
                self._opened(number)
                good = self._serve(worker, engine)
                if good is None:
                    return self._leave(number)
                failures, why = 1 if good else failures + 1, "the engine failed; see the log"
            except DeviceLost:
                raise
            except EngineError as error:
                failures, why = failures + 1, str(error)
            finally:
                engine.close()
                self._shut(number)
        self._leave(number, why if failures >= FAILURES else "")

    def _opened(self, number: int) -> None:
        with self._changed:
            self._open.add(number)
            self._changed.notify_all()

    def _shut(self, number: int) -> None:
        with self._changed:
            self._open.discard(number)
            self._changed.notify_all()

    def _leave(self, number: int, why: str = "") -> None:
        with self._lock:
            self._units.pop(number, None)
            left = len(self._units)
            self._changed.notify_all()
        if why:
            self._observer.units_changed(self._spec.ref.name, left)
            if not left:
                self._on_empty(why)

    def _serve(self, worker: Worker, engine: Engine) -> int | None:
        """Work until told to stop or the closed batcher is empty: None.

        If the engine fails first: how many batches went well before.
        """
        good = 0
        while not worker.stop.is_set():
            worker.beat()
            jobs = self._batcher.take(self._batch, IDLE_SECONDS)
            if not jobs:
                if self._batcher.finished:
                    return None
                continue
            if not self._inspect(worker, engine, jobs):
                return good
            good += 1
        return None

    def _inspect(self, worker: Worker, engine: Engine, jobs: list[Job]) -> bool:
        taken = time.monotonic_ns()
        try:
            prediction = predict(engine, [job.frame.image for job in jobs])
        except DeviceLost:
            for job in jobs:
                self._batcher.drop(job, Reason.ENGINE_FAILED, "the accelerator was lost")
            raise  # out of the unit: the daemon ends, and systemd starts one that has a device
        except Exception as error:  # whatever a runtime throws, every job gets its answer
            log.exception("%s: engine failed", worker.name)
            for job in jobs:
                self._batcher.drop(job, Reason.ENGINE_FAILED, type(error).__name__)
            return False
        inferred = time.monotonic_ns()
        self._observer.batch_done(self._spec.ref.name, len(jobs), (inferred - taken) / 1e9)
        for row, job in enumerate(jobs):
            outcome: Verdict | NoVerdict
            try:
                height, width = job.frame.image.shape[:2]
                shape = (height, width)
                outcome = decide(prediction, row, self._spec.threshold, self._spec.classes, shape)
            except EngineError as error:
                outcome = NoVerdict(Reason.ENGINE_FAILED, str(error))
            timing = Timing(
                job.frame.captured_ns, job.queued_ns, taken, inferred, time.monotonic_ns()
            )
            model, name = self._spec.ref, self._loader.name
            job.reply(Inspection(job.frame, model, outcome, timing, engine=name))
        return True


@dataclass(frozen=True, slots=True)
class Running:
    """What one start made and its stop, or its failure, takes down. folder: of the model."""

    folder: Path
    loader: EngineLoader
    batcher: Batcher
    pool: UnitPool
    units: int
