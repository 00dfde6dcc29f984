"""FAKES of things that cannot be made to fail for real in a test: a camera and an engine.

Everything between them is the real thing: `Line` is a real host with its crew, `Records` a sink
at the real publisher's end, and `Ears` an observer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TypeAlias

import numpy as np

from edged.core.errors import EngineError
from edged.core.lifecycle import ModelStatus
from edged.core.observer import Observer
from edged.core.protocols import Camera, HostedModel, Tuning
from edged.core.types import (
    Frame,
    Image,
    Inspection,
    Job,
    ModelRef,
    ModelSpec,
    Picture,
    Prediction,
    Reason,
)
from edged.hosting.host import Host, HostingSpec
from edged.hosting.units import WARM_UPS
from edged.line.capture import Capture
from edged.line.in_progress import Rules
from edged.line.publish import Publisher
from edged.line.station import Station
from edged.runtime.workers import Crew, Deadline, Worker

SIDE = 8
SPEC = ModelSpec(ModelRef("m", "1", "0" * 64), SIDE, SIDE, 0.5, (SIDE, SIDE))
PATIENCE = 20.0
"""Seconds after which something that should have happened did not."""


def picture(level: int = 0, side: int = SIDE) -> Image:
    """A grey picture; the fake engine's score is its level / 255."""
    return np.full((side, side, 3), level, np.uint8)


Step: TypeAlias = "Image | Exception | Callable[[], object] | None"
Session: TypeAlias = "Sequence[Step] | Exception"


class FakeCamera:
    """FAKE hardware that follows a script: one session for each time it is opened.

    A session that is an exception is an open that fails. Its steps, one for each read: a picture,
    an exception to raise, None for the end, or something to call before the next step. After its
    last step the camera waits for the stop.
    """

    def __init__(self, *sessions: Session, paced: bool = False) -> None:
        self.paced = paced
        self.opened = 0
        self.closed = 0
        self._sessions = list(sessions)
        self._steps: list[Step] = []
        self._stop = threading.Event()

    def open(self, stop: threading.Event) -> None:
        """Begin the next session."""
        self.opened += 1
        self._stop = stop
        session = self._sessions.pop(0)
        if isinstance(session, Exception):
            raise session
        self._steps = list(session)

    def read(self) -> Picture | None:
        """Do the next step."""
        while self._steps:
            step = self._steps.pop(0)
            if callable(step):
                step()
            elif isinstance(step, Exception):
                raise step
            elif step is None:
                return None
            else:
                return Picture(step.copy(), time.monotonic_ns(), datetime.now(timezone.utc))
        self._stop.wait()
        return None

    def close(self) -> None:
        """Count it."""
        self.closed += 1


class FakeEngine:
    """FAKE context: scores a picture by its level; waits at the gate and fails when told to."""

    def __init__(self, loader: FakeLoader, batch: int) -> None:
        self.input: Image = np.zeros((batch, SIDE, SIDE, 3), np.uint8)
        self._loader = loader
        self._cold = WARM_UPS

    def infer(self, count: int) -> Prediction:
        """Scores of the first rows, after the gate opened, unless it is time to fail."""
        if self._cold:
            self._cold -= 1
            return Prediction(np.zeros(count, np.float32))
        self._loader.entered.release()
        self._loader.gate.wait()
        if self._loader.fails():
            raise EngineError("The fake engine fails.")
        return Prediction((self.input[:count, 0, 0, 0] / 255).astype(np.float32))

    def close(self) -> None:
        """Nothing to free."""


class FakeLoader:
    """FAKE runtime. `gate` holds all inference while it is clear; `entered` counts who came."""

    name = "fake"

    def __init__(
        self,
        *,
        open_gate: bool = True,
        batch: int = 1,
        fails: Callable[[], bool] = lambda: False,
        opens: Callable[[int], bool] = lambda number: True,
    ) -> None:
        """fails: whether this batch fails, on its unit's thread. opens: whether open n works."""
        self.tuning = Tuning(units=1, batch=batch)
        self.gate = threading.Event()
        self.entered = threading.Semaphore(0)
        self.fails = fails
        self.closed = 0
        self._opens = opens
        self._opened = 0
        self._lock = threading.Lock()
        if open_gate:
            self.gate.set()

    def open(self) -> FakeEngine:
        """Open number 1 is the one that qualifies."""
        with self._lock:
            self._opened += 1
            number = self._opened
        if not self._opens(number):
            raise EngineError("The fake engine does not open.")
        return FakeEngine(self, self.tuning.batch)

    def close(self) -> None:
        """Count it."""
        self.closed += 1


class Waiting:
    """Something that threads change and a test waits for, without polling."""

    def __init__(self) -> None:
        self.changed = threading.Condition()

    def until(self, true: Callable[[], bool]) -> None:
        """Wait until `true()`; fails the test if that never comes."""
        with self.changed:
            assert self.changed.wait_for(true, PATIENCE), f"never came: {vars(self)}"


class Ears(Waiting, Observer):
    """Hears what the pipeline tells its observers."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[tuple[bool, str]] = []
        self.skipped: list[tuple[str, str]] = []
        self.captured = 0
        self.dropped: list[tuple[int, Reason]] = []
        self.units: list[int] = []
        self.batches: list[int] = []
        self.crashed: list[str] = []
        self.triggers = 0
        self.overruns = 0
        self.backlog = 0
        self.confirmed = 0

    def triggered(self, station: str, word: str) -> None:
        with self.changed:
            self.triggers += 1
            self.changed.notify_all()

    def result_overrun(self, station: str) -> None:
        self.overruns += 1

    def result_confirmed(self, station: str, seconds: float) -> None:
        with self.changed:
            self.confirmed += 1
            self.changed.notify_all()

    def sink_backlog(self, sink: str, rows: int) -> None:
        with self.changed:
            self.backlog = rows
            self.changed.notify_all()

    def frame_captured(self, camera: str) -> None:
        with self.changed:
            self.captured += 1
            self.changed.notify_all()

    def frame_skipped(self, camera: str, name: str, why: str) -> None:
        with self.changed:
            self.skipped.append((name, why))
            self.changed.notify_all()

    def camera_state(self, camera: str, up: bool, detail: str) -> None:
        with self.changed:
            self.states.append((up, detail))
            self.changed.notify_all()

    def job_dropped(self, model: str, job: Job, reason: Reason) -> None:
        with self.changed:
            self.dropped.append((job.frame.sequence, reason))
            self.changed.notify_all()

    def batch_done(self, model: str, size: int, seconds: float) -> None:
        with self.changed:
            self.batches.append(size)
            self.changed.notify_all()

    def units_changed(self, model: str, units: int) -> None:
        with self.changed:
            self.units.append(units)
            self.changed.notify_all()

    def worker_crashed(self, worker: Worker) -> None:
        """The crew's report, not the pipeline's."""
        with self.changed:
            self.crashed.append(f"{worker.name}: {worker.crash!r}")
            self.changed.notify_all()


class Records(Waiting):
    """A sink that keeps what it is given."""

    name = "records"

    def __init__(self) -> None:
        super().__init__()
        self.all: list[Inspection] = []

    def start(self) -> None:
        """Nothing to begin."""

    def accept(self, inspection: Inspection) -> None:
        """Keep it."""
        with self.changed:
            self.all.append(inspection)
            self.changed.notify_all()

    def close(self) -> None:
        """Nothing to make durable."""

    def wait(self, count: int) -> None:
        """Until there are so many."""
        self.until(lambda: len(self.all) >= count)

    @property
    def sequences(self) -> list[int]:
        """The frames' numbers, in the order they came."""
        return [inspection.frame.sequence for inspection in self.all]


class Line:
    """A real host of one model `m` on fake engines; `with Line(...) as line` ends what it began."""

    def __init__(
        self,
        *loaders: FakeLoader,
        read: Callable[[], ModelSpec] = lambda: SPEC,
        units: int = 1,
        max_units: int | None = None,
        queue: int = 16,
    ) -> None:
        """loaders: one for each start; the last one serves all starts after it."""
        self.ears = Ears()
        self.crew = Crew(self.ears.worker_crashed)
        self.deadline = Deadline()
        self.records = Records()
        self._all = loaders
        self._loaders = list(loaders)
        recipes = lambda *_: [self._load]  # noqa: E731 - one word of HostingSpec
        hosting = HostingSpec("m", Path, lambda _: read(), recipes, units, max_units, queue)
        self.host = Host([hosting], self.crew, self.ears, self.deadline)
        self._captures: list[Capture] = []
        self._number = 0

    def _load(self) -> FakeLoader:
        return self._loaders.pop(0) if len(self._loaders) > 1 else self._loaders[0]

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for loader in self._all:
            loader.gate.set()
        for capture in self._captures:
            capture.stop()
            capture.join(self.deadline)
        self.host.close()
        if kind is None:
            assert self.ears.crashed == []

    def start(self) -> HostedModel:
        """Host the model; what became of it."""
        self.host.start("m")
        return self.host.wait("m", PATIENCE)

    @property
    def status(self) -> ModelStatus:
        """Of the one model."""
        return self.host.models()[0].status

    def detect(self, level: int = 0, deadline_ns: int = 0) -> Future[Inspection]:
        """Ask for a verdict on one picture."""
        return self.host.detect("m", picture(level), deadline_ns)

    def capture(self, camera: Camera, patience: float = 0.0) -> Capture:
        """Read a camera into the model, its answers into `records`."""
        return self.read(camera, self.station(Rules("cam", "cam")), patience)

    def read(self, camera: Camera, station: Station, patience: float = 0.0) -> Capture:
        """Read a camera for a station."""
        capture = Capture("cam", camera, station, self.crew, self.ears, patience)
        self._captures.append(capture)
        capture.start()
        return capture

    def station(self, rules: Rules, wake: Callable[[], None] = lambda: None) -> Station:
        """A station that this host judges for, its answers into `records`."""
        publisher = Publisher([self.records], self.ears)
        offer = lambda job: self.host.offer("m", job)  # noqa: E731 - as the daemon binds it
        return Station(rules, offer, publisher, self.next_sequence, self.ears, wake)

    def next_sequence(self, camera: str) -> int:
        """The next number, as Sequences gives it."""
        self._number += 1
        return self._number


def job(number: int, reply: Callable[[Inspection], None]) -> Job:
    """A job as a camera that may not lose a frame offers it."""
    now = datetime.now(timezone.utc)
    return Job(Frame("test", number, time.monotonic_ns(), now, picture()), reply)
