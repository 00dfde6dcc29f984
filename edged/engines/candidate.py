"""How a model is loaded on one engine: the table of engines, and what a configuration wants of one.

Engines of PRECISIONS need a plan that was built before; the others load the model's graph.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from dataclasses import dataclass, replace
from pathlib import Path

from edged.core.errors import EngineError
from edged.core.protocols import EngineLoader, Tuning
from edged.core.types import ModelSpec
from edged.engines import machine
from edged.engines.plan import LARGEST_BATCH, PRECISIONS, Plans, PlanSpec, Unusable
from edged.wire.spec import MODEL

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
