"""What a picture looks like to the scorers: a grid of local vectors and one vector of the whole.

Owns the choice of taps, how they are joined, and the light augmentation. Fits nothing but the
projection that makes the local vectors small.

    local    (positions, view.local)   the two finest maps, on the grid of the finest
    whole    (view.whole,)             coarsest map: mean, deviation, maximum; next: mean, maximum
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats, Image
from edged.training.features.network import Network, Size
from edged.training.onnx.nodes import Nodes, Tensor

DIMENSIONS = 96
WIDEST = 3.0  # a longer picture is squeezed to this ratio of its sides

GAIN, GAMMA, SHIFT = 0.1, 0.1, 0.012  # of brightness, of the exponent, of the side
NOISE = 3.0  # of 255: the largest deviation of a sensor's noise
AUGMENTATION = (GAIN, GAMMA, SHIFT, NOISE)


@dataclass(frozen=True, slots=True)
class View:
    """A network at one input size, and the shapes of what it gives."""

    network: Network
    size: Size

    @property
    def grid(self) -> Size:
        """Rows and columns of positions."""
        step = self.network.reductions[0]
        return self.size[0] // step, self.size[1] // step

    @property
    def positions(self) -> int:
        """How many positions the grid has."""
        return self.grid[0] * self.grid[1]

    @property
    def joined(self) -> tuple[int, ...]:
        """Channels of the maps that make a local vector: of the two finest."""
        return self.network.channels[:2]

    @property
    def local(self) -> int:
        """Length of a local vector."""
        return sum(self.joined)

    @property
    def dimensions(self) -> int:
        """Length of a projected local vector."""
        return min(DIMENSIONS, self.local)

    @property
    def whole(self) -> int:
        """Length of the vector of the whole picture."""
        return 3 * self._coarse + 2 * self._middle

    @property
    def statistics(self) -> slice:
        """Part of `whole` that the image-level Gaussian looks at: coarse mean and deviation."""
        return slice(0, 2 * self._coarse)

    @property
    def supervised(self) -> npt.NDArray[np.int64]:
        """Part of `whole` that the supervised scorer looks at: means and maxima."""
        return np.asarray(np.r_[0 : self._coarse, 2 * self._coarse : self.whole], np.int64)

    @property
    def _coarse(self) -> int:
        return self.network.channels[-1]

    @property
    def _middle(self) -> int:
        return self.network.channels[-2] if len(self.network.channels) > 1 else 0


def input_size(side: int, shapes: Sequence[Size], network: Network) -> Size:
    """The input for pictures of these (height, width): their shape, about side x side pixels.

    A picture squeezed into a square loses in one direction what the network could see.
    """
    if network.fixed is not None:
        return network.fixed
    ratio = float(np.median([height / width for height, width in shapes]))
    ratio = min(max(ratio, 1 / WIDEST), WIDEST)
    step = network.multiple
    height = max(1, round(side * ratio**0.5 / step)) * step
    width = max(1, round(side / ratio**0.5 / step)) * step
    return height, width


def add_whole(nodes: Nodes, maps: Sequence[Tensor]) -> Tensor:
    """Append the vector of the whole picture: (N, view.whole)."""
    coarse = maps[-1]
    mean = nodes.add("GlobalAveragePool", coarse)
    off = nodes.add("Sub", coarse, mean)
    variance = nodes.add("GlobalAveragePool", nodes.add("Mul", off, off))
    parts = [
        mean,
        nodes.add("Sqrt", variance),
        nodes.add("ReduceMax", coarse, axes=[2, 3], keepdims=1),
    ]
    for middle in maps[-2:-1]:
        parts.append(nodes.add("GlobalAveragePool", middle))
        parts.append(nodes.add("ReduceMax", middle, axes=[2, 3], keepdims=1))
    return nodes.add("Flatten", nodes.add("Concat", *parts, axis=1), axis=1)


def add_enlarged(nodes: Nodes, view: View, x: Tensor) -> Tensor:
    """Append a linear enlargement of the second map, or what has its grid, to the finest grid."""
    fine, second = view.network.reductions[:2]
    if fine == second:
        return x
    scales = nodes.floats([1.0, 1.0, second / fine, second / fine], "scales")
    return nodes.add(
        "Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel"
    )


def feature_graph(view: View) -> bytes:
    """The network as training runs it: local (N, view.local, rows, columns), whole (N, whole)."""
    nodes = Nodes(*view.size)
    maps = view.network.add(nodes)
    parts = [maps[0], *(add_enlarged(nodes, view, each) for each in maps[1:2])]
    local = nodes.add("Concat", *parts, axis=1)
    whole = add_whole(nodes, maps)
    return nodes.serialise([(local, ["N", view.local, *view.grid]), (whole, ["N", view.whole])])


def positions_first(local: Floats) -> Floats:
    """(N, local, rows, columns) -> (N, positions, local)."""
    return np.asarray(local.reshape(*local.shape[:2], -1).transpose(0, 2, 1))


class ProjectionFit:
    """Principal axes of local vectors, from sums: any number of pictures, constant memory."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._count = 0
        self._sum = np.zeros(view.local)
        self._products = np.zeros((view.local, view.local))

    def add(self, local: Floats) -> None:
        """Take in (N, positions, local)."""
        rows = local.reshape(-1, self._view.local).astype(np.float64)
        self._count += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    def solve(self) -> Floats:
        """The projection (local, dimensions), columns by falling variance, signs fixed."""
        mean = self._sum / self._count
        covariance = self._products / self._count - np.outer(mean, mean)
        _, axes = np.linalg.eigh(covariance)
        return fixed_signs(axes[:, ::-1][:, : self._view.dimensions]).astype(np.float32)


def fixed_signs(columns: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Turn each column so that its largest entry is positive: one form of many equal ones."""
    largest = np.argmax(np.abs(columns), axis=-2, keepdims=True)
    signs = np.sign(np.take_along_axis(columns, largest, axis=-2))
    return np.asarray(columns * np.where(signs == 0, 1, signs))


def augmented(image: Image, rng: np.random.Generator) -> Image:
    """A copy as the next hour may show it: other light, a little moved, a little noisier."""
    gain = rng.uniform(1 - GAIN, 1 + GAIN)
    gamma = rng.uniform(1 - GAMMA, 1 + GAMMA)
    levels = np.clip(255.0 * gain * (np.arange(256) / 255.0) ** gamma, 0, 255)
    limit = max(1, round(SHIFT * min(image.shape[:2])))
    down, right = rng.integers(-limit, limit + 1, 2)
    rows = np.clip(np.arange(image.shape[0]) + down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) + right, 0, image.shape[1] - 1)
    lit = levels.astype(np.float32)[image[rows][:, columns]]
    noise = rng.standard_normal(lit.shape, np.float32) * np.float32(rng.uniform(0, NOISE))
    return np.ascontiguousarray(np.clip(np.rint(lit + noise), 0, 255).astype(np.uint8))
