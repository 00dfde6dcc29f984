"""Another backbone, given as an ONNX file: checked once, then copied into the model's graph.

Owns the contract of such a file and the sentences for what breaks it:

    input    one picture batch; uint8 (N, H, W, 3) BGR as a camera gives it, or float32
             (N, 3, H, W) RGB of 0..255 less `mean`, divided by `std`: the file's metadata must
             then hold both, each one number or three, separated by commas
    output   one to three maps of features, float32 (N, C, h, w), from fine to coarse
    sides    H and W fixed, or free; free ones are tried at two sizes, so that each map's
             reduction (pixels for one position) is known and whole

The whole file goes into `model.onnx`, so who runs the model needs nothing else.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edged.core.errors import EngineError, InvalidInput
from edged.core.protocols import FeatureExtractorLoader
from edged.core.types import Floats
from edged.training.features.network import Network, Size
from edged.training.onnx.nodes import Foreign, Nodes, Tensor

MOST_MAPS = 3
TRIED: tuple[Size, ...] = ((224, 224), (224, 448))
"""Sizes at which a network of free size is tried; multiples of 14, 16 and 32."""


@dataclass(frozen=True, slots=True)
class OnnxNetwork:
    """A `network.Network` from an ONNX file; see `load_network`."""

    name: str
    sha256: str
    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    multiple: int
    fixed: Size | None
    foreign: Foreign
    mean: Floats | None
    std: Floats | None
    """Per channel, RGB; None when the file takes the camera's bytes."""

    def add(self, nodes: Nodes) -> tuple[Tensor, ...]:
        """Append the network."""
        return nodes.include(self.foreign, _prepared(nodes, self.mean, self.std))


def load_network(path: Path, load: FeatureExtractorLoader) -> Network:
    """Read, check and try the file; runs it on one or two blank pictures.

    Raises InvalidInput with what the file breaks of the contract, and MissingDependency.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror}).") from error
    foreign = Foreign(data, str(path))
    takes_bytes = foreign.input_type == "uint8"
    if not takes_bytes and foreign.input_type != "float32":
        raise InvalidInput(
            f"{path}: its input is {foreign.input_type}; uint8 (N, H, W, 3) or float32 "
            "(N, 3, H, W) is needed."
        )
    _check_shape(path, foreign.input_shape, 3 if takes_bytes else 1)
    mean, std = (None, None) if takes_bytes else _normalisation(path, foreign)
    sides = foreign.input_shape[1:3] if takes_bytes else foreign.input_shape[2:4]
    fixed = _fixed(path, sides)
    if not 1 <= len(foreign.outputs) <= MOST_MAPS:
        raise InvalidInput(
            f"{path}: has {len(foreign.outputs)} outputs; one to {MOST_MAPS} maps of features, "
            "from fine to coarse, are needed."
        )
    tried = [fixed] if fixed else list(TRIED)
    found = {_tried(path, foreign, size, mean, std, load) for size in tried}
    if len(found) != 1:
        raise InvalidInput(
            f"{path}: its maps do not grow with its input as one reduction of it: {sorted(found)}."
        )
    channels, reductions = found.pop()
    if list(reductions) != sorted(reductions):
        raise InvalidInput(f"{path}: its maps have reductions {reductions}: order fine to coarse.")
    digest = hashlib.sha256(data).hexdigest()
    multiple = math.lcm(*reductions)
    return OnnxNetwork(
        path.stem, digest, channels, reductions, multiple, fixed, foreign, mean, std
    )  # fmt: skip


def _check_shape(path: Path, shape: Sequence[int | None], colours_at: int) -> None:
    if len(shape) != 4 or shape[colours_at] not in (3, None):
        raise InvalidInput(
            f"{path}: its input has the shape {list(shape)}; (N, 3, H, W) for float32 or "
            "(N, H, W, 3) for uint8 is needed."
        )
    if shape[0] not in (None, 0):
        raise InvalidInput(
            f"{path}: takes batches of {shape[0]} only: export it with a free first dimension."
        )


def _fixed(path: Path, sides: Sequence[int | None]) -> Size | None:
    height, width = sides
    if height and width:
        return height, width
    if height or width:
        raise InvalidInput(f"{path}: fixes one side of its input only: fix both or none.")
    return None


def _normalisation(path: Path, foreign: Foreign) -> tuple[Floats, Floats]:
    found = []
    for key in ("mean", "std"):
        text = foreign.metadata.get(key)
        try:
            values = [float(part) for part in (text or "").split(",")]
        except ValueError:
            values = []
        good = len(values) in (1, 3) and all(map(math.isfinite, values))
        if not good or (key == "std" and min(values) <= 0):
            raise InvalidInput(
                f"{path}: its metadata must hold `{key}`, one number or three (RGB, of pixels in "
                f"0..255) separated by commas; it holds {text!r}."
            )
        found.append(np.broadcast_to(np.asarray(values, np.float32), (3,)).copy())
    return found[0], found[1]


def _prepared(nodes: Nodes, mean: Floats | None, std: Floats | None) -> Tensor:
    """What the file's input is given: the picture itself, or RGB first and normalised."""
    if mean is None or std is None:
        return nodes.image
    x = nodes.add("Cast", nodes.image, to=1)
    x = nodes.add("Transpose", x, perm=[0, 3, 1, 2])
    x = nodes.add("Gather", x, nodes.ints(2, 1, 0), axis=1)
    x = nodes.add("Sub", x, nodes.floats(mean[None, :, None, None]))
    return nodes.add("Div", x, nodes.floats(std[None, :, None, None]))


def _tried(
    path: Path,
    foreign: Foreign,
    size: Size,
    mean: Floats | None,
    std: Floats | None,
    load: FeatureExtractorLoader,
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and reductions of the maps for an input of `size`."""
    nodes = Nodes(*size)
    maps = nodes.include(foreign, _prepared(nodes, mean, std))
    try:
        runner = load(nodes.serialise([(each, ["N", "c", "h", "w"]) for each in maps]))
        try:
            outputs = runner.run(np.zeros((2, size[0], size[1], 3), np.uint8))
        finally:
            runner.close()
    except EngineError as error:
        raise InvalidInput(f"{path}: does not run on {size[1]}x{size[0]}: {error}") from error
    for output in outputs:
        shape = output.shape
        uneven = len(shape) != 4 or size[0] % shape[2] or size[1] % shape[3]
        if uneven or shape[0] != 2 or size[0] // shape[2] != size[1] // shape[3]:
            raise InvalidInput(
                f"{path}: an output has the shape {list(shape)} for two pictures of "
                f"{size[1]}x{size[0]}; (N, C, h, w) with one whole reduction of both sides is "
                "needed."
            )
    channels = tuple(int(output.shape[1]) for output in outputs)
    return channels, tuple(size[0] // int(output.shape[2]) for output in outputs)
