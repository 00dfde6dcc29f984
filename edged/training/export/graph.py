"""The whole model as one ONNX graph: a picture's bytes in, score and map out.

Owns the correspondence between the scorers' arithmetic and ONNX nodes. Fits nothing.
Everything is in the graph, so whoever runs the file anywhere gets the same verdict. Only
operators that TensorRT and OpenVINO build; no result depends on the other pictures of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edged.core.types import Floats
from edged.training.features import view as features
from edged.training.features.network import Size
from edged.training.features.view import View
from edged.training.figures.calibration import NORMAL_LOGIT, Calibration, Unit
from edged.training.onnx.nodes import Nodes, Tensor
from edged.training.scorers.bank import BANK_TOP, Bank
from edged.training.scorers.distances import (
    BLUR,
    POOLED_TOP,
    TOP,
    Gaussian,
    PositionGaussian,
    Supervised,
    blur_matrix,
    top_count,
)
from edged.training.scorers.ensemble import MAPS, Ensemble
from edged.training.scorers.segments import AROUND, MARK_TOP, Segments


@dataclass(frozen=True, slots=True)
class Fitted:
    """Everything that training learned.

    projection: (view.local, view.dimensions).
    map: the scorer whose distances are drawn, in units of pixel_limit.
    """

    projection: Floats
    scorers: Ensemble
    calibration: Calibration
    map: str
    pixel_limit: float


def model_graph(view: View, fitted: Fitted) -> bytes:
    """The model's bytes.

    Outputs: `score` float32 (N,) in 0..1; `map` float32 (N, 1, rows, columns), 1.0 = the pixel
    limit; with segments also `classes` float32 (N, K, rows, columns), 0.5 = the class's limit.
    """
    nodes = Nodes(*view.size)
    grid, positions = view.grid, view.positions
    maps = view.network.add(nodes)
    local = _projected(nodes, view, maps, fitted.projection)
    placed = _blurred(nodes, _placed(nodes, local, fitted.scorers.positions, grid), grid)
    white = _whitened(nodes, local, fitted.scorers.pooled)
    pooled = _norm(nodes, white, axis=1, keep=True)
    whole = features.add_whole(nodes, maps)
    raw = [
        _top_mean(nodes, placed, top_count(positions, TOP), positions),
        _top_mean(nodes, pooled, top_count(positions, POOLED_TOP), positions),
        _whole(nodes, view, whole, fitted.scorers.whole),
    ]
    if fitted.scorers.bank is not None:
        near = _blurred(nodes, _nearest(nodes, white, fitted.scorers.bank), grid)
        raw.append(_top_mean(nodes, near, top_count(positions, BANK_TOP), positions))
    if fitted.scorers.supervised is not None:
        raw.append(_supervised(nodes, view, whole, fitted.scorers.supervised))
    segments = fitted.scorers.segments
    logits = None if segments is None else _class_logits(nodes, white, segments, grid)
    if logits is not None:
        surest = nodes.add("ReduceMax", logits, axes=[1], keepdims=1)
        raw.append(_top_mean(nodes, surest, top_count(positions, MARK_TOP), positions))
    score = _calibrated(nodes, raw, fitted.calibration)
    shown = placed if fitted.map == MAPS[0] else _blurred(nodes, pooled, grid)
    limit = nodes.floats(1.0 / fitted.pixel_limit)
    if segments is None or logits is None:
        heat = nodes.add("Mul", shown, limit, name="map")
        return nodes.serialise([(score, ["N"]), (heat, ["N", 1, *grid])], maps)
    classes = nodes.add("Sigmoid", logits, name="classes")
    heat = _joined(nodes, classes, nodes.add("Mul", shown, limit))
    count = len(segments.bias)
    return nodes.serialise(
        [(score, ["N"]), (heat, ["N", 1, *grid]), (classes, ["N", count, *grid])], maps
    )


def _class_logits(nodes: Nodes, white: Tensor, segments: Segments, grid: Size) -> Tensor:
    """(N, K, rows, columns), 0 = the limit of the class."""
    around = _blurred(nodes, _projection(nodes, white, segments.weights[1]), grid, AROUND)
    logits = nodes.add("Add", _projection(nodes, white, segments.weights[0]), around)
    return nodes.add("Add", logits, nodes.floats(segments.bias[None, :, None, None]))


def _joined(nodes: Nodes, classes: Tensor, shown: Tensor) -> Tensor:
    """The map of a segmentation model: its classes, and at half strength what is only strange.

    A kind of defect that no mask showed must still glow where it is far beyond normal.
    """
    surest = nodes.add("ReduceMax", classes, axes=[1], keepdims=1)
    surest = nodes.add("Mul", surest, nodes.floats(2.0))
    return nodes.add("Max", surest, nodes.add("Mul", shown, nodes.floats(0.5)), name="map")


def _placed(nodes: Nodes, local: Tensor, fitted: PositionGaussian, grid: Size) -> Tensor:
    """Distances (N, 1, rows, columns) from what is normal at each position."""
    positions, dimensions = fitted.mean.shape
    centre = np.ascontiguousarray(fitted.mean.T).reshape(1, -1, *grid)
    off = nodes.add("Sub", local, nodes.floats(centre))
    off = nodes.add("Reshape", off, nodes.ints(-1, dimensions, positions))
    off = nodes.add("Transpose", off, perm=[2, 0, 1])  # (positions, N, dimensions)
    axes = fitted.axes
    along = nodes.add("MatMul", off, nodes.floats(axes * fitted.shrink[:, None, :]))
    known = nodes.add("MatMul", along, nodes.floats(axes.transpose(0, 2, 1)))
    # A difference of vectors, not of squares: safe in reduced precision.
    distance = _norm(nodes, nodes.add("Sub", off, known), axis=2)
    distance = nodes.add("Mul", distance, nodes.floats(fitted.scale[:, None]))
    distance = nodes.add("Transpose", distance, perm=[1, 0])
    return nodes.add("Reshape", distance, nodes.ints(-1, 1, *grid))


def _whitened(nodes: Nodes, local: Tensor, fitted: Gaussian) -> Tensor:
    """(N, D, rows, columns): the norm over D is the distance from what is normal anywhere."""
    # Centred before it is scaled: the differences are small beside what is subtracted.
    off = nodes.add("Sub", local, nodes.floats(fitted.mean[None, :, None, None]))
    return _projection(nodes, off, fitted.factor)


def _nearest(nodes: Nodes, white: Tensor, bank: Bank) -> Tensor:
    """Distances (N, 1, rows, columns) to the nearest remembered vector."""
    squares = (bank.rows**2).sum(axis=1)
    far = nodes.add(
        "Add",
        _projection(nodes, white, -2.0 * bank.rows.T),
        nodes.floats(squares[None, :, None, None]),
    )
    least = nodes.add("ReduceMin", far, axes=[1], keepdims=1)
    own = nodes.add("ReduceSum", nodes.add("Mul", white, white), nodes.ints(1), keepdims=1)
    return nodes.add("Sqrt", nodes.add("Max", nodes.add("Add", least, own), nodes.floats(0.0)))


def _blurred(nodes: Nodes, maps: Tensor, grid: Size, deviation: float = BLUR) -> Tensor:
    rows, columns = (blur_matrix(side, deviation) for side in grid)
    maps = nodes.add("MatMul", nodes.floats(rows), maps)
    return nodes.add("MatMul", maps, nodes.floats(columns.T))


def _projected(nodes: Nodes, view: View, maps: Sequence[Tensor], projection: Floats) -> Tensor:
    """Projected locals (N, D, rows, columns).

    The projection of the second map stands before its enlargement: the same, and it costs less.
    """
    split = view.joined[0]
    fine = _projection(nodes, maps[0], projection[:split])
    if len(view.joined) == 1:
        return fine
    second = _projection(nodes, maps[1], projection[split:])
    return nodes.add("Add", fine, features.add_enlarged(nodes, view, second))


def _projection(nodes: Nodes, x: Tensor, matrix: Floats) -> Tensor:
    kernel = np.ascontiguousarray(matrix.T)[:, :, None, None]
    return nodes.add("Conv", x, nodes.floats(kernel, "kernel"), kernel_shape=[1, 1])


def _top_mean(nodes: Nodes, maps: Tensor, count: int, positions: int) -> Tensor:
    flat = nodes.add("Reshape", maps, nodes.ints(-1, positions))
    largest = nodes.topk(flat, count)
    return nodes.add("ReduceMean", largest, axes=[1], keepdims=0)


def _whole(nodes: Nodes, view: View, whole: Tensor, scorer: Gaussian) -> Tensor:
    start, stop = view.statistics.start, view.statistics.stop
    part = nodes.add("Slice", whole, nodes.ints(start), nodes.ints(stop), nodes.ints(1))
    off = nodes.add("Sub", part, nodes.floats(scorer.mean))
    return _norm(nodes, nodes.add("MatMul", off, nodes.floats(scorer.factor)), axis=1)


def _supervised(nodes: Nodes, view: View, whole: Tensor, scorer: Supervised) -> Tensor:
    weights = np.zeros((view.whole, 1), np.float32)
    weights[view.supervised, 0] = scorer.weights
    logits = nodes.add("MatMul", whole, nodes.floats(weights))
    logits = nodes.add("Reshape", logits, nodes.ints(-1))
    return nodes.add("Add", logits, nodes.floats(scorer.bias))


def _norm(nodes: Nodes, x: Tensor, axis: int, keep: bool = False) -> Tensor:
    squares = nodes.add("Mul", x, x)
    squares = nodes.add("ReduceSum", squares, nodes.ints(axis), keepdims=int(keep))
    return nodes.add("Sqrt", squares)


def _calibrated(nodes: Nodes, raw: list[Tensor], calibration: Calibration) -> Tensor:
    terms = [_in_unit(nodes, r, u) for r, u in zip(raw, calibration.units, strict=True)]
    fused = terms[0]  # the first weighs 1
    for term, weight in zip(terms[1:], calibration.weights[1:], strict=True):
        weighted = term if weight == 1.0 else nodes.add("Mul", term, nodes.floats(weight))
        fused = nodes.add("Add", fused, weighted)
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
