"""From the masks of a data set to the segments of a model, with out-of-fold figures.

Owns the reading and checking of masks and the folds; the arithmetic is segments.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edged import imaging
from edged.core.errors import BadDataset
from edged.core.types import DefectClass, Floats
from edged.training import features
from edged.training.features import Size
from edged.training.gather import COPIES, Gathered
from edged.training.metrics import PixelAuroc, class_metrics
from edged.training.samples import Sample
from edged.training.scorers import Gaussian
from edged.training.segments import (
    LEAST_MASKS,
    Segments,
    best_limits,
    classes_of,
    coverage,
    fit_segments,
    left_out,
    truth,
    whitened,
)

Layers = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Segmented:
    """A fitted segmentation and what it would do on pictures it did not see."""

    classes: tuple[DefectClass, ...]
    segments: Segments
    pixel_auroc: float | None
    metrics: list[dict[str, Any]]


def learn_masks(
    data: Gathered, size: Size, pooled: Gaussian, folds: npt.NDArray[np.int64], seed: int
) -> Segmented | None:
    """None without enough masks. Raises BadDataset for a mask that cannot be right."""
    classes = classes_of(data.samples)
    few = left_out(data.samples, classes)
    if few:
        data.warnings.append(
            f"too few masks (under {LEAST_MASKS}) to tell apart: {', '.join(few)}; such parts are "
            "judged, but not marked."
        )
    if not classes:
        return None
    used = [i for i, s in enumerate(data.samples) if s.mask is not None or not s.is_anomalous]
    layers = [_layers(data.samples[i], classes) for i in used]
    grid = features.grid(size)
    empty = np.zeros((grid[0] * grid[1], len(classes)), np.float32)
    share = np.stack([empty if each is None else coverage(each, grid) for each in layers])
    rows = np.array(used) * (COPIES + 1)
    white = whitened(data.local[rows], pooled)
    logits = np.empty(share.shape, np.float32)
    for fold in range(int(folds.max()) + 1):
        held = folds[used] == fold
        fitted = fit_segments(white[~held], share[~held], grid, seed)
        logits[held] = fitted.logits(white[held], grid)
    limits = np.array(best_limits(logits, share), np.float32)
    whole = fit_segments(white, share, grid, seed)
    segments = Segments(whole.weights, whole.bias - limits)
    auroc, metrics = _figures(logits - limits, layers, classes, grid)
    return Segmented(classes, segments, auroc, metrics)


def _layers(sample: Sample, classes: Sequence[DefectClass]) -> Layers | None:
    """The mask by class, or None for a normal part."""
    if sample.mask is None:
        return None
    layers = truth(sample, classes)
    picture = imaging.read(sample.path)
    if layers.shape[1:] != picture.shape[:2]:
        height, width = layers.shape[1:]
        raise BadDataset(
            f"{sample.mask}: the mask has {width}x{height} pixels, its picture "
            f"{picture.shape[1]}x{picture.shape[0]}: draw it at the size of the picture."
        )
    named = sample.mask_names or ()
    if named and set(named) <= {c.name for c in classes} and not layers.any():
        raise BadDataset(
            f"{sample.mask}: shows none of the colours that the manifest gives it "
            f"({', '.join(sample.mask_colors or ())}): correct the mask or the colour map."
        )
    return layers


def _figures(
    logits: Floats, layers: Sequence[Layers | None], classes: Sequence[DefectClass], grid: Size
) -> tuple[float | None, list[dict[str, Any]]]:
    """By pixel, out-of-fold: AUROC of the surest class; precision, recall, F1, IoU of each."""
    pixels = PixelAuroc()
    hits, seen, there = (np.zeros(len(classes)) for _ in range(3))
    shape = next(each.shape[1:] for each in layers if each is not None)
    for row, each in zip(logits, layers, strict=True):
        masks = np.zeros((len(classes), *shape), np.bool_) if each is None else each
        height, width = masks.shape[1:]
        planes = row.T.reshape(len(classes), *grid)
        large = np.stack([imaging.enlarged(p, height, width) for p in planes])
        surest = 1.0 / (1.0 + np.exp(-large.max(axis=0)))
        pixels.add(surest, np.asarray(masks.any(axis=0)))
        drawn = (large >= 0.0) & (large == large.max(axis=0))
        hits += (drawn & masks).sum(axis=(1, 2))
        seen += drawn.sum(axis=(1, 2))
        there += masks.sum(axis=(1, 2))
    metrics = []
    for index, known in enumerate(classes):
        found = class_metrics(int(hits[index]), int(seen[index]), int(there[index]))
        metrics.append({"name": known.name, **{k: round(v, 4) for k, v in found.items()}})
    return pixels.value, metrics
