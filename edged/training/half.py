"""A model's graph with its network in FP16: precision is decided in the file, not in an engine.

From the first convolution to the feature maps everything is FP16; what comes before (the picture's
bytes, made floats and centred) and after (distances, calibration) stays FP32, since small
differences of large numbers are what it computes. Casts stand on that border and nowhere else.

Decision: done when an engine asks for it, from the FP32 graph that the trainer wrote and that every
model keeps: so there is one model, and a strongly typed TensorRT builds what stands here.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from edged.core.errors import ModelError
from edged.training.nodes import FEATURES, read_graph

SEEDS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Where FP16 begins."""
HALF = SEEDS | {
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Div", "Flatten",
    "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul",
    "Pad", "Relu", "Sigmoid", "Sub", "Transpose",
}  # fmt: skip
"""Operators all of whose float inputs may be FP16 together."""


def half_graph(model: bytes) -> bytes:
    """The graph with its network in FP16.

    Raises ModelError for a graph whose features are not named (of an older edged), or with a
    weight beyond FP16's range.
    """
    return _Halving(model).run()


class _Halving:
    """One conversion."""

    def __init__(self, model: bytes) -> None:
        self._onnx, self._model = read_graph(model)
        self._graph = self._model.graph
        known = {each.key: each.value for each in self._model.metadata_props}
        if FEATURES not in known:
            raise ModelError(
                "The graph does not say where its network ends: train the model again."
            )
        self._features: list[str] = json.loads(known[FEATURES])
        self._weights = {each.name: each for each in self._graph.initializer}
        self._float = self._floats()
        self._made: dict[str, str] = {}
        self._nodes: list[Any] = []

    def run(self) -> bytes:
        """The bytes of the new graph."""
        chosen = self._chosen()
        nodes = list(enumerate(self._graph.node))
        inside = {name for index, node in nodes if index in chosen for name in node.output}
        seen_outside = {each.name for each in self._graph.output}
        for index, node in nodes:
            if index not in chosen:
                seen_outside.update(node.input)
        for index, node in nodes:
            if index not in chosen:
                self._nodes.append(node)
                continue
            for place, name in enumerate(node.input):
                if name in inside and name in seen_outside:
                    node.input[place] = _half(name)
                elif name in self._float and name not in inside:
                    node.input[place] = self._halved(name)
            shared = [name for name in node.output if name in seen_outside]
            for place, name in enumerate(node.output):
                node.output[place] = _half(name) if name in shared else name
            self._nodes.append(node)
            for name in shared:
                self._cast(_half(name), name, self._onnx.TensorProto.FLOAT)
        return self._written()

    def _floats(self) -> set[str]:
        """Every float32 value of the graph, weights included."""
        kind = self._onnx.TensorProto.FLOAT
        graph = self._onnx.shape_inference.infer_shapes(self._model, strict_mode=True).graph
        values = [*graph.value_info, *graph.input, *graph.output]
        found = {each.name for each in values if each.type.tensor_type.elem_type == kind}
        return found | {name for name, each in self._weights.items() if each.data_type == kind}

    def _chosen(self) -> set[int]:
        """The nodes that become FP16, by their places in the graph."""
        needed = set(self._features)
        behind: list[tuple[int, Any]] = []
        for index, node in reversed(list(enumerate(self._graph.node))):
            if needed.intersection(node.output):
                needed.update(node.input)
                behind.append((index, node))
        begun: set[str] = set()
        chosen = set()
        for index, node in reversed(behind):
            if node.op_type not in SEEDS and not begun.intersection(node.input):
                continue
            begun.update(node.output)
            if node.op_type in HALF and all(name in self._float for name in node.output):
                chosen.add(index)
        return chosen

    def _halved(self, name: str) -> str:
        """The FP16 twin of a float32 value from outside: a weight is rounded, a tensor cast."""
        if name not in self._made:
            self._made[name] = _half(name)
            weight = self._weights.get(name)
            if weight is None:
                self._cast(name, _half(name), self._onnx.TensorProto.FLOAT16)
            else:
                array = self._onnx.numpy_helper.to_array(weight)
                with np.errstate(over="ignore"):
                    rounded = array.astype(np.float16)
                if not np.isfinite(rounded[np.isfinite(array)]).all():
                    raise ModelError(f"Weight {name} is beyond the range of FP16: use FP32.")
                self._graph.initializer.append(
                    self._onnx.numpy_helper.from_array(rounded, _half(name))
                )
        return self._made[name]

    def _cast(self, source: str, target: str, kind: int) -> None:
        node = self._onnx.helper.make_node(
            "Cast", [source], [target], name=f"cast_{target}", to=kind
        )
        self._nodes.append(node)

    def _written(self) -> bytes:
        nodes = [self._onnx.NodeProto.FromString(n.SerializeToString()) for n in self._nodes]
        del self._graph.node[:], self._graph.value_info[:]
        self._graph.node.extend(nodes)
        used = {name for node in nodes for name in node.input}
        kept = [each for each in self._graph.initializer if each.name in used]
        kept = [self._onnx.TensorProto.FromString(each.SerializeToString()) for each in kept]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)
        self._onnx.checker.check_model(self._model, full_check=True)
        return bytes(self._model.SerializeToString(deterministic=True))


def _half(name: str) -> str:
    return f"{name}_half"
