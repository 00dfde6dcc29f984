"""Which engines may serve a model, best first, and how it is loaded on each of them.

The named one, or with `auto` all, fastest first: who starts the model takes the first that proves
itself on the golden pictures. Speed proposes, the parity gate decides. So bfloat16 serves where the
CPU has it and the model bears it.

Engines of PRECISIONS (TensorRT) need a plan that was built before (plan.py); the others load the
model's graph. Until the plan is kept, and where it does not load, the others serve, also when
TensorRT was named: a line never waits for a plan.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import EngineLoader, FeatureExtractor, Tuning
from edged.core.types import ModelSpec
from edged.engines import machine
from edged.engines.plan import LARGEST_BATCH, PRECISIONS, Plans, PlanSpec, Unusable
from edged.wire.spec import MODEL, PLANS

log = logging.getLogger(__name__)

Idle: TypeAlias = Callable[[], None]
"""Called at least every second; what it raises ends the work."""
LEAST = 10
"""The first TensorRT that keeps to a graph of mixed precision."""
ENGINES: dict[str, tuple[str, str, dict[str, str]]] = {
    "onnxruntime": ("onnxruntime", "OnnxRuntimeLoader", {}),
    "onnxruntime-cuda": ("onnxruntime", "OnnxRuntimeLoader", {"device": "cuda"}),
    "openvino": ("openvino", "OpenVinoLoader", {}),
    "openvino-bf16": ("openvino", "OpenVinoLoader", {"precision": "bf16"}),
}
"""Name in the configuration -> room, class, what the class is told. Beside them: PRECISIONS."""
NAMES = (*ENGINES, *PRECISIONS)
PACKAGES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "onnxruntime-cuda": ("onnxruntime-gpu",),
    "openvino": ("openvino",),
    "openvino-bf16": ("openvino",),
}
"""Which of them an engine needs; the first that is installed counts."""


@dataclass(frozen=True, slots=True)
class EngineRequest:
    """What a configuration says of a model's engine; None leaves it open."""

    engine: str = "auto"
    units: int | None = None
    """As many as there will ever be."""
    batch: int | None = None
    zero_copy: bool = False

    def plan(self, spec: ModelSpec, engine: str) -> PlanSpec:
        """The plan that an engine of PRECISIONS needs."""
        return PlanSpec(spec.ref.sha256, PRECISIONS[engine], self.batch or LARGEST_BATCH)


@dataclass(frozen=True, slots=True)
class EngineCandidate:
    """Loads a model on one engine; raises MissingDependency or EngineError."""

    engine: str
    folder: Path
    spec: ModelSpec
    request: EngineRequest = EngineRequest()
    tuning: Tuning | None = None
    """None = the engine's usual one."""
    plans: Path | None = None

    def __call__(self) -> EngineLoader:
        """The loader; a plan that does not load is removed, so that it is built anew."""
        if self.engine in PRECISIONS:
            return self._planned()
        room, kind, told = ENGINES[self.engine]
        make = getattr(importlib.import_module(f"edged.engines.{room}"), kind)
        tuning = self.tuning or tunings(self)[0]
        loader: EngineLoader = make(self.folder / MODEL, self.spec, tuning, **told)
        return loader

    def _planned(self) -> EngineLoader:
        plans, key = Plans(self.plans or Path()), plan_key(self.engine, self.spec, self.request)
        kept = plans.find(key) if self.plans else None
        if kept is None:
            raise EngineError(f"There is no plan for {self.engine} yet: `edged compile` makes one.")
        room = importlib.import_module("edged.engines.tensorrt")
        precision, tuning = PRECISIONS[self.engine], self.tuning or tunings(self)[0]
        try:
            with plans.attempt(key):
                loader: EngineLoader = room.TensorRtLoader(
                    kept, self.spec, precision, tuning, self.request.zero_copy
                )
                engine = loader.open()
                try:
                    engine.infer(1)
                finally:
                    engine.close()
        except Unusable as error:
            plans.remove(key, str(error))
            raise
        return loader


class Measured(Protocol):
    """What was measured of engines on this machine; see tune.py. May take seconds."""

    def order(
        self, plain: EngineCandidate, have: dict[str, str], idle: Idle | None = None
    ) -> list[str]:
        """The engines of `have` (and their versions), fastest first. plain: with any engine."""

    def tuned(self, candidate: EngineCandidate, idle: Idle | None = None) -> EngineCandidate:
        """The candidate with the best use of its engine; as it is where that is not known."""


@dataclass(frozen=True, slots=True)
class Engines:
    """Which engines may serve a model here, best first. Any thread.

    measured: how fast they are and how each is used best; without it that is not asked. plans:
    where plans are kept; None = in the model's folder, for what may not lie open elsewhere.
    """

    measured: Measured | None = None
    plans: Path | None = None

    def plans_of(self, folder: Path) -> Path:
        """Where plans of the model in `folder` are kept."""
        return self.plans or folder / PLANS

    def candidate(
        self, engine: str, folder: Path, spec: ModelSpec, request: EngineRequest
    ) -> EngineCandidate:
        """How to load the model on that engine, and no other."""
        return EngineCandidate(engine, folder, spec, request, None, self.plans_of(folder))

    def candidates(
        self,
        folder: Path,
        spec: ModelSpec,
        request: EngineRequest | str = "auto",
        idle: Idle | None = None,
    ) -> list[EngineCandidate]:
        """How to load the model in `folder` now, best first; at least one.

        Raises MissingDependency. idle: see runtime.child.ask.
        """
        request = EngineRequest(request) if isinstance(request, str) else request
        plain = self.candidate(request.engine, folder, spec, request)
        if request.engine in ENGINES:
            return [self._tuned(plain, idle)]
        have = installed()
        planned = by_plan(request)
        ready = planned is not None and self.has_plan(planned, folder, spec, request)
        if planned is not None and ready and request.engine == "auto":
            have[planned] = machine.facts()["tensorrt"]
        if not have and not ready:
            raise MissingDependency("onnxruntime or openvino", "cpu", "Inference")
        other = plain
        if request.engine != "auto":
            # A batch that was meant for a GPU is not for those that serve in its place.
            other = replace(plain, request=replace(request, batch=None))
        order = list(have)
        if self.measured is not None and len(have) > 1:
            order = self.measured.order(other, have, idle)
        found = [replace(other, engine=engine) for engine in order]
        if ready and request.engine != "auto":
            found.insert(0, plain)
        first, *others = found
        return [self._tuned(first, idle), *others]

    def _tuned(self, candidate: EngineCandidate, idle: Idle | None) -> EngineCandidate:
        return candidate if self.measured is None else self.measured.tuned(candidate, idle)

    def has_plan(self, engine: str, folder: Path, spec: ModelSpec, request: EngineRequest) -> bool:
        """Whether a plan of that engine for this machine is kept."""
        plans = self.plans_of(folder)
        if not plans.is_dir() or not machine.installed():
            return False
        try:
            return Plans(plans).has(plan_key(engine, spec, request))
        except EngineError as error:
            log.warning("engine %s: %s", engine, error)
            return False


def plan_key(engine: str, spec: ModelSpec, request: EngineRequest) -> str:
    """Under which a plan for this machine is kept. Raises EngineError where none can be used."""
    return request.plan(spec, engine).key(machine.facts())


def installed() -> dict[str, str]:
    """Engines whose runtime is installed, with its version; without those that need a plan."""
    found: dict[str, str] = {}
    for engine, packages in PACKAGES.items():
        for package in packages:
            try:
                found.setdefault(engine, importlib.metadata.version(package))
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def on_gpu(engine: str) -> bool:
    """Whether an engine runs on a GPU."""
    return engine in PRECISIONS or ENGINES[engine][2].get("device") == "cuda"


def tunings(candidate: EngineCandidate) -> list[Tuning]:
    """What is worth measuring of an engine, its usual first; within what is wanted."""
    request, cores = candidate.request, os.cpu_count() or 1
    if on_gpu(candidate.engine):  # units take turns on it; larger batches do more
        found = [Tuning(2, 4), Tuning(1, 8), Tuning(2, 1), Tuning(3, 4)]
        found = [replace(each, units=request.units or each.units) for each in found]
    elif request.units:
        found = [Tuning(request.units, 1)]
    else:  # a unit a core, or larger ones
        halves = Tuning(max(1, cores // 2), 1, min(2, cores))
        found = [Tuning(cores, 1), halves, Tuning(1, 1, cores), Tuning(cores, 4)]
    return list(dict.fromkeys(replace(each, batch=request.batch or each.batch) for each in found))


def by_plan(request: EngineRequest) -> str | None:
    """The engine of PRECISIONS that is wanted, or that `auto` would have here; None for none."""
    if request.engine != "auto":
        return request.engine if request.engine in PRECISIONS else None
    if not machine.installed():
        return None
    try:
        version = machine.facts()["tensorrt"]
    except EngineError as error:
        log.warning("engine tensorrt: %s", error)
        return None
    return "tensorrt" if int(version.partition(".")[0]) >= LEAST else "tensorrt-fp32"


def check_installed(engine: str) -> None:
    """Raise MissingDependency unless there is a TensorRT for an engine that needs a plan."""
    if not machine.installed():
        raise MissingDependency("tensorrt", "tensorrt", f"Engine {engine}")


def extractor(model: bytes) -> FeatureExtractor:
    """The network runner for training: ONNX Runtime, whose fp32 numbers are reproducible."""
    room = importlib.import_module("edged.engines.onnxruntime")
    runner: FeatureExtractor = room.extractor(model)
    return runner


def extractor_version() -> dict[str, str]:
    """The runtime of `extractor` and its version; empty when it is not installed."""
    found = installed().get("onnxruntime")
    return {"onnxruntime": found} if found else {}
