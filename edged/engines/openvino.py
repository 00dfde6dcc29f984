"""OpenVINO on the CPU. The one home of `openvino`.

The compiled model is shared; each unit owns an infer request and its input buffer. The batch is
fixed in the compiled model (measured: 9 to 20 % faster than a dynamic one), a partial batch runs
whole and is cut.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edged.core.errors import EngineError, MissingDependency
from edged.core.protocols import ALONE, Tuning
from edged.core.types import Image, ModelSpec, Prediction

# Its import would load what reports to its maker, and does without where that cannot be loaded:
# what a line makes is nobody else's business.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

try:
    import openvino
except Exception as error:
    raise MissingDependency("openvino", "openvino", "The OpenVINO engine", error) from error


class OpenVinoEngine:
    """One unit's context; see core.protocols.Engine."""

    def __init__(self, compiled: Any, spec: ModelSpec, batch: int) -> None:
        self._request = compiled.create_infer_request()
        self._names = [output.get_any_name() for output in compiled.outputs]
        self._input: Image = np.zeros((batch, spec.height, spec.width, 3), np.uint8)
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))

    @property
    def input(self) -> Image:
        """uint8 (B, H, W, 3) BGR, this context's own and the request's tensor."""
        return self._input

    def infer(self, count: int) -> Prediction:
        """Numbers for rows 0..count-1, copied out of the request's tensors."""
        if self._request is None:
            raise EngineError("The engine is closed.")
        if not 1 <= count <= len(self._input):
            raise EngineError(f"A batch of {count} does not fit 1 to {len(self._input)}.")
        try:
            self._request.infer()
            named = {
                name: self._request.get_output_tensor(index).data[:count].astype(np.float32)
                for index, name in enumerate(self._names)
            }
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {str(error).splitlines()[0]}") from error
        return Prediction(named["score"], named.get("map"), named.get("classes"))

    def close(self) -> None:
        """Free the request."""
        self._request = None


class OpenVinoLoader:
    """A model on OpenVINO's CPU device; see core.protocols.EngineLoader."""

    def __init__(
        self, model: Path, spec: ModelSpec, tuning: Tuning = ALONE, precision: str = "f32"
    ) -> None:
        """precision: `f32` or, where the CPU computes in it, `bf16`. Raises EngineError.

        tuning: there are as many streams as units, which share the cores.
        """
        self.name = f"openvino cpu {'fp32' if precision == 'f32' else precision}"
        self.tuning = tuning
        self._spec = spec
        try:
            core = openvino.Core()
            if precision == "bf16" and "BF16" not in core.get_property(
                "CPU", "OPTIMIZATION_CAPABILITIES"
            ):
                raise EngineError("This CPU does not compute in bfloat16: use engine openvino.")
            network = core.read_model(str(model))
            network.reshape([self.tuning.batch, spec.height, spec.width, 3])
            hints = {
                "NUM_STREAMS": str(self.tuning.units),
                "INFERENCE_NUM_THREADS": str(self.tuning.units * self.tuning.threads),
                "INFERENCE_PRECISION_HINT": precision,
            }
            self._compiled: Any = core.compile_model(network, "CPU", hints)
        except RuntimeError as error:
            text = str(error).strip().splitlines()[-1][:300]
            raise EngineError(f"OpenVINO cannot load the model: {text}") from error

    def open(self) -> OpenVinoEngine:
        """A context with its own infer request."""
        if self._compiled is None:
            raise EngineError("The model was closed: load it again.")
        try:
            return OpenVinoEngine(self._compiled, self._spec, self.tuning.batch)
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed: {str(error).splitlines()[0]}") from error

    def close(self) -> None:
        """Let go of the compiled model."""
        self._compiled = None
