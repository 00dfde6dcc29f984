"""SIMULATED TensorRT: NVIDIA's own parser and builder (tensorrt-rtx), and a runtime that is none.

A plan of it holds the ONNX graph and the profiles; a context runs the graph with ONNX Runtime on
the addresses and the stream that the caller gave, when the stream gets there. It tells nothing of
kernels, speed, memory or rounding on a GPU. `violations`: what a GPU would have punished with
silently wrong numbers.
"""

from __future__ import annotations

import builtins
import ctypes
import json
import os
import threading
from typing import Any

import numpy as np
import tensorrt_rtx as _real
from tensorrt_rtx import ILogger, nptype

# Enums and the like are the real ones; it also has a `bool`, which is a type of tensors.
globals().update(
    {
        name: each
        for name, each in vars(_real).items()
        if not hasattr(builtins, name) and not name.startswith("_")
    }
)
__version__ = "11.4.0.simulated"
MAGIC = b"simulated plan\n"
TIMES = b"simulated times"

_driver = ctypes.CDLL(os.environ["EDGED_SOFTCUDA"], mode=ctypes.RTLD_GLOBAL)
_Call = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_driver.soft_enqueue.argtypes = [ctypes.c_void_p, _Call, ctypes.c_void_p]
_driver.soft_check.argtypes = [ctypes.c_size_t, ctypes.c_size_t]

FAULT = os.environ.get("EDGED_SIMULATE", "")
"""What goes wrong in this process: a word below, or nothing."""
SLOW_SECONDS = 2.5
if FAULT == "sticky":
    _driver.soft_fail(b"cuMemcpyDtoHAsync", 700, 200)

violations: list[str] = []
_graphs: dict[int, tuple[bytes, Any]] = {}
_calls: list[Any] = []  # owned here: a context may be gone when its work runs


class OnnxParser(_real.OnnxParser):
    """The real one; it remembers the graph for the plan."""

    def __init__(self, network: Any, logger: Any) -> None:
        _real.OnnxParser.__init__(self, network, logger)
        self._network = network

    def parse(self, model: bytes) -> bool:
        _graphs[id(self._network)] = (bytes(model), self._network)
        return bool(_real.OnnxParser.parse(self, model))


class _Profile:
    def __init__(self, real: Any) -> None:
        self.real, self.shapes = real, {}

    def set_shape(self, name: str, least: Any, usual: Any, most: Any) -> None:
        self.real.set_shape(name, least, usual, most)
        self.shapes[name] = [list(least), list(usual), list(most)]


class _Timing:
    """TensorRT-RTX has one that does nothing."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def serialize(self) -> bytes:
        return self.data or TIMES


class _Config:
    def __init__(self, real: Any) -> None:
        object.__setattr__(self, "real", real)
        object.__setattr__(self, "profiles", [])

    def add_optimization_profile(self, profile: _Profile) -> int:
        index = int(self.real.add_optimization_profile(profile.real))
        if index >= 0:
            self.profiles.append(profile.shapes)
        return index

    def create_timing_cache(self, data: bytes) -> _Timing:
        return _Timing(data)

    def set_timing_cache(self, cache: _Timing, mismatch: bool) -> bool:
        return cache.data in (b"", TIMES)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.real, name, value)


class Builder(_real.Builder):
    """The real one; what it builds is put into a simulated plan."""

    def create_builder_config(self) -> _Config:
        return _Config(_real.Builder.create_builder_config(self))

    def create_optimization_profile(self) -> _Profile:
        return _Profile(_real.Builder.create_optimization_profile(self))

    def build_serialized_network(self, network: Any, config: _Config) -> bytes | None:
        if not config.real.num_compute_capabilities:
            config.real.num_compute_capabilities = 1
            config.real.set_compute_capability(_real.ComputeCapability.SM86, 0)
        if _real.Builder.build_serialized_network(self, network, config.real) is None:
            return None
        values = [
            [kind, each.name, list(each.shape), each.dtype.name]
            for kind, count, get in (
                ("in", network.num_inputs, network.get_input),
                ("out", network.num_outputs, network.get_output),
            )
            for each in map(get, range(count))
        ]
        head = json.dumps({"values": values, "profiles": config.profiles}).encode()
        return MAGIC + len(head).to_bytes(4, "little") + head + _graphs[id(network)][0]


class Runtime:
    """Simulated."""

    def __init__(self, logger: Any) -> None:
        self.logger = logger

    def deserialize_cuda_engine(self, plan: bytes) -> ICudaEngine | None:
        if FAULT == "crash":
            os.abort()
        if FAULT == "slow load":
            threading.Event().wait(SLOW_SECONDS)
        if not _driver.soft_ctx_depth():
            self.logger.log(ILogger.ERROR, "deserializeCudaEngine: no CUDA context is current")
            return None
        if not plan.startswith(MAGIC):
            self.logger.log(ILogger.ERROR, "Serialization assertion failed: Version tag")
            return None
        start = len(MAGIC) + 4
        end = start + int.from_bytes(plan[len(MAGIC) : start], "little")
        return ICudaEngine(self, json.loads(plan[start:end]), plan[end:])


class ICudaEngine:
    """Simulated."""

    def __init__(self, runtime: Runtime, head: dict[str, Any], graph: bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.runtime, self.profiles = runtime, head["profiles"]
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        self.values = {
            name: (kind, tuple(shape), getattr(_real.DataType, data))
            for kind, name, shape, data in head["values"]
        }
        self.num_io_tensors = len(self.values)
        self.num_optimization_profiles = len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.values)[index]

    def get_tensor_mode(self, name: str) -> Any:
        modes = _real.TensorIOMode
        return modes.INPUT if self.values[name][0] == "in" else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.values[name][1]

    def get_tensor_dtype(self, name: str) -> Any:
        return self.values[name][2]

    def create_execution_context(self) -> IExecutionContext | None:
        if os.environ.get("EDGED_SIMULATE") == "no context":
            return None
        return IExecutionContext(self)


class IExecutionContext:
    """Simulated."""

    def __init__(self, engine: ICudaEngine) -> None:
        if not _driver.soft_ctx_depth():
            raise RuntimeError("createExecutionContext: no CUDA context is current")
        self.engine, self.profile = engine, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}

    def _refused(self, words: str) -> bool:
        self.engine.runtime.logger.log(ILogger.ERROR, f"IExecutionContext: {words}")
        return False

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        if not 0 <= index < self.engine.num_optimization_profiles:
            return self._refused("no such profile")
        self.profile, self.shapes = index, {}
        return True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self.engine.profiles[self.profile][name]
        if not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            return self._refused(f"{shape} is outside of the profile")
        self.shapes[name] = tuple(shape)
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = int(address)
        return name in self.engine.values

    def execute_async_v3(self, stream: int) -> bool:
        if not _driver.soft_ctx_depth():
            return self._refused("no CUDA context is current on this thread")
        if not self.shapes:
            return self._refused("the input's shape is not set")
        count = next(iter(self.shapes.values()))[0]
        plan = []
        for name, (kind, shape, data) in self.engine.values.items():
            whole = (count, *shape[1:])
            number = np.dtype(nptype(data))
            size = int(np.prod(whole)) * number.itemsize
            if not _driver.soft_check(self.addresses.get(name, 0), size):
                violations.append(f"{name} needs {size} bytes of the GPU's memory at its address")
                return True
            plan.append((kind, name, whole, number, self.addresses[name], size))
        call = _Call(lambda _: self._run(plan))
        _calls.append(call)
        return bool(_driver.soft_enqueue(stream, call, None) == 0)

    def _run(self, plan: list[Any]) -> None:
        views = {
            name: np.frombuffer((ctypes.c_char * size).from_address(at), number).reshape(shape)
            for _, name, shape, number, at, size in plan
        }
        inputs = {name: views[name] for kind, name, *_ in plan if kind == "in"}
        outputs = [name for kind, name, *_ in plan if kind == "out"]
        try:
            for name, found in zip(outputs, self.engine.session.run(outputs, inputs), strict=True):
                if name == "score" and FAULT == "other numbers":
                    found += np.float32(0.1)
                np.copyto(views[name], found, casting="no")
        except Exception as error:
            violations.append(f"the run failed: {error!r}")
