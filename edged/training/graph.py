"""The whole model as one ONNX graph: a picture's bytes in, score and map out.

Owns the correspondence between scorers.py's arithmetic and ONNX nodes. Fits nothing.
Everything is in the graph, so whoever runs the file anywhere gets the same verdict. Only
operators that TensorRT and OpenVINO build; no result depends on the other pictures of a batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edged.core.types import Floats
from edged.training import backbone, features
from edged.training.calibration import NORMAL_LOGIT, Calibration, Unit
from edged.training.nodes import Nodes, Tensor
from edged.training.scorers import (
    PositionGaussian,
    Supervised,
    WholeGaussian,
    blur_matrix,
    top_count,
)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Everything that training learned. projection: (LOCAL, DIMENSIONS)."""

    projection: Floats
    positions: PositionGaussian
    whole: WholeGaussian
    supervised: Supervised | None
    calibration: Calibration
    pixel_limit: float


def model_graph(size: int, fitted: Fitted) -> bytes:
    """The model's bytes: `score` float32 (N,) in 0..1 and `map` float32 (N, 1, g, g)."""
    nodes = Nodes(size, size)
    taps = backbone.add_backbone(nodes, backbone.pretrained())
    maps = _maps(nodes, taps, fitted, features.grid(size))
    whole = features.add_whole(nodes, taps)
    raw = [_top_mean(nodes, maps, features.grid(size) ** 2), _whole(nodes, whole, fitted.whole)]
    if fitted.supervised is not None:
        raw.append(_supervised(nodes, whole, fitted.supervised))
    score = _calibrated(nodes, raw, fitted.calibration)
    heat = nodes.add("Mul", maps, nodes.floats(1.0 / fitted.pixel_limit), name="map")
    side = features.grid(size)
    return nodes.serialise([(score, ["N"]), (heat, ["N", 1, side, side])])


def _maps(nodes: Nodes, taps: dict[int, Tensor], fitted: Fitted, side: int) -> Tensor:
    """Blurred distances (N, 1, g, g)."""
    off = _projected(nodes, taps, fitted.projection, fitted.positions.mean, side)
    positions, dimensions = fitted.positions.mean.shape
    off = nodes.add("Reshape", off, nodes.ints(-1, dimensions, positions))
    off = nodes.add("Transpose", off, perm=[2, 0, 1])  # (positions, N, dimensions)
    axes = fitted.positions.axes
    along = nodes.add("MatMul", off, nodes.floats(axes * fitted.positions.shrink[:, None, :]))
    known = nodes.add("MatMul", along, nodes.floats(axes.transpose(0, 2, 1)))
    # A difference of vectors, not of squares: safe in reduced precision.
    distance = _norm(nodes, nodes.add("Sub", off, known), axis=2)
    distance = nodes.add("Mul", distance, nodes.floats(fitted.positions.scale[:, None]))
    distance = nodes.add("Transpose", distance, perm=[1, 0])
    maps = nodes.add("Reshape", distance, nodes.ints(-1, 1, side, side))
    matrix = blur_matrix(side)
    maps = nodes.add("MatMul", nodes.floats(matrix), maps)
    return nodes.add("MatMul", maps, nodes.floats(matrix.T))


def _projected(
    nodes: Nodes, taps: dict[int, Tensor], projection: Floats, mean: Floats, side: int
) -> Tensor:
    """Projected locals less their mean, (N, D, g, g).

    The projection of tap 10 stands before the enlargement, which is the same and costs less.
    """
    split = backbone.CHANNELS[backbone.FINE]
    fine = _projection(nodes, taps[backbone.FINE], projection[:split])
    middle = _projection(nodes, taps[backbone.MIDDLE], projection[split:])
    local = nodes.add("Add", fine, features.add_doubling(nodes, middle))
    centre = np.ascontiguousarray(mean.T).reshape(1, -1, side, side)
    return nodes.add("Sub", local, nodes.floats(centre))


def _projection(nodes: Nodes, x: Tensor, matrix: Floats) -> Tensor:
    kernel = np.ascontiguousarray(matrix.T)[:, :, None, None]
    return nodes.add("Conv", x, nodes.floats(kernel, "kernel"), kernel_shape=[1, 1])


def _top_mean(nodes: Nodes, maps: Tensor, positions: int) -> Tensor:
    flat = nodes.add("Reshape", maps, nodes.ints(-1, positions))
    largest = nodes.topk(flat, top_count(positions))
    return nodes.add("ReduceMean", largest, axes=[1], keepdims=0)


def _whole(nodes: Nodes, whole: Tensor, scorer: WholeGaussian) -> Tensor:
    start, stop = features.STATISTICS.start, features.STATISTICS.stop
    part = nodes.add("Slice", whole, nodes.ints(start), nodes.ints(stop), nodes.ints(1))
    off = nodes.add("Sub", part, nodes.floats(scorer.mean))
    return _norm(nodes, nodes.add("MatMul", off, nodes.floats(scorer.factor)), axis=1)


def _supervised(nodes: Nodes, whole: Tensor, scorer: Supervised) -> Tensor:
    weights = np.zeros((features.WHOLE, 1), np.float32)
    weights[features.SUPERVISED, 0] = scorer.weights
    logits = nodes.add("MatMul", whole, nodes.floats(weights))
    logits = nodes.add("Reshape", logits, nodes.ints(-1))
    return nodes.add("Add", logits, nodes.floats(scorer.bias))


def _norm(nodes: Nodes, x: Tensor, axis: int) -> Tensor:
    squares = nodes.add("ReduceSum", nodes.add("Mul", x, x), nodes.ints(axis), keepdims=0)
    return nodes.add("Sqrt", squares)


def _calibrated(nodes: Nodes, raw: list[Tensor], calibration: Calibration) -> Tensor:
    terms = [_in_unit(nodes, r, u) for r, u in zip(raw, calibration.units, strict=True)]
    fused = terms[0]
    for term in terms[1:]:
        fused = nodes.add("Add", fused, term)
    above = nodes.add("Sub", fused, nodes.floats(calibration.limit))
    logit = nodes.add("Mul", above, nodes.floats(calibration.slope))
    for term, guard in zip(terms, calibration.guards, strict=False):
        beyond = nodes.add("Sub", term, nodes.floats(guard))
        beyond = nodes.add("Mul", beyond, nodes.floats(NORMAL_LOGIT / guard))
        logit = nodes.add("Max", logit, beyond)
    return nodes.add("Sigmoid", logit, name="score")


def _in_unit(nodes: Nodes, raw: Tensor, unit: Unit) -> Tensor:
    off = nodes.add("Sub", raw, nodes.floats(unit.centre))
    off = nodes.add("Mul", off, nodes.floats(1.0 / unit.deviation))
    size = nodes.add("Log", nodes.add("Add", nodes.add("Abs", off), nodes.floats(1.0)))
    return nodes.add("Mul", nodes.add("Sign", off), size)
