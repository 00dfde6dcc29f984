"""How good a model is on labelled pictures, in the API's words and in the factory's.

Owns the counting. Knows neither engine nor thresholds: it is handed a judge, and what the judge
says counts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.errors import BadDataset, BadImage
from edged.core.protocols import Progress
from edged.core.types import DefectClass, Verdict
from edged.training.data.samples import Dataset, Sample
from edged.training.figures.bounds import interval
from edged.training.figures.metrics import (
    PixelAuroc,
    auroc,
    average_precision,
    class_metrics,
    confusion,
)
from edged.training.scorers.segments import shown
from edged.training.scorers.segments import truth as mask_layers
from edged.wire import imaging
from edged.wire.imaging import Decoded

JudgePicture: TypeAlias = Callable[[Decoded], Verdict]
"""One picture to a verdict, whose mask has the size of the picture's file."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One labelled picture and what the judge said of it."""

    path: Path
    is_anomalous: bool
    score: float
    rejected: bool


@dataclass(slots=True)
class Tally:
    """Everything that was judged."""

    pictures: list[Judged] = field(default_factory=list)
    threshold: float | None = None
    pixels: PixelAuroc = field(default_factory=PixelAuroc)
    classes: dict[str, list[int]] = field(default_factory=dict)
    """By class of defect: pixels that are both seen and there, that are seen, that are there."""
    skipped: list[dict[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unlabeled: int = 0

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """(n,) in the order of the pictures."""
        return np.array([p.score for p in self.pictures], np.float64)

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """(n,) True = anomalous."""
        return np.array([p.is_anomalous for p in self.pictures], np.bool_)


def evaluate(
    dataset: Dataset, judge: JudgePicture, progress: Progress, classes: Sequence[DefectClass] = ()
) -> dict[str, Any]:
    """Judge every labelled picture and count: see `tally` and `figures`."""
    return figures(tally(dataset, judge, progress, classes))


def tally(
    dataset: Dataset,
    judge: JudgePicture,
    progress: Progress,
    classes: Sequence[DefectClass] = (),
    size: tuple[int, int] | None = None,
) -> Tally:
    """Judge every labelled picture. classes: of a segmentation model, in its mask's order.

    size: (height, width) of the judge's input, for which pictures are decoded; None: at full size.
    A picture that cannot be decoded or that the judge refuses (BadImage) is skipped and named.
    Raises BadDataset when there is nothing to judge, and whatever else the judge raises.
    """
    labelled = [s for s in dataset.samples if s.is_anomalous is not None]
    if not labelled:
        raise BadDataset("The data set has no labelled pictures: label some normal or anomalous.")
    masks = any(s.mask for s in labelled)
    found = Tally(unlabeled=len(dataset.samples) - len(labelled))
    found.classes = {c.name: [0, 0, 0] for c in classes} if masks else {}
    for done, sample in enumerate(labelled, 1):
        try:
            picture = _read(sample, size)
            verdict = judge(picture)
        except BadImage as error:
            found.skipped.append({"path": str(sample.path), "reason": str(error)})
        else:
            _count(sample, picture.shape, verdict, found, masks, classes)
        progress("judging", done, len(labelled))
    if not found.pictures:
        why = f" The first: {found.skipped[0]['reason']}" if found.skipped else ""
        raise BadDataset(f"None of the {len(labelled)} pictures can be read or judged.{why}")
    return found


def _read(sample: Sample, size: tuple[int, int] | None) -> Decoded:
    if size is None:
        return Decoded.whole(imaging.read(sample.path, sample.opener))
    return imaging.read_for(sample.path, size, sample.opener)


def _count(
    sample: Sample,
    shape: tuple[int, int],
    verdict: Verdict,
    found: Tally,
    masks: bool,
    classes: Sequence[DefectClass],
) -> None:
    found.pictures.append(
        Judged(sample.path, bool(sample.is_anomalous), verdict.score, verdict.is_anomalous)
    )
    found.threshold = verdict.threshold
    if not masks or verdict.heatmap is None or (sample.is_anomalous and sample.mask is None):
        return
    # A normal part weighs as much as its mask would.
    truth: npt.NDArray[np.bool_] = np.zeros(shape, np.bool_)
    layers: npt.NDArray[np.bool_] = np.zeros((len(classes), *shape), np.bool_)
    if sample.mask is not None:
        try:
            truth, layers = mask_pixels(sample), mask_layers(sample, classes)
        except BadImage as error:
            found.warnings.append(f"mask not used: {error}")
            return
    height, width = truth.shape
    found.pixels.add(imaging.enlarged(verdict.heatmap, height, width), truth)
    if verdict.mask is None or verdict.mask.shape != truth.shape:
        return
    for index, (known, layer) in enumerate(zip(classes, layers, strict=True), 1):
        seen = verdict.mask == index
        counts = found.classes[known.name]
        for place, pixels in enumerate((seen & layer, seen, layer)):
            counts[place] += int(pixels.sum())


def mask_pixels(sample: Sample) -> npt.NDArray[np.bool_]:
    """Where the sample's mask shows a defect of whatever class: bool (H, W). Raises BadImage."""
    return np.asarray(shown(sample)[0])


def figures(found: Tally) -> dict[str, Any]:
    """The numbers of a tally, JSON-ready.

    images, normal, anomaly, auroc, average_precision, precision, recall, f1, false_reject_rate,
    escape_rate (each None where it has no meaning), the 95 % intervals of the two rates,
    threshold, true_positives, false_positives, true_negatives, false_negatives,
    skipped [{path, reason}], unlabeled, warnings; pixel_auroc where anomalous pictures have masks
    and the model draws maps; pixel_anomaly_class_metrics, as the API calls them, of a
    segmentation model.
    """
    scores, labels = found.scores, found.labels
    counts = confusion(np.array([p.rejected for p in found.pictures], np.bool_), labels)
    normal, anomalous = int((~labels).sum()), int(labels.sum())
    result: dict[str, Any] = {
        "images": len(labels),
        "normal": normal,
        "anomaly": anomalous,
        "auroc": auroc(scores, labels),
        "average_precision": average_precision(scores, labels),
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "false_reject_rate": counts.false_reject_rate,
        "false_reject_interval": _interval(counts.false_positives, normal),
        "escape_rate": counts.escape_rate,
        "escape_interval": _interval(counts.false_negatives, anomalous),
        "threshold": found.threshold,
        "true_positives": counts.true_positives,
        "false_positives": counts.false_positives,
        "true_negatives": counts.true_negatives,
        "false_negatives": counts.false_negatives,
        "skipped": found.skipped,
        "unlabeled": found.unlabeled,
        "warnings": found.warnings,
    }
    if found.pixels.value is not None:
        result["pixel_auroc"] = found.pixels.value
    if found.classes:
        rows = [_class_metrics(name, *counts) for name, counts in found.classes.items()]
        result["pixel_anomaly_class_metrics"] = rows
    return result


def _interval(events: int, trials: int) -> list[float] | None:
    return [round(bound, 4) for bound in interval(events, trials)] if trials else None


def _class_metrics(name: str, both: int, seen: int, there: int) -> dict[str, Any]:
    found = class_metrics(both, seen, there)
    words = {"precision": "Precision", "recall": "Recall", "f1": "F1Score", "iou": "AIOU"}
    return {"ClassName": name, **{words[key]: value for key, value in found.items()}}
