"""The two products that `parts` renders: what a faultless part looks like, and on which belt.

Owns the drawings, in nominal coordinates of 640 x 480 scaled to fit the picture. A design depends
on part and picture size alone: two seeds see the same product. Must not know pose, light, noise
or defects. A design is computed once and shared, so its arrays are read-only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edged.cameras.simulation.font import GLYPHS
from edged.core.types import Floats

Layer: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (H, W, 4): BGR already multiplied by alpha, and alpha."""

Box: TypeAlias = tuple[int, int, int, int]
"""top, left, bottom, right in pixels."""

Colour: TypeAlias = tuple[float, float, float]

MARGIN = 64
"""Belt and noise are this much larger than the picture: each frame sees another cut-out."""


@dataclass(frozen=True)
class Design:
    """One product at one picture size.

    layer: the part with its shadow; blank: the same without print (the machined part has none).
    belt: int16 (H + MARGIN, W, 3); noise: int16 (H + MARGIN, W + MARGIN, 3).
    surface: flat indices of pixels where a surface defect is plain to see.
    scale: pixels per nominal pixel; centre: (x, y); radius: of the outer edge, in pixels.
    prints: the printed blocks a fault of the printer may hit.
    """

    layer: Layer
    blank: Layer
    belt: npt.NDArray[np.int16]
    noise: npt.NDArray[np.int16]
    surface: npt.NDArray[np.intp]
    scale: float
    centre: tuple[float, float]
    radius: float
    prints: tuple[Box, ...]


class _Canvas:
    """A picture under construction, in nominal coordinates with the origin in the centre."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.scale = min(width / 640, height / 480)
        self.x = ((np.arange(width, dtype=np.float32) + 0.5) - width / 2) / self.scale
        self.y = ((np.arange(height, dtype=np.float32) + 0.5) - height / 2) / self.scale
        self.colour = np.zeros((height, width, 3), np.float32)
        self.alpha = np.zeros((height, width), np.float32)

    def edge(self, distance: Floats) -> Floats:
        """Coverage 0..1 from a signed distance in nominal pixels, positive inside."""
        return np.asarray(np.clip(distance * self.scale + 0.5, 0.0, 1.0), np.float32)

    def paint(self, coverage: Floats, value: Any) -> None:
        """Lay `value`, a colour or one value per pixel, over the canvas."""
        self.colour += coverage[..., None] * (value - self.colour)

    def box(self, left: float, top: float, right: float, bottom: float) -> Box:
        """The pixels of a nominal rectangle."""
        s, w, h = self.scale, self.width, self.height
        x0, x1 = round(left * s + w / 2), round(right * s + w / 2)
        y0, y1 = round(top * s + h / 2), round(bottom * s + h / 2)
        return max(0, y0), max(0, x0), min(h, y1), min(w, x1)

    def ink(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        """Fill a nominal rectangle, with fractional coverage at its edges."""
        y0, x0, y1, x1 = self.box(left - 2, top - 2, right + 2, bottom + 2)
        x, y = self.x[x0:x1], self.y[y0:y1]
        across = self.edge(np.minimum(x - left, right - x))
        down = self.edge(np.minimum(y - top, bottom - y))
        patch = self.colour[y0:y1, x0:x1]
        patch += (down[:, None] * across)[..., None] * (np.asarray(colour, np.float32) - patch)

    def text(self, text: str, left: float, top: float, dot: float, colour: Colour) -> None:
        """Dot-matrix letters, 5 x 7 dots of `dot` nominal pixels, advancing by 6."""
        for place, letter in enumerate(text):
            for column, bits in enumerate(GLYPHS.get(letter, ())):
                x = left + (place * 6 + column) * dot
                for row in range(7):
                    if bits >> row & 1:
                        y = top + row * dot
                        self.ink(x, y, x + dot * 0.97, y + dot * 0.97, colour)

    def layer(self) -> Layer:
        """Premultiplied uint8 (H, W, 4)."""
        out = np.empty((self.height, self.width, 4), np.uint8)
        out[..., :3] = np.clip(self.colour, 0, 255) * self.alpha[..., None] + 0.5
        out[..., 3] = self.alpha * 255 + 0.5
        out.setflags(write=False)
        return out


@lru_cache(maxsize=4)
def design(part: str, width: int, height: int) -> Design:
    """The product, drawn at this picture size; cached, as drawing takes tenths of a second."""
    rng = np.random.Generator(np.random.PCG64(20240 if part == "machined" else 20241))
    canvas = _Canvas(width, height)
    draw = _machined if part == "machined" else _printed
    blank, prints, radius = draw(canvas, rng)
    layer = canvas.layer()
    surface = _surface(layer, part)
    belt = _belt(canvas, rng)
    noise = rng.normal(0.0, 2.4, (height + MARGIN, width + MARGIN, 3)).round().astype(np.int16)
    for array in (surface, belt, noise):
        array.setflags(write=False)
    return Design(
        layer=layer,
        blank=layer if blank is None else blank,
        belt=belt,
        noise=noise,
        surface=surface,
        scale=canvas.scale,
        centre=(width / 2, height / 2),
        radius=radius * canvas.scale,
        prints=prints,
    )


def _machined(
    canvas: _Canvas, rng: np.random.Generator
) -> tuple[Layer | None, tuple[Box, ...], float]:
    """A turned steel flange: chamfer, hub with a keyed bore, six counterbored bolt holes."""
    outer = 200.0
    x, y = np.meshgrid(canvas.x, canvas.y)
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    lit = np.cos(angle + 2.3)  # the lamp stands at the upper left
    steel = np.array([1.03, 1.0, 0.965], np.float32)  # a little blue

    face = _turned(rng, r, angle, 3.2, 16.0) + 128 + 62 * np.abs(np.cos(angle + 0.75)) ** 7
    face -= 14 * (r / outer)
    canvas.alpha[:] = _shadow(canvas, np.hypot(x - 9, y - 12), outer)
    canvas.paint(canvas.edge(outer - r), face[..., None] * steel)
    rim = 150 + 72 * lit + _turned(rng, r, angle, 2.0, 6.0)
    canvas.paint(canvas.edge(outer - r) * canvas.edge(r - (outer - 13)), rim[..., None] * steel)
    canvas.paint(0.55 * canvas.edge(1.4 - np.abs(r - (outer - 13))), 60.0)

    groove = canvas.edge(3.5 - np.abs(r - 150.0))  # a faint recess, lit from one side
    canvas.paint(0.35 * groove, (118 - 50 * lit)[..., None] * steel)
    hub = _turned(rng, r, angle, 2.2, 11.0) + 158 + 48 * np.abs(np.cos(angle + 0.95)) ** 9
    canvas.paint(canvas.edge(84 - r), hub[..., None] * steel)
    canvas.paint(canvas.edge(4.0 - np.abs(r - 84)), (135 + 95 * lit)[..., None] * steel)
    canvas.paint(0.5 * canvas.edge(2.5 - np.abs(r - 90)), 45.0)  # shadow at the foot of the hub
    canvas.alpha[:] = np.maximum(canvas.alpha, canvas.edge(outer - r))

    canvas.text("EA-24", -30, 112, 2.1, (58.0, 57.0, 56.0))
    canvas.text("EA-24", -29.2, 112.8, 1.0 * 2.1, (64.0, 62.0, 60.0))
    for number in range(6):
        hx = 130 * np.cos(number * np.pi / 3 + np.pi / 6 * 0)
        hy = 130 * np.sin(number * np.pi / 3)
        hr, ha = np.hypot(x - hx, y - hy), np.arctan2(y - hy, x - hx)
        shade = 128 - 70 * np.cos(ha + 2.3) + 10 * np.sin(hr * 2.2)
        canvas.paint(canvas.edge(26 - hr), shade[..., None] * steel)
        _bore(canvas, hr, 17 - hr, np.cos(ha + 2.3))
    key = np.minimum(9.5 - np.abs(x), np.minimum(-y, y + 60))
    canvas.paint(canvas.edge(4.0 - np.abs(r - 50)), (140 - 90 * lit)[..., None] * steel)
    _bore(canvas, r, np.maximum(48 - r, key), lit)
    return None, (), outer


def _turned(
    rng: np.random.Generator, r: Floats, angle: Floats, pitch: float, depth: float
) -> Floats:
    """Concentric tool marks: a random profile over the radius that wavers along the turn."""
    profile = np.convolve(rng.normal(0.0, 1.0, 400), [0.25, 0.5, 0.25], "same")
    marks = np.interp((r + 0.35 * np.sin(3 * angle)) / pitch * 2, np.arange(400), profile)
    waver = 0.75 + 0.25 * np.cos(2 * angle + r / 40)
    brushed = rng.normal(0.0, 2.0, r.shape)
    return np.asarray(depth * marks * waver + brushed, np.float32)


def _bore(canvas: _Canvas, r: Floats, inside: Floats, lit: Floats) -> None:
    """A hole: a lit wall on the side away from the lamp, the belt in shadow below it."""
    cover = canvas.edge(inside)
    wall = cover * canvas.edge(5.0 - inside)
    canvas.paint(cover, 18.0)
    canvas.paint(wall * np.clip(-lit, 0.0, 1.0), 105.0)
    canvas.alpha -= (cover - wall) * 0.12 * canvas.alpha


def _shadow(canvas: _Canvas, r: Floats, radius: float) -> Floats:
    """Alpha of a soft shadow, with the colour left black."""
    return np.asarray(0.55 * np.clip((radius + 8 - r) / 22, 0.0, 1.0), np.float32)


def _printed(
    canvas: _Canvas, rng: np.random.Generator
) -> tuple[Layer | None, tuple[Box, ...], float]:
    """A folding carton with a printed front: brand, text, codes, colour patches, marks."""
    x, y = np.meshgrid(canvas.x, canvas.y)
    inside = np.minimum(276 - np.abs(x), 208 - np.abs(y))
    corner = np.hypot(np.maximum(np.abs(x) - 268, 0), np.maximum(np.abs(y) - 200, 0))
    carton = np.where(corner > 0, 8 - corner, inside).astype(np.float32)
    drop = np.minimum(276 - np.abs(x - 7), 208 - np.abs(y - 9))
    canvas.alpha[:] = 0.5 * np.clip((drop + 9) / 18, 0.0, 1.0)
    fibre = _smooth(rng.normal(0.0, 1.0, x.shape), 2) * 5 + rng.normal(0.0, 1.3, x.shape)
    paper = 222 + fibre - 9 * np.clip((14 - inside) / 14, 0, 1) ** 2 + (x + 1.4 * y) * -0.018
    canvas.paint(canvas.edge(carton), paper[..., None] * np.array([0.955, 0.985, 1.0]))
    canvas.paint(0.5 * canvas.edge(1.2 - np.abs(carton - 0.8)), 120.0)
    canvas.alpha[:] = np.maximum(canvas.alpha, canvas.edge(carton))
    blank = canvas.layer()
    bare = canvas.colour.copy()
    prints = _print_front(canvas, rng)
    # Ink lets some of the paper's texture through, as offset printing does.
    canvas.colour += (
        0.35
        * (bare - 222 * np.array([0.955, 0.985, 1.0], np.float32))
        * (np.abs(canvas.colour - bare).max(axis=2, keepdims=True) > 1)
    )
    return blank, prints, 276.0


def _print_front(canvas: _Canvas, rng: np.random.Generator) -> tuple[Box, ...]:
    blue, black, amber, paper = (118.0, 62, 22), (44.0, 42, 42), (40.0, 132, 226), (212.0, 219, 222)
    x, y = np.meshgrid(canvas.x, canvas.y)
    canvas.ink(-256, -172, 256, -104, blue)
    canvas.paint(canvas.edge(25 - np.hypot(x + 222, y + 138)), np.array(paper))
    wing = np.minimum(y + 152, 0.87 * (18 - np.abs(x + 222)) - 0.5 * (y + 152))
    canvas.paint(canvas.edge(wing.astype(np.float32)), np.array(amber))
    canvas.text("NORDWERK", -178, -157, 5.4, paper)
    canvas.text("BALL VALVE 24 MM", -256, -86, 3.1, black)
    canvas.text("ART 4711-0240  LOT B7", -256, -54, 2.2, black)
    canvas.text("PN 16  BRASS  G 1/2 IN", -256, -33, 2.2, black)
    canvas.ink(30, 28, 256, 92, amber)
    canvas.text("20 PCS", 56, 42, 5.0, black)
    left = -256.0
    for number, width in enumerate(rng.integers(1, 4, 57)):
        step = float(width) * 2.0
        if number % 2 == 0 and left + step <= -30:
            canvas.ink(left, 28, left + step, 92, black)
        left += step
    canvas.text("4 711024 000247", -250, 99, 2.2, black)
    modules = rng.random((18, 18)) < 0.5
    modules[:, 0], modules[-1, :] = True, True  # the finder of a Data Matrix code
    modules[0, :], modules[:, -1] = np.arange(18) % 2 == 0, np.arange(18) % 2 == 1
    for row, column in zip(*np.nonzero(modules), strict=True):
        top, at = -86 + row * 5.2, 162 + column * 5.2
        canvas.ink(at, top, at + 5.2, top + 5.2, black)
    for number, colour in enumerate([(200.0, 150, 20), (130.0, 20, 210), (30.0, 220, 240), black]):
        canvas.ink(60 + number * 34, 128, 88 + number * 34, 156, colour)
    canvas.text("MADE IN EU", -256, 132, 2.2, black)
    for mx, my in ((-258, -190), (258, -190), (-258, 190), (258, 190)):
        ring = canvas.edge((1.1 - np.abs(np.hypot(x - mx, y - my) - 6)).astype(np.float32))
        canvas.paint(ring, np.array(black))
        canvas.ink(mx - 10, my - 0.7, mx + 10, my + 0.7, black)
        canvas.ink(mx - 0.7, my - 10, mx + 0.7, my + 10, black)
    nominal = (
        (-180, -159, 84, -117),
        (-258, -88, 42, -62),
        (-258, -56, 22, -16),
        (-258, 26, -28, 94),
        (-252, 97, -52, 116),
        (54, 40, 236, 79),
        (160, -88, 258, 10),
        (58, 126, 192, 158),
    )
    return tuple(canvas.box(*rectangle) for rectangle in nominal)


def _belt(canvas: _Canvas, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """A dark woven conveyor belt, running up the picture."""
    rows = np.arange(canvas.height + MARGIN, dtype=np.float32)[:, None] / canvas.scale
    columns = np.arange(canvas.width, dtype=np.float32)[None, :] / canvas.scale
    weave = np.sin((rows + columns) * 1.25) * np.sin((rows - columns) * 1.25) * 5
    wear = _smooth(rng.normal(0.0, 1.0, weave.shape), 6) * 12
    value = 62 + weave + wear + 5 * np.sin(columns / 37) + rng.normal(0.0, 2.5, weave.shape)
    return np.asarray(value[..., None] * np.array([0.98, 1.02, 0.9]), np.int16)


def _smooth(values: npt.NDArray[Any], passes: int) -> npt.NDArray[Any]:
    for _ in range(passes):
        for axis in (0, 1):
            before, after = np.roll(values, 1, axis), np.roll(values, -1, axis)
            values = (before + 2 * values + after) / 4
    return values


def _surface(layer: Layer, part: str) -> npt.NDArray[np.intp]:
    """Where a defect is plain to see: bare metal without dark holes, unprinted paper."""
    opaque = layer[..., 3] == 255
    bright = layer[..., :3].min(axis=2) > (85 if part == "machined" else 170)
    return np.flatnonzero(opaque & bright)
