"""Which engines may serve a model, best first: the named one, or with `auto` all, fastest first.

Who starts the model takes the first that proves itself on the golden pictures: speed proposes,
the parity gate decides. So bfloat16 serves where the CPU has it and the model bears it.

TensorRT is offered once its plan is kept (engines/plan.py). Until then, and where it does not load,
the others serve, also when it was named: a line never waits for a plan.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import FeatureExtractor
from edged.core.types import ModelSpec
from edged.engines import machine, tune
from edged.engines.candidate import ENGINES, EngineCandidate, EngineRequest, installed, plan_key
from edged.engines.plan import PRECISIONS, Plans
from edged.runtime.state import StateFolder
from edged.wire.spec import PLANS

log = logging.getLogger(__name__)

LEAST = 10
"""The first TensorRT that keeps to a graph of mixed precision."""


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines of this box, and what is known of them. Any thread.

    state: where what was measured is remembered; without it nothing is tuned. plans: where plans
    are kept; None = in the model's folder, for what may not lie open elsewhere.
    """

    state: StateFolder | None = None
    plans: Path | None = None

    @classmethod
    def of(cls, state: StateFolder) -> Engines:
        """What is measured and built for a daemon, or for a user's command line."""
        return cls(state, state.plans)

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
        idle: Callable[[], None] | None = None,
    ) -> list[EngineCandidate]:
        """How to load the model in `folder` now, best first; at least one.

        Raises MissingDependency. idle: see runtime.child.ask.
        """
        request = EngineRequest(request) if isinstance(request, str) else request
        plain = self.candidate(request.engine, folder, spec, request)
        if request.engine in ENGINES:
            return [tune.tuned(plain, self.state, idle)]
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
        order = tune.order(other, have, self.state, idle) if len(have) > 1 else list(have)
        found = [replace(other, engine=engine) for engine in order]
        if ready and request.engine != "auto":
            found.insert(0, plain)
        first, *others = found
        return [tune.tuned(first, self.state, idle), *others]

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
