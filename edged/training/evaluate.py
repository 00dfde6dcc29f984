"""How good a model is on labelled pictures.

Owns the counting. Knows neither engine nor thresholds: it is handed a judge, and what the judge
says counts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edged import imaging
from edged.core.errors import BadDataset, BadImage
from edged.core.protocols import Progress
from edged.core.types import Floats, Image, Verdict
from edged.training.metrics import PixelAuroc, auroc, confusion
from edged.training.samples import Dataset, Sample

Judge: TypeAlias = Callable[[Image], Verdict]
"""One picture, uint8 (H, W, 3) BGR at its own size, to a verdict."""


@dataclass(slots=True)
class _Tally:
    scores: list[float] = field(default_factory=list)
    decisions: list[bool] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    threshold: float | None = None
    pixels: PixelAuroc = field(default_factory=PixelAuroc)
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def evaluate(dataset: Dataset, judge: Judge, progress: Progress) -> dict[str, Any]:
    """Judge every labelled picture and count.

    Result: images, normal, anomaly, auroc, precision, recall, f1, false_reject_rate,
    escape_rate (each None where it has no meaning), threshold, true_positives, false_positives,
    true_negatives, false_negatives, skipped [{path, reason}], unlabeled, warnings; and
    pixel_auroc where anomalous pictures have masks and the model draws maps.
    A picture that cannot be decoded or that the judge refuses (BadImage) is skipped and named.
    Raises BadDataset when there is nothing to judge, and whatever else the judge raises.
    """
    labelled = [s for s in dataset.samples if s.is_anomalous is not None]
    if not labelled:
        raise BadDataset("The data set has no labelled pictures: label some normal or anomalous.")
    masks = any(s.mask for s in labelled)
    tally = _Tally()
    for done, sample in enumerate(labelled, 1):
        _judge(sample, judge, tally, masks)
        progress("judging", done, len(labelled))
    if not tally.labels:
        raise BadDataset(f"None of the {len(labelled)} pictures can be read or judged.")
    return _result(tally, len(dataset.samples) - len(labelled))


def _judge(sample: Sample, judge: Judge, tally: _Tally, masks: bool) -> None:
    try:
        image = imaging.read(sample.path)
        verdict = judge(image)
    except BadImage as error:
        tally.skipped.append({"path": str(sample.path), "reason": str(error)})
        return
    tally.scores.append(verdict.score)
    tally.decisions.append(verdict.is_anomalous)
    tally.labels.append(bool(sample.is_anomalous))
    tally.threshold = verdict.threshold
    if not masks or verdict.heatmap is None:
        return
    if sample.mask is not None:
        try:
            truth = mask_pixels(sample)
        except BadImage as error:
            tally.warnings.append(f"mask not used: {error}")
            return
        tally.pixels.add(enlarged(verdict.heatmap, *truth.shape), truth)
    elif not sample.is_anomalous:
        height, width = image.shape[:2]  # as large as a mask would be: pixels weigh alike
        tally.pixels.add(
            enlarged(verdict.heatmap, height, width), np.zeros((height, width), np.bool_)
        )


def mask_pixels(sample: Sample) -> npt.NDArray[np.bool_]:
    """Where the sample's mask shows a defect: bool (H, W). Raises BadImage.

    With colours: the pixels of exactly these colours, transparency ignored; without: all that
    are not black.
    """
    if sample.mask is None:
        raise BadImage(f"{sample.path}: has no mask.")
    image = imaging.read(sample.mask).astype(np.uint32)
    packed = (image[..., 2] << 16) | (image[..., 1] << 8) | image[..., 0]
    if sample.mask_colors is None:
        return np.asarray(packed != 0)
    wanted = np.array([int(c[1:], 16) for c in sample.mask_colors], np.uint32)
    return np.isin(packed, wanted)


def enlarged(heatmap: Floats, height: int, width: int) -> Floats:
    """A map (h, w) at (height, width), linear between the centres of its positions."""
    return np.asarray(
        _interpolation(heatmap.shape[0], height)
        @ heatmap
        @ _interpolation(heatmap.shape[1], width).T
    )


def _interpolation(source: int, target: int) -> Floats:
    at = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.minimum(np.floor(at).astype(np.int64), max(source - 2, 0))
    share = (at - low).astype(np.float32)
    matrix = np.zeros((target, source), np.float32)
    matrix[np.arange(target), low] = 1.0 - share
    if source > 1:
        matrix[np.arange(target), low + 1] = share
    return matrix


def _result(tally: _Tally, unlabeled: int) -> dict[str, Any]:
    labels = np.array(tally.labels, np.bool_)
    counts = confusion(np.array(tally.decisions, np.bool_), labels)
    result: dict[str, Any] = {
        "images": len(labels),
        "normal": int((~labels).sum()),
        "anomaly": int(labels.sum()),
        "auroc": auroc(np.array(tally.scores, np.float64), labels),
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "false_reject_rate": counts.false_reject_rate,
        "escape_rate": counts.escape_rate,
        "threshold": tally.threshold,
        "true_positives": counts.true_positives,
        "false_positives": counts.false_positives,
        "true_negatives": counts.true_negatives,
        "false_negatives": counts.false_negatives,
        "skipped": tally.skipped,
        "unlabeled": unlabeled,
        "warnings": tally.warnings,
    }
    if tally.pixels.value is not None:
        result["pixel_auroc"] = tally.pixels.value
    return result
