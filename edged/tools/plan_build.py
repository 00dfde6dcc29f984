"""TensorRT's plans: built ahead (`edged compile`), or while another engine serves.

A build takes minutes and more memory than serving does, and a fault of it must not reach the line:
so it is a child process at low priority with a memory cap, one at a time. The child also proves the
plan on the golden pictures; who serves by it proves it once more.
"""

from __future__ import annotations

import grp
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from edged.core.errors import EngineError, InvalidInput, ParityError
from edged.core.protocols import EngineLoader, Progress
from edged.core.types import Image, ModelSpec
from edged.engines import choose, machine
from edged.engines.choose import EngineCandidate, EngineRequest, Engines, plan_key
from edged.engines.plan import PRECISIONS, Plans, timing_key
from edged.hosting.parity import first_qualified
from edged.runtime.child import Child, serve
from edged.wire import imaging
from edged.wire.spec import GOLDEN, MODEL, read_spec

log = logging.getLogger(__name__)

MEMORY_MB = 6144
LEAST_MEMORY_MB, MOST_MEMORY_MB = 1024, 1024 * 1024
_turn = threading.Lock()


class Compilation(Child):
    """One plan built in a process of its own. `run` on one thread; `cancel` on any."""

    def __init__(
        self, folder: Path, asked: EngineRequest, plans: Path, memory_mb: int = MEMORY_MB
    ) -> None:
        """asked: names an engine of PRECISIONS. A child that dies is an EngineError."""
        if not LEAST_MEMORY_MB <= memory_mb <= MOST_MEMORY_MB:
            raise InvalidInput(
                f"memory {memory_mb} MB: give {LEAST_MEMORY_MB} to {MOST_MEMORY_MB} MB."
            )
        request = {"folder": str(folder), "plans": str(plans), "asked": asdict(asked)}
        super().__init__(
            "edged.tools.plan_build", "The compilation", request, memory_mb, EngineError
        )


@dataclass(frozen=True, slots=True)
class PlanUpgrade:
    """hosting.swap.EngineUpgrade: to TensorRT, once its plan is built and proven."""

    request: EngineRequest
    engines: Engines

    def __call__(
        self,
        folder: Path,
        spec: ModelSpec,
        running: Callable[[], EngineLoader],
        tell: Callable[[str], None],
        idle: Callable[[], None],
    ) -> EngineCandidate | None:
        """How to load what is better than `running`, once it is ready; None if nothing is.

        tell: what is being done. idle: called at least every second; may raise to end this.
        Raises EngineError, ParityError, MissingDependency: why the engine that was named cannot be.
        """
        engine = self._planned(idle)
        if engine is None:
            return None
        request = replace(self.request, engine=engine)
        while not _turn.acquire(timeout=1.0):
            idle()
        try:
            self._make_ready(folder, spec, request, tell, idle)
        finally:
            _turn.release()
        names = [running.engine] if isinstance(running, EngineCandidate) else []
        for candidate in self.engines.candidates(folder, spec, self.request, idle):
            if candidate.engine in (engine, *names):  # whichever comes first
                return candidate if candidate.engine not in names else None
        return None

    def _planned(self, idle: Callable[[], None]) -> str | None:
        """The engine whose plan this machine can have; who named it hears why it cannot."""
        if self.request.engine in PRECISIONS:
            choose.check_installed(self.request.engine)
            machine.facts(idle)
        elif self.request.engine != "auto" or not machine.installed():
            return None
        else:
            try:
                machine.facts(idle)
            except EngineError as error:
                log.warning("engine tensorrt: %s", error)
                return None
        return choose.by_plan(self.request)

    def _make_ready(
        self,
        folder: Path,
        spec: ModelSpec,
        request: EngineRequest,
        tell: Callable[[str], None],
        idle: Callable[[], None],
    ) -> None:
        """Build the plan unless it is kept, or was refused before."""
        if self.engines.has_plan(request.engine, folder, spec, request):
            return
        plans = self.engines.plans_of(folder)
        refused = Plans(plans).refusal(plan_key(request.engine, spec, request))
        if refused:
            raise ParityError(refused)
        tell("a TensorRT plan is built in the background")
        Compilation(folder, request, plans).run(_nobody, idle)


def compiled(
    folder: Path, asked: EngineRequest, plans: Path, progress: Progress, memory_mb: int = MEMORY_MB
) -> dict[str, Any]:
    """Build the plan of a model ahead of time; what was done. Raises as Compilation.run does."""
    read_spec(folder)  # what is wrong with the folder is said before a process is begun
    choose.check_installed(asked.engine)
    plans.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return Compilation(folder, asked, plans, memory_mb).run(progress)


def _nobody(stage: str, done: int, total: int, **facts: Any) -> None:
    """Progress that nobody looks at."""


def _compile(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's work."""
    folder, place = Path(request["folder"]), Path(request["plans"])
    _become_owner(place.parent)
    # What it is doing is worth nothing, and TensorRT's code would not hear of a handler.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    asked, plans = EngineRequest(**request["asked"]), Plans(place)
    spec, here = read_spec(folder), machine.facts()
    what, key = asked.plan(spec, asked.engine), plan_key(asked.engine, spec, asked)
    of = {"sha256": what.sha256, "precision": what.precision, "batch": what.batch}
    facts = {"what": of, "model": spec.ref.name, "machine": dict(here)}
    try:
        progress("precision", 0, 1)
        graph = _graph(folder, spec, what.precision)
        progress("precision", 1, 1)
        from edged.engines import tensorrt

        timing = timing_key(here)
        plan, times = tensorrt.built(graph, what, plans.find(timing) or b"", progress)
        if times:
            plans.keep(timing, times, {"what": "timing cache", "machine": dict(here)})
        progress("proof", 0, 1)
        load = partial(tensorrt.TensorRtLoader, plan, spec, what.precision)
        proven = first_qualified([load], spec, folder / GOLDEN)
        proven.loader.close()
        # Only now: one that crashes its process must not be there for the daemon.
        plans.keep(key, plan, facts)
        progress("proof", 1, 1)
    except ParityError as error:
        plans.refuse(key, str(error), facts)  # else every start would build it anew
        raise
    return {
        "engine": proven.loader.name,
        "plan": str(place / f"{key}.plan"),
        "bytes": len(plan),
        "largest_difference": round(proven.off, 5),
        **here,
    }


def _become_owner(state: Path) -> None:
    """Root builds as the user whose state it is: what is built is that user's to trust.

    With the groups that a GPU's device files have on a Jetson, as the service has them.
    """
    owner = state.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    groups = {owner.st_gid}
    for name in ("video", "render"):
        with suppress(KeyError):
            groups.add(grp.getgrnam(name).gr_gid)
    os.setgroups(sorted(groups))
    os.setgid(owner.st_gid)
    os.setuid(owner.st_uid)


def _graph(folder: Path, spec: ModelSpec, precision: str) -> bytes:
    """The model's graph in that precision."""
    graph = (folder / MODEL).read_bytes()
    if precision == "fp32":
        return graph
    from edged.training.onnx import half

    pictures = golden_pictures(folder, spec)
    if precision == "fp16":
        return half.half_graph(graph, half.input_means(graph, choose.extractor, pictures))
    from edged.engines import onnxruntime

    int8 = onnxruntime.quantised(graph, half.convolutions(graph), pictures)
    _earned(int8, folder, spec)
    return int8


def golden_pictures(folder: Path, spec: ModelSpec) -> list[Image]:
    """Those of a model, each uint8 (1, H, W, 3) BGR at the size of its input."""
    found: list[Image] = []
    for name in sorted(spec.golden):
        row: Image = np.empty((1, spec.height, spec.width, 3), np.uint8)
        imaging.resize_into(imaging.read(folder / GOLDEN / name), row[0])
        found.append(row)
    return found


def _earned(int8: bytes, folder: Path, spec: ModelSpec) -> None:
    """Raise ParityError unless the INT8 graph passes the gate, before anything is built of it."""
    with tempfile.TemporaryDirectory(prefix="edged-int8-") as scratch:
        (Path(scratch) / MODEL).write_bytes(int8)
        try:
            request = EngineRequest(units=1, batch=1)
            plain = EngineCandidate("onnxruntime", Path(scratch), spec, request)
            first_qualified([plain], spec, folder / GOLDEN).loader.close()
        except ParityError as error:
            raise ParityError(f"INT8 has not earned its place. {error}") from None


if __name__ == "__main__":
    sys.exit(serve(_compile, "The compilation"))
