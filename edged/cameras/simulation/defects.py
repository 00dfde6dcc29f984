"""What goes wrong with the two products: each kind of defect as a change of the product's layer.

Every defect is plain to a person, and at 256 pixels a side still several pixels large. Must not
know pose or light: a defect is part of the part. Lengths are nominal pixels of a 640 x 480 picture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edged.cameras.simulation.designs import Design, Layer

Damage: TypeAlias = Callable[[Layer, Design, np.random.Generator], None]
Grid: TypeAlias = tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]


def damage(
    kind: str, design: Design, rng: np.random.Generator
) -> tuple[Layer, npt.NDArray[np.bool_]]:
    """A damaged copy of the product's layer, and bool (H, W) where it differs from the good one."""
    layer = design.layer.copy()
    _DAMAGE[kind](layer, design, rng)
    change = np.abs(layer.astype(np.int16) - design.layer).max(axis=2)
    return layer, change > 12


def _spot(design: Design, rng: np.random.Generator) -> tuple[float, float]:
    row, column = divmod(int(rng.choice(design.surface)), design.layer.shape[1])
    return float(column), float(row)


def _grid(layer: Layer) -> Grid:
    rows, columns = layer.shape[:2]
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return x, y


def _paint(
    layer: Layer, coverage: npt.NDArray[np.float32], colour: tuple[float, float, float]
) -> None:
    """Lay a colour over the opaque pixels only: a stain does not float beside the part."""
    cover = (np.clip(coverage, 0.0, 1.0) * (layer[..., 3] == 255))[..., None]
    rgb = layer[..., :3].astype(np.float32)
    layer[..., :3] = rgb + cover * (np.asarray(colour, np.float32) - rgb) + 0.5


def _scratch(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    x, y = _grid(layer)
    x0, y0 = _spot(design, rng)
    angle = rng.uniform(0, np.pi)
    half = rng.uniform(45, 80) * design.scale
    bend = rng.uniform(-0.004, 0.004) / design.scale
    along = (x - x0) * np.cos(angle) + (y - y0) * np.sin(angle)
    across = -(x - x0) * np.sin(angle) + (y - y0) * np.cos(angle) - bend * along**2
    width = rng.uniform(3.0, 4.5) * design.scale
    inside = np.clip(width - np.abs(across) + 0.5, 0, 1) * (np.abs(along) < half)
    bright = 238.0 if rng.random() < 0.5 else 28.0
    _paint(layer, inside * 0.95, (bright, bright, bright))


def _pit(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    x, y = _grid(layer)
    x0, y0 = _spot(design, rng)
    for _ in range(int(rng.integers(1, 4))):
        radius = rng.uniform(10, 15) * design.scale
        _paint(layer, radius - np.hypot(x - x0, y - y0) + 0.5, (24.0, 26.0, 30.0))
        x0 += rng.normal(0, 22) * design.scale
        y0 += rng.normal(0, 22) * design.scale


def _blob(
    layer: Layer, design: Design, rng: np.random.Generator, size: float
) -> npt.NDArray[np.float32]:
    x, y = _grid(layer)
    x0, y0 = _spot(design, rng)
    angle = np.arctan2(y - y0, x - x0)
    edge = 1.0 + sum(
        rng.uniform(-0.16, 0.16) * np.cos(order * angle + rng.uniform(0, 6.3))
        for order in range(2, 6)
    )
    inside = size * design.scale * edge - np.hypot(x - x0, y - y0)
    return np.asarray(inside, np.float32)


def _stain(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    inside = _blob(layer, design, rng, rng.uniform(26, 44))
    cover = np.asarray(np.clip(inside / (4 * design.scale), 0, 1) * 0.72, np.float32)
    _paint(layer, cover, (28.0, 62.0, 96.0))


def _chip(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    x, y = _grid(layer)
    angle = rng.uniform(0, 2 * np.pi)
    x0 = design.centre[0] + design.radius * np.cos(angle)
    y0 = design.centre[1] + design.radius * np.sin(angle)
    toward = np.arctan2(y - y0, x - x0)
    radius = rng.uniform(22, 34) * design.scale * (1 + 0.12 * np.cos(5 * toward + angle))
    layer[np.hypot(x - x0, y - y0) < radius] = 0


def _smear(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    top, left, bottom, right = design.prints[int(rng.integers(len(design.prints)))]
    reach = round(rng.uniform(30, 55) * design.scale)
    right = min(layer.shape[1] - reach - 1, right)
    block = layer[top:bottom, left : right + reach, :3].astype(np.float32)
    dragged = block.copy()
    for step in range(0, reach, 2):
        shade = 1.0 - 0.8 * step / reach
        shifted = block.copy()
        shifted[:, step:] = block[:, : block.shape[1] - step]
        dragged = np.minimum(dragged, 235.0 - shade * (235.0 - shifted))
    layer[top:bottom, left : right + reach, :3] = np.clip(dragged, 0, 255)


def _missing_print(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    top, left, bottom, right = design.prints[int(rng.integers(len(design.prints)))]
    layer[top:bottom, left:right] = design.blank[top:bottom, left:right]


def _speck(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    inside = _blob(layer, design, rng, rng.uniform(12, 19))
    _paint(layer, inside + 0.5, (34.0, 32.0, 36.0))


def _misprint(layer: Layer, design: Design, rng: np.random.Generator) -> None:
    top, left, bottom, right = design.prints[int(rng.integers(len(design.prints)))]
    block = layer[top:bottom, left:right].copy()
    layer[top:bottom, left:right] = design.blank[top:bottom, left:right]
    down = round(rng.uniform(12, 18) * design.scale) * (1 if rng.random() < 0.5 else -1)
    aside = round(rng.uniform(12, 18) * design.scale) * (1 if rng.random() < 0.5 else -1)
    rows, columns = layer.shape[:2]
    top = min(max(0, top + down), rows - block.shape[0])
    left = min(max(0, left + aside), columns - block.shape[1])
    layer[top : top + block.shape[0], left : left + block.shape[1]] = block


KINDS: dict[str, tuple[str, ...]] = {
    "machined": ("scratch", "pit", "stain", "chip"),
    "printed": ("smear", "missing_print", "speck", "misprint"),
}

_DAMAGE: dict[str, Damage] = {
    "scratch": _scratch,
    "pit": _pit,
    "stain": _stain,
    "chip": _chip,
    "smear": _smear,
    "missing_print": _missing_print,
    "speck": _speck,
    "misprint": _misprint,
}
