"""ONNX Runtime on the CPU or an NVIDIA GPU. The one home of `onnxruntime`.

One session is shared by all units of a model; each unit's context owns its input and output
buffers, bound to the session, and runs overlap because ONNX Runtime lets go of the interpreter.
Threads never spin: a spinning pool starves the capture threads.

What a session runs on is what it says itself once it is made: the list of available providers is
that of the build, and a provider that does not work is silently replaced by the CPU.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.metadata
import logging
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import ALONE, Tuning
from edged.core.types import Image, ModelSpec, Prediction

# From 1.29 on its builds for Linux report models and machine to their maker, unless this is set
# before it is imported: what a line makes is nobody else's business.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

try:
    import onnxruntime

    onnxruntime.InferenceSession  # noqa: B018 - what a half-removed one lacks
except Exception as error:
    raise MissingDependency("onnxruntime", "cpu", "The ONNX Runtime engine", error) from error

log = logging.getLogger(__name__)

QUIET = 4
"""What it says of errors, it also raises, or see _why_not; its own lines are no JSON."""
onnxruntime.set_default_logger_severity(QUIET)

PROVIDERS: dict[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": (
        "CUDAExecutionProvider",
        # TF32 would cut FP32 to ten bits; an exhaustive search takes seconds at each new batch.
        {
            "use_tf32": "0",
            "cudnn_conv_algo_search": "HEURISTIC",
            "arena_extend_strategy": "kSameAsRequested",
        },
    ),
}


def _session(model: bytes | str, threads: int, device: str = "cpu") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = QUIET
    provider, settings = PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise EngineError(
            f"This ONNX Runtime was built without {provider}: uninstall onnxruntime, then "
            "pip install 'edged[gpu]'."
        )
    if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA's libraries that pip installed
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[(provider, settings)])
    except Exception as error:  # its exceptions share no base class
        raise EngineError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error
    if session.get_providers()[0] != provider:
        raise EngineError(f"ONNX Runtime cannot use {provider} here: {_why_not()}.")
    return session


def _why_not() -> str:
    """What ONNX Runtime says of CUDA to its log alone: which library it lacks."""
    place = Path(onnxruntime.__file__).parent / "capi"
    try:
        for part in ("shared", "cuda"):
            library = place / f"libonnxruntime_providers_{part}.so"
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        return str(error)
    return "its libraries are all there, and it finds no GPU with a driver that fits them"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


class OnnxRuntimeEngine:
    """One unit's context; see core.protocols.Engine."""

    def __init__(self, session: Any, spec: ModelSpec, batch: int) -> None:
        self._session = session
        self._name = session.get_inputs()[0].name
        self._input: Image = np.zeros((batch, spec.height, spec.width, 3), np.uint8)
        self._outputs: dict[str, npt.NDArray[np.float32]] = {}
        self._shapes = {output.name: output.shape for output in session.get_outputs()}
        self._binding: Any = session.io_binding()
        self._bound = 0

    @property
    def input(self) -> Image:
        """uint8 (B, H, W, 3) BGR, this context's own."""
        return self._input

    def infer(self, count: int) -> Prediction:
        """Numbers for rows 0..count-1, copied out of this context's buffers."""
        if self._session is None:
            raise EngineError("The engine is closed.")
        if not 1 <= count <= len(self._input):
            raise EngineError(f"A batch of {count} does not fit 1 to {len(self._input)}.")
        try:
            if self._bound != count:
                self._bind(count)
            # Each time: with another device than the CPU this is the copy to it.
            self._binding.bind_cpu_input(self._name, self._input[:count])
            self._session.run_with_iobinding(self._binding)
            self._binding.synchronize_outputs()
        except Exception as error:
            self._bound = 0
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error
        named = {name: array.copy() for name, array in self._outputs.items()}
        return Prediction(named["score"], named.get("map"), named.get("classes"))

    def _bind(self, count: int) -> None:
        """Outputs of this context's own, for batches of `count`."""
        self._binding.clear_binding_outputs()
        for name, shape in self._shapes.items():
            array = np.empty((count, *shape[1:]), np.float32)
            self._binding.bind_output(name, "cpu", 0, np.float32, array.shape, array.ctypes.data)
            self._outputs[name] = array
        self._bound = count

    def close(self) -> None:
        """Let go of the session."""
        self._binding = None
        self._session = None


class OnnxRuntimeLoader:
    """A model on one of ONNX Runtime's providers; see core.protocols.EngineLoader."""

    def __init__(
        self, model: Path, spec: ModelSpec, tuning: Tuning = ALONE, device: str = "cpu"
    ) -> None:
        """device: `cpu` or `cuda`. Raises EngineError, also if another would serve instead."""
        self.name = f"onnxruntime {device} fp32"
        self.tuning = tuning
        self._spec = spec
        warn_of_two()
        self._session = _session(str(model), self.tuning.threads, device)

    def open(self) -> OnnxRuntimeEngine:
        """A context that shares the session."""
        if self._session is None:
            raise EngineError("The model was closed: load it again.")
        return OnnxRuntimeEngine(self._session, self._spec, self.tuning.batch)

    def close(self) -> None:
        """Let go of the session; contexts that are still open keep it alive."""
        self._session = None


@functools.cache
def warn_of_two() -> None:
    """Say it when both packages are installed: they share a folder, and the last one is there."""
    found = []
    for package in ("onnxruntime", "onnxruntime-gpu"):
        try:
            found.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    if len(found) > 1:
        log.warning(
            "%s are both installed and break each other; %s is what runs: uninstall both, then "
            "install one",
            " and ".join(found),
            onnxruntime.__version__,
        )


class OnnxRuntimeExtractor:
    """Runs a frozen network for training; see core.protocols.FeatureExtractor."""

    def __init__(self, model: bytes) -> None:
        self._session: Any = _session(model, threads=os.cpu_count() or 1)
        self._name = self._session.get_inputs()[0].name

    def run(self, images: Image) -> list[npt.NDArray[np.float32]]:
        """Outputs in the graph's order."""
        try:
            outputs: list[npt.NDArray[np.float32]] = self._session.run(None, {self._name: images})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error
        return outputs

    def close(self) -> None:
        """Free the session."""
        self._session = None


def extractor(model: bytes) -> OnnxRuntimeExtractor:
    """Load a serialised model for training."""
    return OnnxRuntimeExtractor(model)


def quantised(model: bytes, convolutions: Sequence[str], pictures: Sequence[Image]) -> bytes:
    """The graph with these convolutions in INT8: explicit, symmetric, weights by channel.

    That is what a strongly typed TensorRT takes. pictures: uint8 (1, H, W, 3) BGR at the model's
    size, which give the ranges. Raises EngineError.
    """
    import onnx
    from onnxruntime import quantization

    class Pictures(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(pictures)

        def get_next(self) -> dict[str, Image] | None:
            picture = next(self._left, None)
            return None if picture is None else {name: picture}

    graph = onnx.load_model_from_string(model)
    name = graph.graph.input[0].name
    with tempfile.TemporaryDirectory(prefix="edged-int8-") as scratch:
        written = Path(scratch) / "int8.onnx"
        try:
            quantization.quantize_static(
                graph,
                str(written),
                Pictures(),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=list(convolutions),
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,
                    "AddQDQPairToWeight": True,
                },
            )
        except Exception as error:  # whatever its calibration meets
            raise EngineError(f"INT8 is not possible: {_first_line(error)}") from error
        return written.read_bytes()
