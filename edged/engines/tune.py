"""How fast an engine is here, and how it is used best: measured once, in short runs, and kept.

Each engine runs in a process of its own, since several runtimes in the daemon would cost its memory
several times, and one that crashes must not be its end. What was found is kept beside the state,
keyed by CPU, versions and model, for TensorRT also by GPU.

Of the ways to use an engine (units x batch x threads) the one with the shortest batch is taken
among those that do NEARLY as much in a second as the best: a part waits for its batch, on OpenVINO
also when it is alone in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import EngineLoader, Tuning
from edged.core.types import ModelSpec
from edged.engines import machine
from edged.engines.candidate import EngineCandidate, EngineRequest, installed, on_gpu, tunings
from edged.engines.plan import PRECISIONS
from edged.runtime.child import ask
from edged.runtime.workers import Crew, Worker
from edged.wire import imaging
from edged.wire.spec import read_spec

log = logging.getLogger(__name__)

Idle: TypeAlias = Callable[[], None]
Ways: TypeAlias = dict[Tuning, tuple[float, float]]
"""How an engine may be used -> seconds of a batch, pictures in a second."""

COARSER = {"openvino-bf16": 1.25}
"""How much faster an engine must be to come before those that compute as the trainer did."""
RUNS = 20
WARM_UPS = 2
TUNE_SECONDS = 0.4
NEARLY = 0.75
MOST = 256  # of units, of a batch, of threads
MEASURE_SECONDS = 120.0
REFUSED = 3  # exit code of a measurement whose engine says why it cannot serve
ORDERS, TUNINGS = "engine-choice.json", "engine-tuning.json"


def order(
    plain: EngineCandidate, have: dict[str, str], cache: Path | None, idle: Idle | None = None
) -> list[str]:
    """The engines of `have` (and their versions), fastest first. plain: with any engine.

    idle: see core.child.ask.
    """
    key = _key(replace(plain, engine=max(have)), sorted(have.items()))
    known = _remembered(cache, ORDERS)
    kept = known.get(key)
    if isinstance(kept, list) and kept and all(str(name) in have for name in kept):
        # A GPU that did not work then may do so now: its driver is no part of the key.
        again = [n for n in have if n not in kept and n not in PRECISIONS and on_gpu(n)]
        if not any(math.isfinite(_measured(replace(plain, engine=name), idle)) for name in again):
            return [str(name) for name in kept]
    log.info("engine auto: measuring %s, for some seconds", ", ".join(have))
    found = {engine: _measured(replace(plain, engine=engine), idle) for engine in have}
    times = {engine: seconds for engine, seconds in found.items() if math.isfinite(seconds)}
    log.info("engine auto: %s", ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in times.items()))
    # When nothing can be measured all are offered, so that their own words say why not.
    fastest = sorted(times, key=lambda name: times[name] * COARSER.get(name, 1.0)) or list(have)
    if not any(math.isnan(seconds) for seconds in found.values()):
        _keep(cache, ORDERS, {**known, key: fastest})
    return fastest


def tuned(recipe: EngineCandidate, cache: Path | None, idle: Idle | None = None) -> EngineCandidate:
    """The recipe with the best use of its engine; as it is where that cannot be measured."""
    wanted = recipe.wanted
    if cache is None or (wanted.units and (wanted.batch or not on_gpu(recipe.engine))):
        return recipe  # nothing is open: on a CPU larger batches gain nothing (measured)
    key = _key(recipe, [recipe.engine, asdict(wanted), installed().get(recipe.engine)])
    known = _remembered(cache, TUNINGS)
    kept = _read(known.get(key))
    if kept is None:
        log.info("engine %s: measuring how it is used best, for some seconds", recipe.engine)
        found, why = _child("tune", recipe, idle)
        kept = _read(found)
        if kept is None:
            log.warning("engine %s is not tuned: %s", recipe.engine, why)
            return recipe
        log.info("engine %s: %s", recipe.engine, kept)
        _keep(cache, TUNINGS, {**known, key: list(astuple(kept))})
    return replace(recipe, tuning=kept)


def _read(found: object) -> Tuning | None:
    """A Tuning as a file or a child gives it, if it is one."""
    if not isinstance(found, list) or len(found) != 3:
        return None
    good = all(type(number) is int and 1 <= number <= MOST for number in found)
    return Tuning(*found) if good else None


def best(ways: Ways) -> Tuning:
    """The one with the shortest batch among those that do nearly as much as the best."""
    most = max(rate for _, rate in ways.values())
    return min(
        (way for way, (_, rate) in ways.items() if rate >= NEARLY * most),
        key=lambda way: ways[way][0],
    )


def tried(recipe: EngineCandidate, idle: Idle | None = None) -> tuple[float, str | None]:
    """Seconds an image on one unit, and why it cannot be had; in a process of its own.

    Infinity if the engine cannot run here; NaN if that is not known.
    """
    found, why = _child("measure", recipe, idle)
    if isinstance(found, float):
        return found, None
    return (math.nan if found is None else math.inf), why


def _measured(recipe: EngineCandidate, idle: Idle | None) -> float:
    seconds, why = tried(recipe, idle)
    if why is not None:
        log.warning("engine %s does not run here: %s", recipe.engine, why)
    return seconds


def _child(what: str, recipe: EngineCandidate, idle: Idle | None) -> tuple[Any, str]:
    """What a child finds; or, with a reason, False when its engine refuses, None when it fails."""
    asked = {
        "engine": recipe.engine,
        "folder": str(recipe.folder),
        "plans": str(recipe.plans) if recipe.plans else None,
        "wanted": asdict(recipe.wanted),
    }
    command = [sys.executable, "-m", "edged.engines.tune", what, json.dumps(asked)]
    try:
        done = ask(command, MEASURE_SECONDS, idle)
    except subprocess.TimeoutExpired:
        return None, f"it was not measured within {MEASURE_SECONDS:.0f} s"
    if done.returncode == REFUSED:
        return False, done.stderr.strip().rpartition("\n")[2][:500]
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), ""
    except (IndexError, ValueError):
        last = done.stderr.strip().rpartition("\n")[2][-300:]
        return None, f"its process ended with {done.returncode}: {last}"


def _remembered(cache: Path | None, name: str) -> dict[str, Any]:
    if cache is None or not (cache / name).is_file():
        return {}
    try:
        known = json.loads((cache / name).read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    except (OSError, ValueError):
        pass
    log.warning("%s is damaged; measuring again", cache / name)
    return {}


def _keep(cache: Path | None, name: str, known: dict[str, Any]) -> None:
    if cache is None:
        return
    part = cache / f".{name}.{threading.get_native_id()}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known), encoding="utf-8")
        part.replace(cache / name)
    except OSError as error:
        log.warning("%s cannot be written (%s); measuring again", cache / name, error.strerror)


def _key(recipe: EngineCandidate, more: Sequence[Any]) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line for line in lines if line.startswith("model name")), platform.machine())
    gpu = machine.facts() if recipe.engine in PRECISIONS else {}
    facts = json.dumps([cpu, os.cpu_count(), dict(gpu), more, recipe.spec.ref.sha256])
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def measure(recipe: EngineCandidate) -> float:
    """Median seconds for one image on one unit, in this process."""
    loader = recipe()
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


def tune(recipe: EngineCandidate) -> list[int]:
    """Units, batch, threads of the best use; in this process."""
    ways: Ways = {}
    for way in tunings(recipe):
        loader = replace(recipe, tuning=way)()
        try:
            ways[way] = _work(loader, recipe.spec)
        finally:
            loader.close()
    return list(astuple(best(ways)))


def _work(loader: EngineLoader, spec: ModelSpec) -> tuple[float, float]:
    """All units at once for TUNE_SECONDS: seconds of a batch, pictures in a second."""
    batch, found = loader.tuning.batch, []
    ready = threading.Barrier(loader.tuning.units)
    height, width = spec.image_size or (spec.height, spec.width)
    picture = np.zeros((height, width, 3), np.uint8)

    def unit(worker: Worker) -> None:
        engine = loader.open()
        try:
            for _ in range(WARM_UPS):
                engine.infer(batch)
            ready.wait(MEASURE_SECONDS)
            began = time.perf_counter()
            while time.perf_counter() < began + TUNE_SECONDS:
                worker.beat()
                start = time.perf_counter()
                for row in engine.input[:batch]:
                    imaging.resize_into(picture, row)
                engine.infer(batch)
                found.append(time.perf_counter() - start)
        except BaseException:
            ready.abort()
            raise
        finally:
            engine.close()

    crew = Crew()
    units = [crew.start(f"unit-{number}", unit) for number in range(loader.tuning.units)]
    ended = [worker.join(MEASURE_SECONDS) for worker in units]
    if not found or not all(ended) or any(worker.crash for worker in units):
        raise EngineError(f"Engine {loader.name} does not run.")
    seconds = sorted(found)[len(found) // 2]
    return seconds, loader.tuning.units * batch / seconds


def main() -> int:
    """The child: `measure` or `tune`, and a recipe as JSON; prints what it found."""
    what, asked = sys.argv[1], json.loads(sys.argv[2])
    folder, plans = Path(asked["folder"]), asked["plans"]
    recipe = EngineCandidate(
        asked["engine"],
        folder,
        read_spec(folder),
        EngineRequest(**asked["wanted"]),
        plans=Path(plans) if plans else None,
    )
    try:
        print(json.dumps({"measure": measure, "tune": tune}[what](recipe)))
    except (EngineError, MissingDependency) as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
