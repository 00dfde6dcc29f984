"""From the masks of a data set to the segments of a model, with out-of-fold figures.

Owns the reading and checking of masks and the folds; the arithmetic is segments.py's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import BadDataset
from edged.core.types import DefectClass, Floats
from edged.training.data.samples import Sample
from edged.training.features.gather import COPIES, Gathered
from edged.training.features.network import Size
from edged.training.figures.metrics import PixelAuroc, class_metrics
from edged.training.scorers.distances import Gaussian
from edged.training.scorers.segments import (
    BACKGROUND_ROWS,
    LEAST_MASKS,
    Segments,
    best_limits,
    classes_of,
    coverage,
    fit_segments,
    left_out,
    lessons,
    mark,
    shown,
    stranger,
    truth,
    whitened,
)
from edged.wire import imaging

MOST = 300
NAMED = 3
"""Masks with colours of no class that are warned of by name."""
Layers = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Segmented:
    """A fitted segmentation and what it would do on pictures it did not see."""

    classes: tuple[DefectClass, ...]
    segments: Segments
    scores: Floats
    """Of every sample, by segments that did not see it: (n,)."""
    pixel_auroc: float | None
    metrics: list[dict[str, Any]]


def learn_masks(
    data: Gathered, pooled: Gaussian, folds: npt.NDArray[np.int64], seed: int
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
    grid = data.view.grid
    used = _used(data.samples, seed)
    empty = np.zeros((grid[0] * grid[1], len(classes)), np.float32)
    share: dict[int, Floats] = {}
    touched: dict[int, npt.NDArray[np.bool_]] = {}
    strange: list[str] = []
    for i in used:  # masks at full size are not kept: hundreds would fill the memory
        layers = _layers(data.samples[i], classes)
        strange += _strange(data.samples[i])
        share[i] = empty if layers is None else coverage(layers, grid)
        anything = None if layers is None else coverage(shown(data.samples[i]), grid)
        touched[i] = np.zeros(len(empty), np.bool_) if anything is None else anything[:, 0] > 0
    data.warnings += strange[:NAMED]
    if len(strange) > NAMED:
        data.warnings.append(f"{len(strange) - NAMED} more masks show colours without a class.")
    background = max(1, BACKGROUND_ROWS // len(used))
    rng = np.random.default_rng([seed, 7])

    def white(index: int) -> Floats:  # anew each time: of many pictures they would fill memory
        return whitened(data.local[index * (COPIES + 1)], pooled)

    taught = {i: lessons(white(i), share[i], touched[i], grid, background, rng) for i in used}
    seen: list[tuple[int, Floats]] = []
    for fold in range(int(folds.max()) + 1):
        fitted = fit_segments([taught[i] for i in used if folds[i] != fold])
        held = np.flatnonzero(folds == fold)
        seen += [(int(i), fitted.logits(white(int(i)), grid)) for i in held]
    logits = dict(seen)
    drawn = np.stack([logits[i] for i in used])
    limits = np.array(best_limits(drawn, np.stack([share[i] for i in used])), np.float32)
    whole = fit_segments([taught[i] for i in used])
    segments = Segments(whole.weights, whole.bias - limits)
    auroc, metrics = _figures(drawn - limits, [data.samples[i] for i in used], classes, grid)
    scores = np.array([mark(logits[i] - limits) for i in range(len(data.samples))], np.float32)
    return Segmented(classes, segments, scores, auroc, metrics)


def _used(samples: Sequence[Sample], seed: int) -> list[int]:
    """The pictures that teach: up to MOST masked ones and as many normal ones."""
    rng = np.random.default_rng([seed, 8])
    masked = [i for i, s in enumerate(samples) if s.mask is not None]
    normal = [i for i, s in enumerate(samples) if s.is_anomalous is False]
    return sorted(
        int(i) for each in (masked, normal) for i in rng.permutation(np.array(each, int))[:MOST]
    )


def _layers(sample: Sample, classes: Sequence[DefectClass]) -> Layers | None:
    """The mask by class, or None for a normal part."""
    if sample.mask is None:
        return None
    layers = truth(sample, classes)
    tall, wide = imaging.read_for(sample.path, (1, 1), sample.opener).shape
    height, width = layers.shape[1:]
    if (height, width) != (tall, wide):
        raise BadDataset(
            f"{sample.mask}: the mask has {width}x{height} pixels, its picture {wide}x{tall}: draw "
            "it at the size of the picture."
        )
    if not shown(sample).any() and sample.mask_colors is None:
        raise BadDataset(f"{sample.mask}: is all black: draw the defect, or remove the mask.")
    if not shown(sample).any():
        raise BadDataset(
            f"{sample.mask}: shows none of the colours that the manifest gives it "
            f"({', '.join(sample.mask_colors or ())}): correct the mask or the colour map."
        )
    return layers


def _strange(sample: Sample) -> list[str]:
    """Words on a colour of the mask that no class has, if it is more than a smear."""
    found = stranger(sample)
    if found is None:
        return []
    colour, share = found
    known = ", ".join(sample.mask_colors or ())
    return [
        f"{sample.mask}: {share:.1%} of it is {colour}, which has no class in the manifest (known: "
        f"{known}): taken as background; correct the mask or the colour map."
    ]


def _figures(
    logits: Floats, samples: Sequence[Sample], classes: Sequence[DefectClass], grid: Size
) -> tuple[float | None, list[dict[str, Any]]]:
    """By pixel, out-of-fold: AUROC of the surest class; precision, recall, F1, IoU of each."""
    pixels = PixelAuroc()
    hits, seen, there = (np.zeros(len(classes)) for _ in range(3))
    masked = next(sample for sample in samples if sample.mask is not None)
    shape = truth(masked, classes).shape
    for row, sample in zip(logits, samples, strict=True):
        masks = np.zeros(shape, np.bool_) if sample.mask is None else truth(sample, classes)
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
