"""Defects planted into pictures of good parts: evidence where nobody has a defect to show.

Owns what a planted defect looks like: a scratch, a spot, a piece of another part, a smear, all of
a few per cent of the picture's diagonal. They stand in for no real defect; they only tell apart
what a scorer or an input size can see at all. Nothing is ever fitted to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats, Image

Bools: TypeAlias = npt.NDArray[np.bool_]
Paint: TypeAlias = Callable[[Image, Image, np.random.Generator], tuple[Image, Floats]]
SEEN = 0.1
"""Share of a pixel's change from which on the pixel counts as defective."""


def planted(image: Image, other: Image, rng: np.random.Generator) -> tuple[Image, Bools]:
    """A copy of `image` with one defect, and where it is: bool (H, W).

    image, other: uint8 (H, W, 3); a piece of `other`, another good part, may be pasted.
    """
    kinds: tuple[Paint, ...] = (_scratch, _spot, _piece, _smear)
    result, share = kinds[int(rng.integers(len(kinds)))](image, other, rng)
    return result, np.asarray(share >= SEEN)


def _offsets(image: Image, rng: np.random.Generator) -> tuple[Floats, Floats, float]:
    """Rows and columns relative to a random place, and the diagonal, in pixels."""
    height, width = image.shape[:2]
    y = np.arange(height, dtype=np.float32)[:, None] - rng.uniform(0.15, 0.85) * height
    x = np.arange(width, dtype=np.float32)[None, :] - rng.uniform(0.15, 0.85) * width
    return np.asarray(y, np.float32), np.asarray(x, np.float32), float(np.hypot(height, width))


def _tinted(image: Image, share: Floats, rng: np.random.Generator) -> Image:
    dark_or_light = 255.0 * float(rng.integers(2))
    colour: Any = dark_or_light if rng.random() < 0.5 else rng.uniform(0, 255, 3)
    weight = (rng.uniform(0.35, 0.9) * share)[..., None]
    return np.asarray(np.clip(image * (1 - weight) + colour * weight, 0, 255), np.uint8)


def _scratch(image: Image, other: Image, rng: np.random.Generator) -> tuple[Image, Floats]:
    y, x, diagonal = _offsets(image, rng)
    turn = rng.uniform(0, np.pi)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    half = rng.uniform(0.03, 0.11) * diagonal
    bend = rng.uniform(-0.2, 0.2) * half * np.cos(along / half * rng.uniform(1, 4))
    thick = max(0.5, rng.uniform(0.0007, 0.003) * diagonal)
    share = np.clip(1.5 + thick - abs(across - bend), 0, 1) * (abs(along) <= half)
    share = np.asarray(share, np.float32)
    return _tinted(image, share, rng), share


def _spot(image: Image, other: Image, rng: np.random.Generator) -> tuple[Image, Floats]:
    y, x, diagonal = _offsets(image, rng)
    tall, wide = rng.uniform(0.006, 0.025, 2) * diagonal
    edge = 1.0 - np.hypot(y / max(tall, 1.0), x / max(wide, 1.0))
    share = np.asarray(np.clip(4.0 * edge, 0, 1), np.float32)
    return _tinted(image, share, rng), share


def _piece(image: Image, other: Image, rng: np.random.Generator) -> tuple[Image, Floats]:
    height, width = (min(a, b) for a, b in zip(image.shape[:2], other.shape[:2], strict=True))
    tall = int(np.clip(rng.uniform(0.02, 0.07) * np.hypot(height, width), 4, height // 2))
    wide = int(np.clip(tall * rng.uniform(0.4, 1.6), 4, width // 2))
    top, left = int(rng.integers(height - tall)), int(rng.integers(width - wide))
    down, right = int(rng.integers(height - tall)), int(rng.integers(width - wide))
    result = image.copy()
    result[top : top + tall, left : left + wide] = other[down : down + tall, right : right + wide]
    share = np.zeros(image.shape[:2], np.float32)
    share[top : top + tall, left : left + wide] = 1.0
    return result, share


def _smear(image: Image, other: Image, rng: np.random.Generator) -> tuple[Image, Floats]:
    y, x, diagonal = _offsets(image, rng)
    radius = rng.uniform(0.015, 0.04) * diagonal
    share = np.asarray(np.clip(3.0 * (1.0 - np.hypot(y, x) / max(radius, 2.0)), 0, 1), np.float32)
    reach = max(2, round(0.012 * diagonal))
    soft = image.astype(np.float32)
    for axis in (0, 1):
        sums = np.cumsum(np.pad(soft, _padding(axis, reach), mode="edge"), axis=axis)
        ends = np.take(sums, np.arange(2 * reach, sums.shape[axis]), axis=axis)
        starts = np.take(sums, np.arange(sums.shape[axis] - 2 * reach), axis=axis)
        soft = ((ends - starts) / (2 * reach)).astype(np.float32)
    mixed = image * (1 - share[..., None]) + soft * share[..., None]
    return np.asarray(np.clip(mixed, 0, 255), np.uint8), share


def _padding(axis: int, reach: int) -> list[tuple[int, int]]:
    pads = [(0, 0), (0, 0), (0, 0)]
    pads[axis] = (reach, reach)
    return pads
