"""The graph with its network in FP16: the same verdicts, casts on the border, FP32 beyond it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from edged.core.errors import ModelError
from edged.engines import choose
from edged.tools.plan_build import golden_pictures
from edged.training.onnx.half import FIRST, half_graph, input_means
from edged.training.onnx.nodes import FEATURES, Nodes
from edged.training.onnx.rounding import rounded
from edged.wire import imaging
from edged.wire.spec import read_spec

LARGEST_ERROR = 1e-3
"""Of a score, relative to the largest score of the set."""


def session(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])


def kinds(model: bytes) -> dict[str, int]:
    """The type of every value that a node makes."""
    graph = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    return {v.name: v.type.tensor_type.elem_type for v in [*graph.value_info, *graph.output]}


def test_scores_and_verdicts_stay_and_the_network_alone_is_half(model: Path, parts: Path) -> None:
    spec, full = read_spec(model), (model / "model.onnx").read_bytes()
    means = input_means(full, choose.extractor, golden_pictures(model, spec))
    half = half_graph(full, means)
    one, other = session(full), session(half)
    largest = highest = 0.0
    for path in sorted(parts.rglob("*.png")):
        row = np.empty((1, spec.height, spec.width, 3), np.uint8)
        imaging.resize_into(imaging.read(path), row[0])
        a, b = (s.run(["score"], {"image": row})[0][0] for s in (one, other))
        assert (a >= spec.threshold) == (b >= spec.threshold), path
        largest, highest = max(largest, abs(float(a) - float(b))), max(highest, float(a))
    print(f"largest relative error of a score: {largest / highest:.2e}")
    assert largest / highest <= LARGEST_ERROR
    graph = onnx.load_model_from_string(half).graph
    known = kinds(half)
    convs = [n for n in graph.node if n.op_type == "Conv"]
    halves = [n for n in convs if known[n.output[0]] == onnx.TensorProto.FLOAT16]
    assert len(halves) > 40 and len(convs) > len(halves)  # the projections are not among them
    ends = set(onnx_features(full))
    casts = Counter(n.attribute[0].i for n in graph.node if n.op_type == "Cast")
    assert casts[onnx.TensorProto.FLOAT16] == 1 and casts[onnx.TensorProto.FLOAT] == len(ends) + 1
    assert all(known[name] == onnx.TensorProto.FLOAT for name in ends)
    assert half_graph(full, means) == half  # equal graphs give equal bytes
    assert len(half) < 0.85 * len(full)


def onnx_features(model: bytes) -> list[str]:
    import json

    props = {p.key: p.value for p in onnx.load_model_from_string(model).metadata_props}
    found: list[str] = json.loads(props[FEATURES])
    return found


def tiny(weight: float, named: bool = True) -> bytes:
    """A graph whose last convolution's output is both a feature and an output of the graph."""
    nodes = Nodes(4, 4)
    x = nodes.add("Transpose", nodes.add("Cast", nodes.image, to=1), perm=[0, 3, 1, 2])
    for _ in range(FIRST):
        through = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
        x = nodes.add("Conv", x, nodes.floats(through), kernel_shape=[1, 1])
    kernel = np.full((1, 3, 1, 1), weight, np.float32)
    x = nodes.add("Conv", x, nodes.floats(kernel), kernel_shape=[1, 1])
    y = nodes.add("Relu", x, name="map")
    return nodes.serialise([(y, ["N", 1, 4, 4])], [y] if named else [])


def test_a_feature_that_is_an_output_too_stays_fp32_outside() -> None:
    half = half_graph(tiny(0.5))
    image = np.full((2, 4, 4, 3), 8, np.uint8)
    (found,) = session(half).run(None, {"image": image})
    assert found.dtype == np.float32 and np.all(found == 12.0)


def test_what_cannot_become_half_is_a_sentence() -> None:
    with pytest.raises(ModelError, match="beyond the range of FP16"):
        half_graph(tiny(1e6))
    with pytest.raises(ModelError, match="train the model again"):
        half_graph(tiny(0.5, named=False))
    with pytest.raises(ModelError, match="cannot be read"):
        half_graph(b"no graph")


def test_what_rounding_shifts_is_taken_back_by_the_other_weights() -> None:
    chance = np.random.default_rng(3)
    for groups, depth in ((1, 24), (24, 1)):
        weights = chance.standard_normal((24, depth, 3, 3)).astype(np.float32)
        bias = chance.standard_normal(24).astype(np.float32)
        means = chance.uniform(0.1, 2, 24).astype(np.float32)
        means[5] = 0.0  # of a channel that never is anything
        half = rounded(weights, bias, means, groups)
        assert half.dtype == np.float16 and half.shape == weights.shape
        steps = np.spacing(np.abs(weights).astype(np.float16)).astype(np.float32)
        assert (np.abs(half - weights) <= 2 * steps).all()

        def shift(kind: np.ndarray, add: np.ndarray) -> np.ndarray:
            inputs = means[np.arange(24)[:, None] // (24 // groups) * depth + np.arange(depth)]  # noqa: B023
            return (kind.astype(np.float64).sum((2, 3)) * inputs).sum(1) + add.astype(np.float64)

        exact = shift(weights, bias)
        plain = np.abs(shift(weights.astype(np.float16), bias.astype(np.float16)) - exact)
        ours = np.abs(shift(half, bias.astype(np.float16)) - exact)
        assert np.median(ours) < 0.1 * np.median(plain) and ours.max() < plain.max()
