"""One rendered frame: the product as it happened to lie under the lamp, perhaps damaged.

Pure and deterministic: part, seed and index alone decide every pixel, in whatever order frames are
asked for. The seed changes pose, noise, light and which frames are defective; never the product.
"""

from __future__ import annotations

import numpy as np

from edged.cameras.simulation.defects import KINDS, damage
from edged.cameras.simulation.designs import MARGIN, design
from edged.core.types import Image, Truth
from edged.wire import imaging

DRIFT_FRAMES = 900
"""The lamp's slow drift comes back after so many frames."""


def render(
    part: str, seed: int, index: int, width: int, height: int, defect_rate: float
) -> tuple[Image, Truth]:
    """Frame `index` of a camera: uint8 (height, width, 3) BGR, and what is true about it."""
    product = design(part, width, height)
    rng = np.random.Generator(np.random.PCG64([seed, index, len(part)]))
    layer, truth = product.layer, Truth(is_anomalous=False)
    changed = None
    kind = ""
    if rng.random() < defect_rate:
        kind = str(rng.choice(KINDS[part]))
        layer, changed = damage(kind, product, rng)

    turn = np.deg2rad(np.clip(rng.normal(0, 0.6), -1.5, 1.5))
    shift = np.clip(rng.normal(0, 1.8, 2), -4, 4) * product.scale
    cos, sin = np.cos(turn), np.sin(turn)
    x, y = product.centre
    matrix = np.array(
        [
            [cos, -sin, x - cos * x + sin * y + shift[0]],
            [sin, cos, y - sin * x - cos * y + shift[1]],
        ]
    )
    lying = imaging.warp(layer, matrix, width, height)
    if changed is not None:
        moved = imaging.warp(changed.astype(np.uint8) * 255, matrix, width, height)
        truth = Truth(True, kind, moved > 127)

    down = int(rng.integers(MARGIN))
    aside = int(rng.integers(MARGIN))
    clear = (255 - lying[..., 3:]).astype(np.float32) / 255
    picture = product.belt[down : down + height] * clear
    picture += lying[..., :3]
    drift = 1.0 + 0.03 * np.sin(2 * np.pi * (index / DRIFT_FRAMES + (seed % 7) / 7))
    picture *= np.float32(drift * (1.0 + rng.normal(0, 0.006)))
    grain = int(rng.integers(MARGIN))
    picture += product.noise[grain : grain + height, aside : aside + width]
    return np.clip(picture, 0, 255).astype(np.uint8), truth
