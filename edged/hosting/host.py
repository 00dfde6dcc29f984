"""The models of this box: start, stop, and the one way in for jobs.

Each hosted model has a batcher and a pool of units. Starting loads the engine, lets it prove
itself on the golden pictures (parity.py), and only then opens the door. The status of a model
moves only through core/lifecycle.py.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from edged.core.errors import (
    EdgedError,
    EngineError,
    MissingDependency,
    NotFound,
    ParityError,
    WrongState,
)
from edged.core.lifecycle import MODEL_LIFE, SERVING, ModelEvent, ModelStatus, advance
from edged.core.observer import Observer
from edged.core.protocols import EngineLoader, HostedModel
from edged.core.types import Frame, Image, Inspection, Job, ModelSpec, Reason
from edged.hosting.batch import Batcher, awaited
from edged.hosting.parity import LoadEngine, first_qualified
from edged.hosting.swap import (
    LEAVE_SECONDS,
    EngineUpgrade,
    hand_over,
    proven_beside,
    upgrade_in_background,
)
from edged.hosting.units import Running, UnitPool, check_size
from edged.runtime.workers import Crew, Deadline, Worker
from edged.wire.spec import GOLDEN

log = logging.getLogger(__name__)

LOAD_SECONDS = 400.0  # measuring three engines apart may take as long; the watchdog waits
SWAP_SECONDS = 3.0  # of a stop, for a swap in progress; the rest is for its jobs
FAREWELL_SECONDS = 10.0  # for a build that is told to end
RUNNING = "The model is running."


@dataclass(frozen=True, slots=True)
class HostingSpec:
    """How one model is to be hosted; each step of a start in its order, all may raise EdgedErrors.

    folder: makes sure that the model folder is there, and gives it. loads: the engines that may
    serve it, best first. upgrade: see swap.py.
    """

    name: str
    folder: Callable[[], Path]
    read: Callable[[Path], ModelSpec]
    loads: Callable[[Path, ModelSpec], Sequence[LoadEngine]]
    units: int | None = None
    max_units: int | None = None
    queue: int = 16
    upgrade: EngineUpgrade | None = None


@dataclass(slots=True)
class Model:
    """One model of a host, under the host's lock."""

    hosting: HostingSpec
    status: ModelStatus = ModelStatus.TRAINED
    message: str = "The model is not running."
    spec: ModelSpec | None = None
    running: Running | None = None
    settled: threading.Event = field(default_factory=threading.Event)
    upgrading: Worker | None = None
    """Looks for a better engine."""
    coming: UnitPool | None = None
    """Of another engine, while units change."""

    def move(self, event: ModelEvent, message: str) -> None:
        """To the status after `event`, with what is to be said of it. Raises WrongState."""
        self.status = advance(MODEL_LIFE, self.status, event, f"Model {self.hosting.name}")
        self.message = message


class Host:
    """Implements core.protocols.ModelHost. Any thread."""

    def __init__(
        self, hostings: Sequence[HostingSpec], crew: Crew, observer: Observer, deadline: Deadline
    ) -> None:
        self._lock = threading.Lock()
        self._models: Mapping[str, Model] = {
            h.name: Model(h) for h in sorted(hostings, key=lambda h: h.name)
        }
        self._crew = crew
        self._observer = observer
        self._deadline = deadline
        self._sequence = 0

    def add(self, hosting: HostingSpec) -> None:
        """Know one more model. Raises WrongState for a name that is known."""
        with self._lock:
            if hosting.name in self._models:
                raise WrongState(f"Model {hosting.name} is known already.")
            models = {**self._models, hosting.name: Model(hosting)}
            self._models = dict(sorted(models.items()))

    def remove(self, name: str) -> None:
        """Forget a model that is not hosted. Raises NotFound, WrongState."""
        model = self._find(name)
        with self._lock:
            if model.running is not None or model.status is ModelStatus.STARTING_HOSTING:
                raise WrongState(f"Model {name} is {model.status.value}: stop it first.")
            self._models = {k: v for k, v in self._models.items() if k != name}

    def start(self, name: str) -> ModelStatus:
        """Begin to host on a thread `start-<name>`."""
        model = self._find(name)
        with self._lock:
            model.move(ModelEvent.START, "The model is starting.")
            model.settled.clear()
        self._crew.start(f"start-{name}", lambda worker: self._start(worker, model))
        return ModelStatus.STARTING_HOSTING

    def wait(self, name: str, seconds: float) -> HostedModel:
        """Wait until a start or stop of the model has ended; what became of it."""
        model = self._find(name)
        model.settled.wait(seconds)
        return self._seen(model)

    def swap(self, name: str, load: LoadEngine) -> ModelStatus:
        """Begin to give a hosted model another engine, on a thread `swap-<name>`.

        The line does not wait: see swap.py. An engine that does not load, or does not prove
        itself, changes nothing; the model's message then says why. Raises NotFound, WrongState.
        """
        model = self._find(name)
        with self._lock:
            model.move(ModelEvent.UPDATE, "The model gets another engine.")
            model.settled.clear()
        self._crew.start(f"swap-{name}", lambda worker: self._swap(worker, model, load))
        return ModelStatus.SYSTEM_UPDATING

    def stop(self, name: str) -> ModelStatus:
        """Finish the work in progress, then free the engine."""
        model = self._find(name)
        with self._lock:
            model.move(ModelEvent.STOP, "The model is stopping.")
            running, model.running = model.running, None
        self._observer.engine_changed(name, "")
        self._tear_down(model, running, Reason.SHUTDOWN, "the model stopped before its turn came")
        with self._lock:
            model.move(ModelEvent.STOPPED, "The model is not running.")
        if model.upgrading is not None:  # it may still write into the model's folder
            model.upgrading.join(FAREWELL_SECONDS)
        return model.status

    def remark(self, name: str, words: str, refused: bool = False) -> None:
        """Say something of a model that runs; nothing with no words. Raises NotFound."""
        model = self._find(name)
        with self._lock:
            if model.status is ModelStatus.HOSTED:
                model.message = f"{RUNNING[:-1]}; {words}" if words else RUNNING
        if refused:
            self._observer.engine_refused(name)

    def models(self) -> Sequence[HostedModel]:
        """All of them, by name."""
        return [self._seen(model) for model in self._models.values()]

    def serves(self, name: str) -> bool:
        """Whether parts are judged by that model now."""
        model = self._models.get(name)
        return model is not None and model.status in SERVING

    def versions(self, project: str) -> list[str]:
        """Models called `project` and a number after it, hosted or not, the highest first."""
        known = [n for n in self._models if n.startswith(project) and n[len(project) :].isdecimal()]
        return sorted(known, key=lambda name: int(name[len(project) :]), reverse=True)

    def offer(self, name: str, job: Job) -> None:
        """Seat a camera's job. Raises NotFound, WrongState, BadImage, Busy, ShuttingDown."""
        model = self._find(name)
        with self._lock:
            status, spec, running = model.status, model.spec, model.running
        if status not in SERVING:
            raise WrongState(f"Model {name} is {status.value}: {model.message}")
        if spec is None or running is None:
            raise WrongState(f"Model {name} is not ready.")
        height, width = job.frame.image.shape[:2]
        check_size((height, width), spec)
        running.batcher.offer(job)

    def detect(self, name: str, image: Image, deadline_ns: int = 0) -> Future[Inspection]:
        """Judge one picture that somebody waits for."""
        with self._lock:
            self._sequence += 1
            number = self._sequence
        now = datetime.now(timezone.utc)
        frame = Frame("request", number, time.monotonic_ns(), now, image)
        job, future = awaited(frame, deadline_ns)
        self.offer(name, job)
        return future

    def adjust(self) -> None:
        """Let each pool grow or shrink between its bounds; called about once a second on main."""
        for model in self._models.values():
            running = model.running
            if running is not None and model.status is ModelStatus.HOSTED:
                running.pool.adjust(running.units, model.hosting.max_units or running.units)

    def close(self) -> None:
        """Drain every model until the deadline; whoever still waits is told of the shutdown."""
        for model in self._models.values():
            if model.status in (ModelStatus.STARTING_HOSTING, ModelStatus.SYSTEM_UPDATING):
                swaps = model.status is ModelStatus.SYSTEM_UPDATING
                model.settled.wait(self._deadline.remaining(SWAP_SECONDS if swaps else 60.0))
            with self._lock:
                running, model.running = model.running, None
            self._tear_down(model, running, Reason.SHUTDOWN, "edged stopped before its turn came")
            if model.upgrading is not None:
                model.upgrading.join(self._deadline.remaining(FAREWELL_SECONDS))

    def _find(self, name: str) -> Model:
        try:
            return self._models[name]
        except KeyError:
            have = ", ".join(self._models) or "none"
            raise NotFound(f"No model is called {name!r} here (models: {have}).") from None

    def _seen(self, model: Model) -> HostedModel:
        with self._lock:
            return HostedModel(model.hosting.name, model.status, model.message, model.spec)

    def _start(self, worker: Worker, model: Model) -> None:
        name = model.hosting.name
        try:
            self._bring_up(worker, model)
        except EdgedError as error:
            self._fail(model, str(error))
        except Exception as error:
            self._fail(model, f"The engine could not be loaded ({type(error).__name__}).")
            log.exception("model %s did not start", name)
        finally:
            model.settled.set()

    def _bring_up(self, worker: Worker, model: Model) -> None:
        hosting = model.hosting
        folder = hosting.folder()
        spec = hosting.read(folder)
        worker.beat(LOAD_SECONDS)
        loads = hosting.loads(folder, spec)
        loader, off, load = first_qualified(loads, spec, folder / GOLDEN)
        worker.beat()
        running = self._assemble(model, folder, spec, loader)
        at = (folder, spec, load)
        with self._lock:
            model.spec, model.running = spec, running
            model.move(ModelEvent.HOSTING_DONE, RUNNING)
        running.pool.resize(running.units)  # last: units that die at once find their model hosted
        self._observer.engine_changed(hosting.name, loader.name)
        if hosting.upgrade is not None:
            look = partial(upgrade_in_background, self, hosting.name, hosting.upgrade, at)
            upgrading = self._crew.start(f"upgrade-{hosting.name}", look)
            with self._lock:
                if model.running is running:
                    model.upgrading = upgrading
                else:  # it was stopped a moment ago
                    upgrading.stop.set()
        log.info(
            "model %s runs on %s with %d units; golden scores differ by %.4f at most",
            hosting.name,
            loader.name,
            running.units,
            off,
        )

    def _swap(self, worker: Worker, model: Model, load: LoadEngine) -> None:
        name, message = model.hosting.name, RUNNING
        try:
            self._change(worker, model, load)
        except (EngineError, ParityError, MissingDependency) as error:
            self._observer.engine_refused(name)
            message = f"{RUNNING[:-1]}; another engine was refused: {error}"
            log.warning("model %s: %s", name, message)
        except Exception as error:
            self._observer.engine_refused(name)
            message = f"{RUNNING[:-1]}; another engine failed ({type(error).__name__})."
            log.exception("model %s: another engine failed", name)
        finally:
            with self._lock:
                if model.status is ModelStatus.SYSTEM_UPDATING:  # else its last unit died
                    model.move(ModelEvent.UPDATED, message)
            model.settled.set()

    def _change(self, worker: Worker, model: Model, load: LoadEngine) -> None:
        """Load, prove and hand over. Raises what refuses the engine, and leaves the old one."""
        hosting, spec, old = model.hosting, model.spec, model.running
        if spec is None or old is None:
            return
        worker.beat(LOAD_SECONDS)
        loader, off = proven_beside(load, spec, old.folder)
        pool = model.coming = self._pool(model, spec, loader, old.batcher)
        new = Running(old.folder, loader, old.batcher, pool, hosting.units or loader.tuning.units)
        try:
            ended = hand_over(old.pool, pool, new.units, lambda: worker.beat(LEAVE_SECONDS))
        except BaseException:
            loader.close()
            raise
        finally:
            model.coming = None
        with self._lock:
            taken = model.running is old
            if taken:
                model.running = new
        if not taken:
            return loader.close()
        if ended:
            old.loader.close()
        else:
            log.error("model %s: a unit of its old engine does not end", hosting.name)
        self._observer.engine_changed(hosting.name, loader.name)
        log.info(
            "model %s runs on %s; golden scores differ by %.4f", hosting.name, loader.name, off
        )

    def _assemble(
        self, model: Model, folder: Path, spec: ModelSpec, loader: EngineLoader
    ) -> Running:
        batcher = Batcher(spec.ref, model.hosting.queue, self._observer)
        pool = self._pool(model, spec, loader, batcher)
        units = model.hosting.units or loader.tuning.units
        return Running(folder, loader, batcher, pool, units)

    def _pool(
        self, model: Model, spec: ModelSpec, loader: EngineLoader, batcher: Batcher
    ) -> UnitPool:
        def lost(why: str) -> None:
            self._lost(model, pool, why)

        batch = loader.tuning.batch
        pool = UnitPool(spec, loader, batch, batcher, self._crew, self._observer, lost)
        return pool

    def _lost(self, model: Model, pool: UnitPool, why: str) -> None:
        message = f"Every inference unit ended: {why}"
        serves = model.running is not None and model.running.pool is pool
        if serves and model.coming is None:  # before somebody may start it again
            self._observer.engine_changed(model.hosting.name, "")
        with self._lock:
            running = model.running
            if running is None or running.pool is not pool:
                return  # whoever stops it answers for its jobs
            if model.coming is not None and model.coming.serving:
                return  # units change, and the new ones take its jobs
            model.running = None
            model.move(ModelEvent.HOSTING_FAILED, message)
        log.error("model %s: %s", model.hosting.name, message)
        self._tear_down(model, running, Reason.ENGINE_FAILED, "every inference unit ended")

    def _fail(self, model: Model, message: str) -> None:
        log.error("model %s: %s", model.hosting.name, message)
        with self._lock:
            model.move(ModelEvent.HOSTING_FAILED, message)

    def _tear_down(
        self, model: Model, running: Running | None, reason: Reason, detail: str
    ) -> None:
        """Finish what waits, until the deadline; what still waits then is told why."""
        if model.upgrading is not None:
            model.upgrading.stop.set()
        if running is None:
            return
        running.batcher.close()
        running.pool.close(self._deadline)
        running.batcher.abandon(reason, detail)
        running.loader.close()
