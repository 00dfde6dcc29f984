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
from dataclasses import replace
from pathlib import Path

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import FeatureExtractor
from edged.core.types import ModelSpec
from edged.engines import machine, tune
from edged.engines.candidate import ENGINES, EngineCandidate, EngineRequest, installed, plan_key
from edged.engines.plan import PRECISIONS, Plans

log = logging.getLogger(__name__)

LEAST = 10
"""The first TensorRT that keeps to a graph of mixed precision."""


def recipes(
    folder: Path,
    spec: ModelSpec,
    wanted: EngineRequest | str = "auto",
    cache: Path | None = None,
    plans: Path | None = None,
    idle: Callable[[], None] | None = None,
) -> list[EngineCandidate]:
    """How to load the model in `folder` now, best first; at least one. Raises MissingDependency.

    cache: where what was measured is remembered; without it nothing is tuned. plans: where plans
    are kept. idle: see core.child.ask.
    """
    wanted = EngineRequest(wanted) if isinstance(wanted, str) else wanted
    plain = EngineCandidate(wanted.engine, folder, spec, wanted, None, plans)
    if wanted.engine in ENGINES:
        return [tune.tuned(plain, cache, idle)]
    have = installed()
    planned = by_plan(wanted)
    ready = planned is not None and plan_is_kept(planned, spec, wanted, plans)
    if planned is not None and ready and wanted.engine == "auto":
        have[planned] = machine.facts()["tensorrt"]
    if not have and not ready:
        raise MissingDependency("onnxruntime or openvino", "cpu", "Inference")
    # A batch that was meant for a GPU is not for those that serve in its place.
    other = plain if wanted.engine == "auto" else replace(plain, wanted=replace(wanted, batch=None))
    order = tune.order(other, have, cache, idle) if len(have) > 1 else list(have)
    found = [replace(other, engine=engine) for engine in order]
    if ready and wanted.engine != "auto":
        found.insert(0, plain)
    first, *others = found
    return [tune.tuned(first, cache, idle), *others]


def by_plan(wanted: EngineRequest) -> str | None:
    """The engine of PRECISIONS that is wanted, or that `auto` would have here; None for none."""
    if wanted.engine != "auto":
        return wanted.engine if wanted.engine in PRECISIONS else None
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


def plan_is_kept(engine: str, spec: ModelSpec, wanted: EngineRequest, plans: Path | None) -> bool:
    """Whether a plan of that engine for this machine is there."""
    if plans is None or not plans.is_dir() or not machine.installed():
        return False
    try:
        return Plans(plans).has(plan_key(engine, spec, wanted))
    except EngineError as error:
        log.warning("engine %s: %s", engine, error)
        return False


def extractor(model: bytes) -> FeatureExtractor:
    """The network runner for training: ONNX Runtime, whose fp32 numbers are reproducible."""
    room = importlib.import_module("edged.engines.onnxruntime")
    runner: FeatureExtractor = room.extractor(model)
    return runner


def extractor_version() -> dict[str, str]:
    """The runtime of `extractor` and its version; empty when it is not installed."""
    found = installed().get("onnxruntime")
    return {"onnxruntime": found} if found else {}
