"""What a picture looks like to the scorers: a grid of local vectors and one vector of the whole.

Owns the choice of taps, how they are joined, and the light augmentation. Fits nothing but the
projection that makes the local vectors small.

    local    (positions, LOCAL)   taps 4 and 10 on the grid of tap 4
    whole    (WHOLE,)             tap 15 mean, deviation and maximum, tap 10 mean and maximum
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats, Image
from edged.training import backbone
from edged.training.nodes import Nodes, Tensor

LOCAL = backbone.CHANNELS[backbone.FINE] + backbone.CHANNELS[backbone.MIDDLE]
COARSE = backbone.CHANNELS[backbone.COARSE]
MIDDLE = backbone.CHANNELS[backbone.MIDDLE]
STATISTICS = slice(0, 2 * COARSE)
"""Part of `whole` that the image-level Gaussian looks at: mean and deviation of tap 15."""
SUPERVISED = np.r_[0:COARSE, 2 * COARSE : 3 * COARSE + 2 * MIDDLE]
"""Part of `whole` that the supervised scorer looks at: mean and maximum of taps 15 and 10."""
WHOLE = 3 * COARSE + 2 * MIDDLE
DIMENSIONS = 96
WIDEST = 3.0  # a longer picture is squeezed to this ratio of its sides

GAIN, GAMMA, SHIFT = 0.1, 0.1, 0.012  # of brightness, of the exponent, of the side


Size: TypeAlias = tuple[int, int]
"""Height and width, in pixels or in positions of the grid."""


def grid(size: Size) -> Size:
    """Rows and columns of positions for an input of `size` pixels."""
    step = backbone.REDUCTION[backbone.FINE]
    return size[0] // step, size[1] // step


def input_size(side: int, shapes: Sequence[Size]) -> Size:
    """The input for pictures of these (height, width): their shape, about side x side pixels.

    A picture squeezed into a square loses in one direction what the network could see.
    """
    ratio = float(np.median([height / width for height, width in shapes]))
    ratio = min(max(ratio, 1 / WIDEST), WIDEST)
    step = backbone.MULTIPLE
    height = max(1, round(side * ratio**0.5 / step)) * step
    width = max(1, round(side / ratio**0.5 / step)) * step
    return height, width


def add_whole(nodes: Nodes, taps: dict[int, Tensor]) -> Tensor:
    """Append the vector of the whole picture: (N, WHOLE)."""
    coarse, middle = taps[backbone.COARSE], taps[backbone.MIDDLE]
    mean = nodes.add("GlobalAveragePool", coarse)
    off = nodes.add("Sub", coarse, mean)
    variance = nodes.add("GlobalAveragePool", nodes.add("Mul", off, off))
    parts = [
        mean,
        nodes.add("Sqrt", variance),
        nodes.add("ReduceMax", coarse, axes=[2, 3], keepdims=1),
        nodes.add("GlobalAveragePool", middle),
        nodes.add("ReduceMax", middle, axes=[2, 3], keepdims=1),
    ]
    return nodes.add("Flatten", nodes.add("Concat", *parts, axis=1), axis=1)


def add_doubling(nodes: Nodes, x: Tensor) -> Tensor:
    """Append a linear enlargement to twice the side: from tap 10's grid to tap 4's."""
    scales = nodes.floats([1.0, 1.0, 2.0, 2.0], "scales")
    return nodes.add(
        "Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )


def feature_graph(size: Size) -> bytes:
    """The network as training runs it: outputs local (N, LOCAL, g, g) and whole (N, WHOLE)."""
    nodes = Nodes(*size)
    taps = backbone.add_backbone(nodes, backbone.pretrained())
    middle = add_doubling(nodes, taps[backbone.MIDDLE])
    local = nodes.add("Concat", taps[backbone.FINE], middle, axis=1)
    whole = add_whole(nodes, taps)
    return nodes.serialise([(local, ["N", LOCAL, *grid(size)]), (whole, ["N", WHOLE])])


def positions_first(local: Floats) -> Floats:
    """(N, LOCAL, g, g) -> (N, positions, LOCAL)."""
    return np.asarray(local.reshape(*local.shape[:2], -1).transpose(0, 2, 1))


class ProjectionFit:
    """Principal axes of local vectors, from sums: any number of pictures, constant memory."""

    def __init__(self) -> None:
        self._count = 0
        self._sum = np.zeros(LOCAL)
        self._products = np.zeros((LOCAL, LOCAL))

    def add(self, local: Floats) -> None:
        """Take in (N, positions, LOCAL)."""
        rows = local.reshape(-1, LOCAL).astype(np.float64)
        self._count += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    def solve(self) -> Floats:
        """The projection (LOCAL, DIMENSIONS), columns by falling variance, signs fixed."""
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        _, axes = np.linalg.eigh(covariance)
        return fixed_signs(axes[:, ::-1][:, :DIMENSIONS]).astype(np.float32)


def fixed_signs(columns: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Turn each column so that its largest entry is positive: one form of many equal ones."""
    largest = np.argmax(np.abs(columns), axis=-2, keepdims=True)
    signs = np.sign(np.take_along_axis(columns, largest, axis=-2))
    return np.asarray(columns * np.where(signs == 0, 1, signs))


def augmented(image: Image, rng: np.random.Generator) -> Image:
    """A copy as the next hour may show it: a little brighter or darker, a little moved."""
    gain = rng.uniform(1 - GAIN, 1 + GAIN)
    gamma = rng.uniform(1 - GAMMA, 1 + GAMMA)
    levels = np.clip(255.0 * gain * (np.arange(256) / 255.0) ** gamma, 0, 255)
    limit = max(1, round(SHIFT * min(image.shape[:2])))
    down, right = rng.integers(-limit, limit + 1, 2)
    rows = np.clip(np.arange(image.shape[0]) + down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) + right, 0, image.shape[1] - 1)
    return np.ascontiguousarray(np.rint(levels).astype(np.uint8)[image[rows][:, columns]])
