"""Which engines may serve a model, best first: the named one, or with `auto` all, fastest first.

Who starts the model takes the first that proves itself on the golden pictures: speed proposes,
the parity gate decides. So bfloat16 serves where the CPU has it and the model bears it. Speed is
measured by a short run in a child process (two runtimes in the daemon would cost its memory
twice); the order is kept beside the state, keyed by CPU, versions and model.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import logging
import math
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import EngineLoader, FeatureExtractor
from edged.core.types import ModelSpec
from edged.wire.spec import MODEL, read_spec

log = logging.getLogger(__name__)

Recipe: TypeAlias = Callable[[], EngineLoader]
"""Loads the model on one engine. Raises MissingDependency or EngineError."""

ENGINES: dict[str, tuple[str, str, dict[str, str]]] = {
    "onnxruntime": ("onnxruntime", "OnnxRuntimeLoader", {}),
    "openvino": ("openvino", "OpenVinoLoader", {}),
    "openvino-bf16": ("openvino", "OpenVinoLoader", {"precision": "bf16"}),
}
"""Name in the configuration -> room, class, what the class is told."""
COARSER = {"openvino-bf16": 1.25}
"""How much faster an engine must be to come before those that compute as the trainer did."""
RUNS = 20
MEASURE_SECONDS = 120.0
REFUSED = 3  # exit code of a measurement whose engine says why it cannot serve


def installed() -> dict[str, str]:
    """Engines whose runtime is installed, with its version."""
    found = {}
    for engine, (runtime, _, _) in ENGINES.items():
        for package in (runtime, f"{runtime}-gpu"):
            try:
                found[engine] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def recipes(
    folder: Path, spec: ModelSpec, engine: str = "auto", batch: int = 1, cache: Path | None = None
) -> list[Recipe]:
    """How to load the model in `folder`, best first; at least one. Raises MissingDependency."""
    names = _fastest_first(folder, spec, cache) if engine == "auto" else [engine]
    return [partial(_load, name, folder, spec, batch) for name in names]


def _load(engine: str, folder: Path, spec: ModelSpec, batch: int = 1) -> EngineLoader:
    runtime, kind, told = ENGINES[engine]
    room = importlib.import_module(f"edged.engines.{runtime}")
    loader: EngineLoader = getattr(room, kind)(folder / MODEL, spec, batch, **told)
    return loader


def extractor(model: bytes) -> FeatureExtractor:
    """The network runner for training: ONNX Runtime, whose fp32 numbers are reproducible."""
    room = importlib.import_module("edged.engines.onnxruntime")
    runner: FeatureExtractor = room.extractor(model)
    return runner


def extractor_version() -> dict[str, str]:
    """The runtime of `extractor` and its version; empty when it is not installed."""
    found = installed().get("onnxruntime")
    return {"onnxruntime": found} if found else {}


def _fastest_first(folder: Path, spec: ModelSpec, cache: Path | None) -> list[str]:
    have = installed()
    if not have:
        raise MissingDependency("onnxruntime or openvino", "cpu", "Inference")
    if len(have) == 1:
        return list(have)
    key = _key(have, spec)
    path = cache / "engine-choice.json" if cache else None
    known = _remembered(path) if path and path.is_file() else {}
    order = known.get(key)
    if isinstance(order, list) and order and set(order) <= set(have):
        return [str(name) for name in order]
    found = {engine: _measure_apart(folder, engine) for engine in have}
    times = {engine: seconds for engine, seconds in found.items() if math.isfinite(seconds)}
    log.info("engine auto: %s", ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in times.items()))
    # When nothing can be measured all are offered, so that their own words say why not.
    order = sorted(times, key=lambda engine: times[engine] * COARSER.get(engine, 1.0)) or list(have)
    if path and not any(math.isnan(seconds) for seconds in found.values()):
        _keep(path, {**known, key: order})
    return order


def _remembered(path: Path) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    except (OSError, ValueError):
        pass
    log.warning("%s is damaged; measuring again", path)
    return {}


def _keep(path: Path, known: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        log.warning("%s cannot be written (%s); measuring again next time", path, error.strerror)


def _key(have: dict[str, str], spec: ModelSpec) -> str:
    cpu = next(
        (
            line
            for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    facts = json.dumps([cpu, sorted(have.items()), spec.ref.sha256])
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def tried(folder: Path, engine: str) -> tuple[float, str | None]:
    """Seconds an image on one unit, and why it cannot be had; in a process of its own.

    Infinity if the engine cannot run here; NaN if that is not known.
    """
    command = [sys.executable, "-m", "edged.engines.choose", str(folder), engine]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=MEASURE_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return math.nan, f"it was not measured within {MEASURE_SECONDS:.0f} s"
    try:
        return float(done.stdout.strip().splitlines()[-1]), None
    except (IndexError, ValueError):
        said = done.stderr.strip()[-300:]
    if done.returncode == REFUSED:
        return math.inf, said
    return math.nan, f"its process ended with {done.returncode}: {said}"


def _measure_apart(folder: Path, engine: str) -> float:
    seconds, why = tried(folder, engine)
    if why is not None:
        log.warning("engine %s does not run here: %s", engine, why)
    return seconds


def measure(folder: Path, name: str) -> float:
    """Median seconds for one image on one unit, in this process."""
    loader = _load(name, folder, read_spec(folder))
    engine = loader.open()
    try:
        times = []
        for _ in range(RUNS):
            start = time.perf_counter()
            engine.infer(1)
            times.append(time.perf_counter() - start)
    finally:
        engine.close()
        loader.close()
    return sorted(times[RUNS // 4 :])[len(times) // 3]


if __name__ == "__main__":
    try:
        print(measure(Path(sys.argv[1]), sys.argv[2]))
    except (EngineError, MissingDependency) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
