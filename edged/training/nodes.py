"""Writes ONNX graphs node by node: the one home of the onnx library.

Owns naming, opset and serialisation. Knows no network and no scorer. What it writes depends on
nothing but what it was told: no clock, no random names, so equal calls give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import MissingDependency

if TYPE_CHECKING:
    import onnx
else:
    try:
        import onnx
        import onnx.helper
        import onnx.numpy_helper
    except ImportError:  # the message must name the extra, not the module
        onnx = None

OPSET = 17  # Resize with lists, Einsum, ReduceMean by attribute: what old TensorRT parses
IR_VERSION = 8  # runtimes of the opset's age refuse newer files
PRODUCER = "edged"

Tensor = str
"""The name of a value in the graph."""


def onnx_version() -> str:
    """The version of the onnx library. Raises MissingDependency."""
    return str(_onnx().__version__)


def _onnx() -> Any:
    if onnx is None:
        raise MissingDependency("onnx", "train", "Writing a model")
    return onnx


class Nodes:
    """A graph under construction. Raises MissingDependency at construction without onnx.

    The input is always `image`, uint8 (N, height, width, 3) BGR.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height = height
        self.width = width
        self._onnx = _onnx()
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._count = 0

    @property
    def image(self) -> Tensor:
        """The graph's input."""
        return "image"

    def add(self, op: str, *inputs: Tensor, name: str | None = None, **attributes: Any) -> Tensor:
        """Append a node with one output and return the output's name."""
        output = name or self._fresh(op.lower())
        node = self._onnx.helper.make_node(op, list(inputs), [output], name=output, **attributes)
        self._nodes.append(node)
        return output

    def topk(self, values: Tensor, k: int) -> Tensor:
        """The k largest values along the last axis."""
        base = self._fresh("topk")
        count = self.ints(k)
        node = self._onnx.helper.make_node(
            "TopK", [values, count], [base, f"{base}_at"], name=base, axis=-1, largest=1, sorted=1
        )
        self._nodes.append(node)
        return base

    def floats(self, value: npt.ArrayLike, name: str = "w") -> Tensor:
        """A float32 constant."""
        return self._constant(np.array(value, dtype=np.float32, order="C"), name)

    def ints(self, *values: int) -> Tensor:
        """An int64 vector constant: shapes, axes, counts."""
        return self._constant(np.asarray(values, dtype=np.int64), "i")

    def serialise(self, outputs: Sequence[tuple[Tensor, Sequence[int | str]]]) -> bytes:
        """The model's bytes; every output is float32 of the given shape. Checked by onnx."""
        helper, types = self._onnx.helper, self._onnx.TensorProto
        image = helper.make_tensor_value_info(
            self.image, types.UINT8, ["N", self.height, self.width, 3]
        )
        results = [helper.make_tensor_value_info(n, types.FLOAT, list(s)) for n, s in outputs]
        graph = helper.make_graph(self._nodes, "edged", [image], results, self._constants)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name=PRODUCER,
        )
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _constant(self, array: npt.NDArray[Any], name: str) -> Tensor:
        label = self._fresh(name)
        self._constants.append(self._onnx.numpy_helper.from_array(array, label))
        return label

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
