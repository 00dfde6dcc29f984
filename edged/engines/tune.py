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
from collections.abc import Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import EngineLoader, Tuning
from edged.core.types import ModelSpec
from edged.engines import machine
from edged.engines.choose import (
    EngineCandidate,
    EngineRequest,
    Engines,
    Idle,
    installed,
    on_gpu,
    tunings,
)
from edged.engines.plan import PRECISIONS
from edged.runtime.child import ask
from edged.runtime.state import StateFolder
from edged.runtime.workers import Crew, Worker
from edged.wire import imaging
from edged.wire.spec import read_spec

log = logging.getLogger(__name__)

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


class Tuner:
    """choose.Measured: asks a process of its own, and remembers what it said. Any thread."""

    def __init__(self, state: StateFolder) -> None:
        """state: whose files remember it."""
        self._state = state

    def order(
        self, plain: EngineCandidate, have: dict[str, str], idle: Idle | None = None
    ) -> list[str]:
        """The engines of `have` (and their versions), fastest first. plain: with any engine.

        idle: see runtime.child.ask.
        """
        key = _key(replace(plain, engine=max(have)), sorted(have.items()))
        file = self._state.engine_choice
        known = _remembered(file)
        kept = known.get(key)
        if isinstance(kept, list) and kept and all(str(name) in have for name in kept):
            # A GPU that did not work then may do so now: its driver is no part of the key.
            again = [n for n in have if n not in kept and n not in PRECISIONS and on_gpu(n)]
            if not any(
                math.isfinite(_measured(replace(plain, engine=name), idle)) for name in again
            ):
                return [str(name) for name in kept]
        log.info("engine auto: measuring %s, for some seconds", ", ".join(have))
        found = {engine: _measured(replace(plain, engine=engine), idle) for engine in have}
        times = {engine: seconds for engine, seconds in found.items() if math.isfinite(seconds)}
        log.info("engine auto: %s", ", ".join(f"{k} {v * 1e3:.1f} ms" for k, v in times.items()))
        # When nothing can be measured all are offered, so that their own words say why not.
        fastest = sorted(times, key=lambda name: times[name] * COARSER.get(name, 1.0)) or list(have)
        if not any(math.isnan(seconds) for seconds in found.values()):
            _keep(file, {**known, key: fastest})
        return fastest

    def tuned(self, candidate: EngineCandidate, idle: Idle | None = None) -> EngineCandidate:
        """The candidate with the best use of its engine; as it is where that cannot be measured."""
        request = candidate.request
        if request.units and (request.batch or not on_gpu(candidate.engine)):
            return candidate  # nothing is open: on a CPU larger batches gain nothing (measured)
        key = _key(
            candidate, [candidate.engine, asdict(request), installed().get(candidate.engine)]
        )
        file = self._state.engine_tuning
        known = _remembered(file)
        kept = _read(known.get(key))
        if kept is None:
            log.info("engine %s: measuring how it is used best, for some seconds", candidate.engine)
            found, why = _child("tune", candidate, idle)
            kept = _read(found)
            if kept is None:
                log.warning("engine %s is not tuned: %s", candidate.engine, why)
                return candidate
            log.info("engine %s: %s", candidate.engine, kept)
            _keep(file, {**known, key: list(astuple(kept))})
        return replace(candidate, tuning=kept)


def engines_of(state: StateFolder) -> Engines:
    """The engines of a daemon, or of a user's command line: measured, with plans, in its folder."""
    return Engines(Tuner(state), state.plans)


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


def tried(candidate: EngineCandidate, idle: Idle | None = None) -> tuple[float, str | None]:
    """Seconds an image on one unit, and why it cannot be had; in a process of its own.

    Infinity if the engine cannot run here; NaN if that is not known.
    """
    found, why = _child("measure", candidate, idle)
    if isinstance(found, float):
        return found, None
    return (math.nan if found is None else math.inf), why


def _measured(candidate: EngineCandidate, idle: Idle | None) -> float:
    seconds, why = tried(candidate, idle)
    if why is not None:
        log.warning("engine %s does not run here: %s", candidate.engine, why)
    return seconds


def _child(what: str, candidate: EngineCandidate, idle: Idle | None) -> tuple[Any, str]:
    """What a child finds; or, with a reason, False when its engine refuses, None when it fails."""
    asked = {
        "engine": candidate.engine,
        "folder": str(candidate.folder),
        "plans": str(candidate.plans) if candidate.plans else None,
        "request": asdict(candidate.request),
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


def _remembered(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(known, dict):
            return known
    except (OSError, ValueError):
        pass
    log.warning("%s is damaged; measuring again", file)
    return {}


def _keep(file: Path, known: dict[str, Any]) -> None:
    part = file.with_name(f".{file.name}.{threading.get_native_id()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(known), encoding="utf-8")
        part.replace(file)
    except OSError as error:
        log.warning("%s cannot be written (%s); measuring again", file, error.strerror)


def _key(candidate: EngineCandidate, more: Sequence[Any]) -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line for line in lines if line.startswith("model name")), platform.machine())
    gpu = machine.facts() if candidate.engine in PRECISIONS else {}
    facts = json.dumps([cpu, os.cpu_count(), dict(gpu), more, candidate.spec.ref.sha256])
    return hashlib.sha256(facts.encode()).hexdigest()[:24]


def measure(candidate: EngineCandidate) -> float:
    """Median seconds for one image on one unit, in this process."""
    loader = candidate()
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


def tune(candidate: EngineCandidate) -> list[int]:
    """Units, batch, threads of the best use; in this process."""
    ways: Ways = {}
    for way in tunings(candidate):
        loader = replace(candidate, tuning=way)()
        try:
            ways[way] = _work(loader, candidate.spec)
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
    candidate = EngineCandidate(
        asked["engine"],
        folder,
        read_spec(folder),
        EngineRequest(**asked["request"]),
        plans=Path(plans) if plans else None,
    )
    try:
        print(json.dumps({"measure": measure, "tune": tune}[what](candidate)))
    except (EngineError, MissingDependency) as error:
        print(error, file=sys.stderr)
        return REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main())
