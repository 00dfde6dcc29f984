"""Writes ONNX graphs node by node: the one home of the onnx library.

Owns naming, opset and serialisation. Knows no network and no scorer. What it writes depends on
nothing but what it was told: no clock, no random names, so equal calls give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import InvalidInput, MissingDependency, ModelError

if TYPE_CHECKING:
    import onnx
else:
    try:
        import onnx
        import onnx.compose
        import onnx.helper
        import onnx.numpy_helper
        import onnx.shape_inference
        import onnx.version_converter
    except ImportError:  # the message must name the extra, not the module
        onnx = None

OPSET = 17  # Resize with lists, Einsum, ReduceMean by attribute: what old TensorRT parses
IR_VERSION = 8  # runtimes of the opset's age refuse newer files
PRODUCER = "edged"

FEATURES = "edged.features"
"""Key of a model's metadata: the values where its network ends, as JSON."""

Tensor = str
"""The name of a value in the graph."""


def onnx_version() -> str:
    """The version of the onnx library. Raises MissingDependency."""
    return str(_onnx().__version__)


def _onnx() -> Any:
    if onnx is None:
        raise MissingDependency("onnx", "train", "Writing a model")
    return onnx


def read_graph(data: bytes) -> tuple[Any, Any]:
    """The onnx library, and a model of ours. Raises MissingDependency, ModelError."""
    library = _onnx()
    try:
        return library, library.load_model_from_string(data)
    except Exception as error:  # protobuf's own kinds
        raise ModelError(f"The graph cannot be read ({type(error).__name__}).") from error


class Foreign:
    """Somebody else's ONNX file, read and checked, to be included in a graph.

    Raises InvalidInput for what cannot be included, MissingDependency without onnx.
    """

    def __init__(self, data: bytes, name: str) -> None:
        """data: the file's bytes; name: what errors call it."""
        self._onnx = _onnx()
        try:
            model = self._onnx.load_model_from_string(data)
            self._onnx.checker.check_model(model)
        except Exception as error:  # protobuf and onnx each have several kinds
            first = str(error).strip().partition("\n")[0]
            raise InvalidInput(f"{name}: is no sound ONNX model ({first}).") from error
        if model.functions or any(node.domain not in ("", "ai.onnx") for node in model.graph.node):
            raise InvalidInput(
                f"{name}: uses operators outside standard ONNX: export it with standard ones only."
            )
        self.model = self._converted(model, name)
        graph = self.model.graph
        constants = {each.name for each in graph.initializer}
        inputs = [each for each in graph.input if each.name not in constants]
        if len(inputs) != 1:
            raise InvalidInput(f"{name}: has {len(inputs)} inputs; one, the picture, is needed.")
        self.input = str(inputs[0].name)
        kind = inputs[0].type.tensor_type
        self.input_type = str(self._onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        self.input_shape = [d.dim_value or None for d in kind.shape.dim]
        self.outputs = tuple(str(each.name) for each in graph.output)
        self.metadata = {p.key: p.value for p in self.model.metadata_props}

    def _converted(self, model: Any, name: str) -> Any:
        """The model at OPSET: a graph has one."""
        if all(each.version == OPSET for each in model.opset_import):
            return model
        try:
            return self._onnx.version_converter.convert_version(model, OPSET)
        except Exception as error:
            found = [each.version for each in model.opset_import]
            raise InvalidInput(
                f"{name}: has operator set {found}, which cannot be converted to {OPSET}: export "
                f"it with operator set {OPSET}."
            ) from error


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

    def include(self, foreign: Foreign, x: Tensor) -> tuple[Tensor, ...]:
        """Append a whole other graph, which takes `x`; its outputs."""
        prefix = self._fresh("included") + "/"
        graph = self._onnx.compose.add_prefix(foreign.model, prefix).graph
        entry = prefix + foreign.input
        self._nodes.append(self._onnx.helper.make_node("Identity", [x], [entry], name=entry))
        self._nodes.extend(graph.node)
        self._constants.extend(graph.initializer)
        return tuple(prefix + name for name in foreign.outputs)

    def floats(self, value: npt.ArrayLike, name: str = "w") -> Tensor:
        """A float32 constant."""
        return self._constant(np.array(value, dtype=np.float32, order="C"), name)

    def ints(self, *values: int) -> Tensor:
        """An int64 vector constant: shapes, axes, counts."""
        return self._constant(np.asarray(values, dtype=np.int64), "i")

    def serialise(
        self,
        outputs: Sequence[tuple[Tensor, Sequence[int | str]]],
        network: Sequence[Tensor] = (),
    ) -> bytes:
        """The model's bytes; every output is float32 of the given shape. Checked by onnx.

        network: the values where the network ends and the scorers begin, to be named in the file.
        """
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
        if network:
            self._onnx.helper.set_model_props(model, {FEATURES: json.dumps(list(network))})
        self._onnx.checker.check_model(model)
        return bytes(model.SerializeToString(deterministic=True))

    def _constant(self, array: npt.NDArray[Any], name: str) -> Tensor:
        label = self._fresh(name)
        self._constants.append(self._onnx.numpy_helper.from_array(array, label))
        return label

    def _fresh(self, stem: str) -> str:
        self._count += 1
        return f"{stem}_{self._count}"
