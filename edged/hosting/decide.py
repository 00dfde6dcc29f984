"""Judgement: one image's numbers and a threshold in, a Verdict out. Pure.

The rule is `score >= threshold` on the numbers rounded to four places, as the on-device code of
Lookout for Vision compares them, so that the score a person reads decides as printed. Confidence
is of the decision: the score when anomalous, 1 - score when normal; as the threshold need not be
0.5 it may lie under 0.5 close to it. A score that is not a number is never an OK. The mask of a
segmentation model is another matter than its verdict: either may be there without the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edged.core.errors import EngineError
from edged.core.types import Anomaly, DefectClass, Floats, Prediction, Verdict
from edged.wire import imaging

SEEN = 0.5
"""From here on a class of defect is seen; its limit lies in the graph."""


def decide(
    prediction: Prediction,
    row: int,
    threshold: float,
    classes: Sequence[DefectClass] = (),
    shape: tuple[int, int] = (0, 0),
) -> Verdict:
    """The verdict on image `row` of a batch. Raises EngineError if its score is not finite.

    classes, shape: of a segmentation model, and the image's (height, width): its mask's size.
    """
    score = float(prediction.scores[row])
    if not math.isfinite(score):
        raise EngineError("The engine's score is not a finite number.")
    score = min(1.0, max(0.0, score))
    is_anomalous = round(score, 4) >= round(threshold, 4)
    anomalies: tuple[Anomaly, ...] = ()
    mask = None
    if prediction.classes is not None and classes:
        mask = _mask(prediction.classes[row], shape)
        anomalies = _anomalies(mask, classes)
    return Verdict(
        is_anomalous=is_anomalous,
        confidence=score if is_anomalous else 1.0 - score,
        score=score,
        threshold=threshold,
        anomalies=anomalies,
        mask=mask,
        heatmap=None if prediction.maps is None else prediction.maps[row, 0],
    )


def _mask(seen: Floats, shape: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """uint8 (H, W): the class most surely seen at each pixel, from 1; 0 where none is."""
    mask = np.zeros(shape, np.uint8)
    best: Floats = np.full(shape, SEEN, np.float32)
    for index, layer in enumerate(seen, 1):
        if layer.max() < SEEN:
            continue  # nearly always: enlarging costs more than all the rest
        large = imaging.enlarged(layer, *shape)
        higher = large >= best
        mask[higher] = index
        best = np.where(higher, large, best)
    return mask


def _anomalies(mask: npt.NDArray[np.uint8], classes: Sequence[DefectClass]) -> tuple[Anomaly, ...]:
    """Every class that has pixels, background first, with its share of the picture."""
    known = (DefectClass("background", "#FFFFFF"), *classes)
    counts = np.bincount(mask.ravel(), minlength=len(known))
    return tuple(
        Anomaly(kind.name, float(count) / mask.size, kind.color)
        for kind, count in zip(known, counts, strict=True)
        if count
    )
