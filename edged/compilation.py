"""TensorRT's plans: built ahead (`edged compile`), or behind a line that another engine serves.

A build takes minutes and more memory than serving does, and a fault of it must not reach the line:
so it is a child process at low priority with a memory cap, one at a time. The child also proves the
plan on the golden pictures; who serves by it proves it once more.
"""

from __future__ import annotations

import sys
import tempfile
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edged import imaging
from edged.core.child import Child, serve
from edged.core.errors import EngineError, InvalidInput, MissingDependency, ParityError
from edged.core.protocols import EngineLoader, Progress
from edged.core.types import Image, ModelSpec
from edged.engines import choose, machine
from edged.engines.plan import PLANS, PRECISIONS, Plans, timing_key
from edged.engines.recipe import Recipe, Wanted, plan_key
from edged.pipeline.qualify import first_qualified
from edged.wire.spec import GOLDEN, MODEL, read_spec

MEMORY_MB = 6144
LEAST_MEMORY_MB = 512
_turn = threading.Lock()


class Compilation(Child):
    """One plan built in a process of its own. `run` on one thread; `cancel` on any."""

    def __init__(
        self, folder: Path, wanted: Wanted, plans: Path, memory_mb: int = MEMORY_MB
    ) -> None:
        """wanted: names an engine of PRECISIONS. A child that dies is an EngineError."""
        if memory_mb < LEAST_MEMORY_MB:
            raise InvalidInput(f"memory {memory_mb} MB: a build needs {LEAST_MEMORY_MB} MB.")
        request = {"folder": str(folder), "plans": str(plans), "wanted": asdict(wanted)}
        super().__init__("edged.compilation", "The compilation", request, memory_mb, EngineError)


@dataclass(frozen=True, slots=True)
class Behind:
    """Looks for a better engine while another serves; see pipeline.host.Hosting.better."""

    wanted: Wanted
    cache: Path
    plans: Path | None
    """None = in the model's folder, for what may not lie open elsewhere."""

    def __call__(
        self,
        folder: Path,
        spec: ModelSpec,
        running: Callable[[], EngineLoader],
        tell: Callable[[str], None],
        idle: Callable[[], None],
    ) -> Recipe | None:
        """How to load what is better than `running`, once it is ready; None if nothing is.

        tell: what is being done. idle: called at least every second; may raise to end this.
        Raises EngineError, ParityError, MissingDependency: why the engine that was named cannot be.
        """
        engine = choose.BY_PLAN if self.wanted.engine == "auto" else self.wanted.engine
        if engine not in PRECISIONS or not self._possible(engine, spec):
            return None
        wanted, plans = replace(self.wanted, engine=engine), self.plans or folder / PLANS
        while not _turn.acquire(timeout=1.0):
            idle()
        try:
            if not choose.plan_is_kept(engine, spec, wanted, plans):
                tell("a TensorRT plan is built behind it")
                Compilation(folder, wanted, plans).run(_nobody, idle)
        finally:
            _turn.release()
        best = choose.recipes(folder, spec, self.wanted, self.cache, plans)[0]
        same = isinstance(running, Recipe) and running.engine == best.engine
        return None if same else best

    def _possible(self, engine: str, spec: ModelSpec) -> bool:
        """Whether this machine has what a plan needs; who named the engine hears why not."""
        if self.wanted.engine == "auto" and not machine.installed():
            return False
        try:
            choose.check_installed(engine)
            plan_key(engine, spec, self.wanted)
        except (EngineError, MissingDependency):
            if self.wanted.engine != "auto":
                raise
            return False
        return True


def compiled(
    folder: Path, wanted: Wanted, plans: Path, progress: Progress, memory_mb: int = MEMORY_MB
) -> dict[str, Any]:
    """Build the plan of a model ahead of time; what was done. Raises as Compilation.run does."""
    read_spec(folder)  # what is wrong with the folder is said before a process is begun
    choose.check_installed(wanted.engine)
    return Compilation(folder, wanted, plans, memory_mb).run(progress)


def _nobody(stage: str, done: int, total: int, **facts: Any) -> None:
    """Progress that nobody looks at."""


def _compile(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """The child's work."""
    folder, place = Path(request["folder"]), Path(request["plans"])
    wanted, plans = Wanted(**request["wanted"]), Plans(Path(request["plans"]))
    spec, here = read_spec(folder), machine.facts()
    what, key = wanted.plan(spec, wanted.engine), plan_key(wanted.engine, spec, wanted)
    progress("precision", 0, 1)
    graph = _graph(folder, spec, what.precision)
    progress("precision", 1, 1)
    from edged.engines import tensorrt

    timing = timing_key(here)
    plan, times = tensorrt.built(graph, what, plans.find(timing) or b"", progress)
    of = {"sha256": what.sha256, "precision": what.precision, "batch": what.batch}
    plans.keep(key, plan, {"what": of, "model": spec.ref.name, "machine": dict(here)})
    if times:
        plans.keep(timing, times, {"what": "timing cache", "machine": dict(here)})
    progress("proof", 0, 1)
    proven = first_qualified(
        [Recipe(wanted.engine, folder, spec, wanted, None, place)], spec, folder / GOLDEN
    )
    proven.loader.close()
    progress("proof", 1, 1)
    return {
        "engine": proven.loader.name,
        "plan": str(place / f"{key}.plan"),
        "bytes": len(plan),
        "largest_difference": round(proven.off, 5),
        **here,
    }


def _graph(folder: Path, spec: ModelSpec, precision: str) -> bytes:
    """The model's graph in that precision."""
    graph = (folder / MODEL).read_bytes()
    if precision == "fp32":
        return graph
    from edged.training import half

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
            recipe = Recipe("onnxruntime", Path(scratch), spec, Wanted(units=1, batch=1))
            first_qualified([recipe], spec, folder / GOLDEN).loader.close()
        except ParityError as error:
            raise ParityError(f"INT8 has not earned its place. {error}") from None


if __name__ == "__main__":
    sys.exit(serve(_compile, "The compilation"))
