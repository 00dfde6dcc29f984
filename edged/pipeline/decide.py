"""Judgement: one image's numbers and a threshold in, a Verdict out. Pure.

The rule is `score >= threshold` on the numbers rounded to four places, as the on-device code of
Lookout for Vision compares them, so that the score a person reads decides as printed. Confidence
is of the decision: the score when anomalous, 1 - score when normal; as the threshold need not be
0.5 it may lie under 0.5 close to it. A score that is not a number is never an OK.
"""

from __future__ import annotations

import math

from edged.core.errors import EngineError
from edged.core.types import Prediction, Verdict


def decide(prediction: Prediction, row: int, threshold: float) -> Verdict:
    """The verdict on image `row` of a batch. Raises EngineError if its score is not finite."""
    score = float(prediction.scores[row])
    if not math.isfinite(score):
        raise EngineError("The engine's score is not a finite number.")
    score = min(1.0, max(0.0, score))
    is_anomalous = round(score, 4) >= round(threshold, 4)
    return Verdict(
        is_anomalous=is_anomalous,
        confidence=score if is_anomalous else 1.0 - score,
        score=score,
        threshold=threshold,
        heatmap=None if prediction.maps is None else prediction.maps[row, 0],
    )
