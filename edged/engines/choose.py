"""Which runtime serves a model: the named one, or with `auto` the fastest that is installed.

The measurement is a short run in a child process (two runtimes in the daemon would cost its memory
twice) whose answer is kept beside the state, keyed by CPU, versions and model.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import json
import logging
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import EngineLoader, FeatureExtractor
from edged.core.types import ModelSpec
from edged.wire.spec import MODEL, read_spec

log = logging.getLogger(__name__)

RUNTIMES = {"onnxruntime": "OnnxRuntimeLoader", "openvino": "OpenVinoLoader"}
RUNS = 20


def installed() -> dict[str, str]:
    """Runtimes that are installed, with their versions."""
    found = {}
    for runtime in RUNTIMES:
        for package in (runtime, f"{runtime}-gpu"):
            try:
                found[runtime] = importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                continue
    return found


def load(
    folder: Path, spec: ModelSpec, engine: str = "auto", batch: int = 1, cache: Path | None = None
) -> EngineLoader:
    """A loader for the model in `folder`. Raises MissingDependency or EngineError."""
    if engine == "auto":
        engine = _fastest(folder, spec, cache)
    room = importlib.import_module(f"edged.engines.{engine}")
    loader: EngineLoader = getattr(room, RUNTIMES[engine])(folder / MODEL, spec, batch)
    return loader


def extractor(model: bytes) -> FeatureExtractor:
    """The network runner for training: ONNX Runtime, whose fp32 numbers are reproducible."""
    room = importlib.import_module("edged.engines.onnxruntime")
    runner: FeatureExtractor = room.extractor(model)
    return runner


def _fastest(folder: Path, spec: ModelSpec, cache: Path | None) -> str:
    have = installed()
    if not have:
        raise MissingDependency("onnxruntime or openvino", "cpu", "Inference")
    if len(have) == 1:
        return next(iter(have))
    key = _key(have, spec)
    path = cache / "engine-choice.json" if cache else None
    known: dict[str, Any] = {}
    if path and path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            log.warning("%s is damaged; measuring again", path)
    if known.get(key) in have:
        return str(known[key])
    times = {runtime: _measure_apart(folder, runtime) for runtime in have}
    best = min(times, key=lambda runtime: times[runtime])
    log.info("engine auto: %s", ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in times.items()))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**known, key: best}), encoding="utf-8")
        part.replace(path)
    return best


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


def _measure_apart(folder: Path, runtime: str) -> float:
    """Seconds an image on one unit, or infinity if the runtime cannot run it."""
    command = [sys.executable, "-m", "edged.engines.choose", str(folder), runtime]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    try:
        return float(done.stdout.strip().splitlines()[-1])
    except (IndexError, ValueError):
        log.warning("engine %s cannot be measured: %s", runtime, done.stderr.strip()[-300:])
        return float("inf")


def measure(folder: Path, runtime: str) -> float:
    """Median seconds for one image on one unit, in this process."""
    loader = load(folder, read_spec(folder), runtime)
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
        sys.exit(str(error))
