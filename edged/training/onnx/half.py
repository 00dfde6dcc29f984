"""A model's graph with its network in FP16: precision is decided in the file, not in an engine.

From the first convolutions to the feature maps everything is FP16; what comes before (the picture's
bytes, made floats and centred) and after (distances, calibration) stays FP32, since small
differences of large numbers are what it computes. Casts stand on that border and nowhere else.

Decision: done when an engine asks for it, from the FP32 graph that the trainer wrote and that every
model keeps: so there is one model, and a strongly typed TensorRT builds what stands here. Weights
are rounded by what the golden pictures show to a convolution (rounding.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import ModelError
from edged.core.protocols import FeatureExtractorLoader
from edged.core.types import Image
from edged.training.onnx.nodes import FEATURES, read_graph
from edged.training.onnx.rounding import Array, rounded

SEEDS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Where FP16 begins."""
HALF = SEEDS | {
    "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Div", "Flatten",
    "GlobalAveragePool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "MaxPool", "Mul",
    "Pad", "Relu", "Sigmoid", "Sub", "Transpose",
}  # fmt: skip
"""Operators all of whose float inputs may be FP16 together."""
FIRST = 6
"""Convolutions that stay FP32: all that follow make larger what they round (measured: half of a
score's error), and the network is narrow where they end."""


def half_graph(model: bytes, means: Mapping[str, Array] | None = None) -> bytes:
    """The graph with its network in FP16. means: see `input_means`; without, plainly rounded.

    Raises ModelError for a graph whose features are not named (of an older edged), or with a
    weight beyond FP16's range.
    """
    return _Halving(model, means or {}).run()


def convolutions(model: bytes) -> list[str]:
    """Names of the network's convolutions: what INT8 may have. Raises ModelError as above."""
    return [node.name for node in _Halving(model, {}).convolutions()]


def input_means(
    model: bytes, load: FeatureExtractorLoader, pictures: Sequence[Image]
) -> dict[str, Array]:
    """By convolution, the mean of each channel of its input over pictures (1, H, W, 3)."""
    halving = _Halving(model, {})
    inputs = {node.name: node.input[0] for node in halving.convolutions()}
    names = sorted(set(inputs.values()))
    runner = load(halving.showing(names))
    try:
        sums: dict[str, Array] = {}
        for picture in pictures:
            for name, found in zip(names, runner.run(picture), strict=True):
                sums[name] = sums.get(name, np.float32(0)) + found.mean(axis=(0, 2, 3))
    finally:
        runner.close()
    return {node: (sums[name] / len(pictures)).astype(np.float32) for node, name in inputs.items()}


class _Halving:
    """One conversion."""

    def __init__(self, model: bytes, means: Mapping[str, Array]) -> None:
        self._means = means
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
        for index, node in enumerate(self._graph.node):
            if index in chosen and node.name in self._means:
                self._round_filters(node)
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

    def convolutions(self) -> list[Any]:
        """The network's, in their order."""
        return [node for _, node in self.upstream() if node.op_type == "Conv"]

    def showing(self, names: Sequence[str]) -> bytes:
        """The graph with these values for its outputs."""
        kind = self._onnx.TensorProto.FLOAT
        del self._graph.output[:]
        for name in names:
            self._graph.output.append(self._onnx.helper.make_tensor_value_info(name, kind, None))
        return bytes(self._model.SerializeToString())

    def upstream(self) -> list[tuple[int, Any]]:
        """The nodes that the features need, in their order, with their places in the graph."""
        needed = set(self._features)
        found: list[tuple[int, Any]] = []
        for index, node in reversed(list(enumerate(self._graph.node))):
            if needed.intersection(node.output):
                needed.update(node.input)
                found.append((index, node))
        return found[::-1]

    def _chosen(self) -> set[int]:
        """The nodes that become FP16, by their places in the graph."""
        begun: set[str] = set()
        chosen = set()
        before = [node.name for node in self.convolutions()[:FIRST]]
        for index, node in self.upstream():
            if node.name in before:
                continue
            if node.op_type not in SEEDS and not begun.intersection(node.input):
                continue
            begun.update(node.output)
            if node.op_type in HALF and all(name in self._float for name in node.output):
                chosen.add(index)
        return chosen

    def _round_filters(self, node: Any) -> None:
        """A convolution's weights, before anything else asks for their FP16 twin."""
        array = self._onnx.numpy_helper.to_array
        name, means = node.input[1], self._means[node.name]
        bias = next((array(self._weights[each]) for each in node.input[2:3]), None)
        groups = next((each.i for each in node.attribute if each.name == "group"), 1)
        with np.errstate(over="ignore"):
            found = rounded(array(self._weights[name]), bias, means, groups)
        self._keep(name, found)

    def _keep(self, name: str, rounded: npt.NDArray[np.float16]) -> None:
        """An FP16 twin of a weight. Raises ModelError if it is beyond FP16's range."""
        exact = self._onnx.numpy_helper.to_array(self._weights[name])
        if not np.isfinite(rounded[np.isfinite(exact)]).all():
            raise ModelError(f"Weight {name} is beyond the range of FP16: use FP32.")
        self._made[name] = _half(name)
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(rounded, _half(name)))

    def _halved(self, name: str) -> str:
        """The FP16 twin of a float32 value from outside: a weight is rounded, a tensor cast."""
        if name not in self._made:
            weight = self._weights.get(name)
            if weight is None:
                self._made[name] = _half(name)
                self._cast(name, _half(name), self._onnx.TensorProto.FLOAT16)
            else:
                with np.errstate(over="ignore"):
                    plain = self._onnx.numpy_helper.to_array(weight).astype(np.float16)
                self._keep(name, plain)
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
