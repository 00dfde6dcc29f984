"""TensorRT on an NVIDIA GPU, for 8.6 to 11: a plan that was built before, and its contexts.

One body for all versions: what a version may lack is looked up by name, and no number of an enum is
written down. The plan and its weights are shared; each unit has an execution context, a stream,
page-locked buffers and its own device memory, made and freed on its thread. Building is plan.py's.

Not shown on a GPU yet: see `edged doctor`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import ALONE, Progress, Tuning
from edged.core.types import Image, ModelSpec, Prediction
from edged.engines import cuda
from edged.engines.plan import PlanSpec, Unusable, build

try:
    import tensorrt
except Exception as error:  # half an installation raises whatever its missing half raises
    raise MissingDependency("tensorrt", "tensorrt", "The TensorRT engine", error) from error

log = logging.getLogger(__name__)

LEAST = 10
"""The first major version whose contexts may share one profile."""


class Log(tensorrt.ILogger):  # type: ignore[misc]
    """TensorRT's words. It keeps the first logger that a process gives it, so there is one."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.tail: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        """Called from TensorRT's threads; must not raise."""
        if int(severity) <= 1:
            self.tail = [*self.tail[-4:], message.strip()[:300]]
        log.log(logging.ERROR if int(severity) <= 1 else logging.DEBUG, "TensorRT: %s", message)

    def said(self) -> str:
        """Its last errors, and none of them again."""
        words, self.tail = "; ".join(self.tail[-2:]), []
        return words or "it gave no reason"


_log: Log | None = None


def logger() -> Log:
    """The process's one logger."""
    global _log
    _log = _log or Log()
    return _log


class TensorRtEngine:
    """One unit's context; see core.protocols.Engine."""

    def __init__(
        self,
        engine: Any,
        spec: ModelSpec,
        batch: int,
        profile: int,
        zero_copy: bool,
        left: Callable[[], None],
    ) -> None:
        """left: called once when it is closed."""
        self._left = left
        self._lane = cuda.UnitStream()
        self._zero_copy = zero_copy
        self._context: Any = None
        self._host: dict[str, npt.NDArray[Any]] = {}
        self._device: dict[str, int] = {}
        self._shaped = 0
        try:
            self._context = _made(engine.create_execution_context(), "an execution context")
            if profile and not self._context.set_optimization_profile_async(
                profile, self._lane.handle
            ):
                raise EngineError(f"TensorRT refuses profile {profile}: {logger().said()}.")
            for index in range(engine.num_io_tensors):
                self._add(engine, str(engine.get_tensor_name(index)), batch)
        except BaseException:
            self.close()
            raise
        self._outputs = [name for name in self._host if name != self._name]
        wanted = (batch, spec.height, spec.width, 3)
        if self._host[self._name].shape != wanted:
            self.close()
            raise EngineError(f"The plan does not take pictures of shape {wanted}.")

    def _add(self, engine: Any, name: str, batch: int) -> None:
        """Buffers of one input or output."""
        shape = (batch, *tuple(engine.get_tensor_shape(name))[1:])
        kind = np.dtype(tensorrt.nptype(engine.get_tensor_dtype(name)))
        given = engine.get_tensor_mode(name) == tensorrt.TensorIOMode.INPUT
        # Of outputs the CPU reads every byte, and mapped memory is slow on the GPU's side.
        mapped = given and self._zero_copy
        self._host[name] = self._lane.pinned(shape, kind, mapped)
        self._device[name] = (
            self._lane.address(self._host[name])
            if mapped
            else self._lane.device(self._host[name].nbytes)
        )
        if not self._context.set_tensor_address(name, self._device[name]):
            raise EngineError(f"TensorRT refuses the address of {name}: {logger().said()}.")
        if given:
            self._name = name

    @property
    def input(self) -> Image:
        """uint8 (B, H, W, 3) BGR, page-locked, this context's own."""
        return self._host[self._name]

    def infer(self, count: int) -> Prediction:
        """Numbers for rows 0..count-1. Raises DeviceLost when only a new process helps."""
        if self._context is None:
            raise EngineError("The engine is closed.")
        image = self._host[self._name]
        if not 1 <= count <= len(image):
            raise EngineError(f"A batch of {count} does not fit 1 to {len(image)}.")
        if self._shaped != count:
            self._shaped = 0
            if not self._context.set_input_shape(self._name, (count, *image.shape[1:])):
                raise EngineError(f"TensorRT refuses a batch of {count}: {logger().said()}.")
            self._shaped = count
        if not self._zero_copy:
            self._lane.send(self._device[self._name], image[:count])
        if not self._context.execute_async_v3(self._lane.handle):
            self._shaped = 0
            raise EngineError(f"TensorRT failed: {logger().said()}.")
        for name in self._outputs:
            self._lane.fetch(self._host[name][:count], self._device[name])
        self._lane.wait()
        # Copies: the page-locked arrays are the next batch's.
        found = {name: self._host[name][:count].astype(np.float32) for name in self._outputs}
        return Prediction(found["score"], found.get("map"), found.get("classes"))

    def close(self) -> None:
        """Free context and buffers, the context first; safe to call twice."""
        self._context = None
        self._host, self._device = {}, {}
        self._lane.close()
        left, self._left = self._left, lambda: None
        left()


class TensorRtLoader:
    """A plan on the GPU of this machine; see core.protocols.EngineLoader."""

    def __init__(
        self,
        plan: bytes,
        spec: ModelSpec,
        precision: str,
        tuning: Tuning = ALONE,
        zero_copy: bool = False,
    ) -> None:
        """plan: as plan.build gave it, on this machine. Raises EngineError.

        zero_copy: the GPU reads pictures where the CPU put them; only where they share memory.
        """
        self.name = f"tensorrt {precision} on {cuda.gpu()}"
        self.tuning = tuning
        self._spec = spec
        self._zero_copy = zero_copy and cuda.shares_memory()
        if zero_copy and not self._zero_copy:
            log.warning("zero_copy is for a GPU that shares the CPU's memory: pictures are copied")
        with cuda.current():
            self._runtime: Any = _made(tensorrt.Runtime(logger()), "a runtime")
            self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise Unusable(f"TensorRT cannot load the plan: {logger().said()}.")
        # Each context of an older version needs a profile of its own.
        count = 0 if major() >= LEAST else int(self._engine.num_optimization_profiles)
        self._profiles = set(range(count)) if count else None
        self._lock = threading.Lock()

    def open(self) -> TensorRtEngine:
        """A context that shares the plan's weights."""
        if self._engine is None:
            raise EngineError("The model was closed: load it again.")
        with self._lock:
            if self._profiles is not None and not self._profiles:
                raise EngineError(f"TensorRT {version()} has no profile for so many units.")
            profile = self._profiles.pop() if self._profiles is not None else 0
        batch, leave = self.tuning.batch, partial(self._left, profile)
        try:
            return TensorRtEngine(self._engine, self._spec, batch, profile, self._zero_copy, leave)
        except BaseException:
            leave()
            raise

    def _left(self, profile: int) -> None:
        with self._lock:
            if self._profiles is not None:
                self._profiles.add(profile)

    def close(self) -> None:
        """Let go of the plan, after its contexts."""
        if self._engine is None:
            return
        with cuda.current():
            self._engine = None
            self._runtime = None


def version() -> str:
    """TensorRT's."""
    return str(tensorrt.__version__)


def major() -> int:
    """TensorRT's major version."""
    return int(version().partition(".")[0])


def built(graph: bytes, spec: PlanSpec, timing: bytes, progress: Progress) -> tuple[bytes, bytes]:
    """The plan of a graph for this machine's GPU, and the timing cache; see plan.build."""
    with cuda.current():
        return build(tensorrt, logger(), graph, spec, timing=timing, progress=progress)


def _made(thing: Any, what: str) -> Any:
    if thing is None:
        raise EngineError(f"TensorRT could not make {what}: {logger().said()}.")
    return thing
