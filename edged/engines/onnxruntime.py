"""ONNX Runtime on the CPU. The one home of `onnxruntime`.

One session is shared by all units of a model; each unit's context owns its input buffer, and runs
overlap because ONNX Runtime lets go of the interpreter. Threads never spin: a spinning pool
starves the capture threads.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import Tuning
from edged.core.types import Image, ModelSpec, Prediction

try:
    import onnxruntime
except ImportError as error:
    raise MissingDependency("onnxruntime", "cpu", "The ONNX Runtime engine") from error


def _session(model: bytes | str, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class
        raise EngineError(f"ONNX Runtime cannot load the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]


class OnnxRuntimeEngine:
    """One unit's context; see core.protocols.Engine."""

    def __init__(self, session: Any, spec: ModelSpec, batch: int) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._name = session.get_inputs()[0].name
        self._input: Image = np.zeros((batch, spec.height, spec.width, 3), np.uint8)

    @property
    def input(self) -> Image:
        """uint8 (B, H, W, 3) BGR, this context's own."""
        return self._input

    def infer(self, count: int) -> Prediction:
        """Numbers for rows 0..count-1."""
        if self._session is None:
            raise EngineError("The engine is closed.")
        if not 1 <= count <= len(self._input):
            raise EngineError(f"A batch of {count} does not fit 1 to {len(self._input)}.")
        try:
            found = self._session.run(self._outputs, {self._name: self._input[:count]})
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {_first_line(error)}") from error
        named = dict(zip(self._outputs, found, strict=True))
        return Prediction(named["score"], named.get("map"), named.get("classes"))

    def close(self) -> None:
        """Let go of the session."""
        self._session = None


class OnnxRuntimeLoader:
    """A model on ONNX Runtime's CPU provider; see core.protocols.EngineLoader."""

    name = "onnxruntime cpu fp32"

    def __init__(self, model: Path, spec: ModelSpec, batch: int = 1) -> None:
        self._spec = spec
        self._batch = batch
        self._session = _session(str(model), threads=1)

    @property
    def tuning(self) -> Tuning:
        """One unit a core, each with one thread."""
        return Tuning(units=os.cpu_count() or 1, batch=self._batch)

    def open(self) -> OnnxRuntimeEngine:
        """A context that shares the session."""
        if self._session is None:
            raise EngineError("The model was closed: load it again.")
        return OnnxRuntimeEngine(self._session, self._spec, self._batch)

    def close(self) -> None:
        """Let go of the session; contexts that are still open keep it alive."""
        self._session = None


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
