"""The scorers that judge together, fitted to the same pictures and asked together.

Owns their names and order; every list of raw scores has this order. Knows no unit, weight or
threshold: those are calibration.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats
from edged.training import features
from edged.training.features import Size
from edged.training.scorers import (
    POOLED_TOP,
    TOP,
    Gaussian,
    PositionGaussian,
    Supervised,
    blurred,
    fit_pooled,
    fit_positions,
    fit_supervised,
    fit_whole,
    top_mean,
)
from edged.training.segments import Segments

UNSUPERVISED = ("position_gaussian", "pooled_gaussian", "whole_gaussian")
WEIGHTS = {
    **dict.fromkeys(UNSUPERVISED, 1.0),
    "supervised": 2.0,
    "marked": 4.0,
}
"""Of each scorer in the sum. Labels, where they suffice, weigh as much as two other views; masks,
which say where the defect is, as much as four (commutators, out-of-fold: AUROC 0.98 with masks,
0.91 without)."""
MAPS = UNSUPERVISED[:2]
"""The scorers that can say where."""

Bools: TypeAlias = npt.NDArray[np.bool_]
Halves: TypeAlias = npt.NDArray[np.float16]


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Fitted scorers; `supervised`, `segments` are None without enough anomalies or masks."""

    positions: PositionGaussian
    pooled: Gaussian
    whole: Gaussian
    supervised: Supervised | None
    segments: Segments | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the scorers that are there, in the order of the raw scores."""
        there = (self.supervised is not None, self.segments is not None)
        more = zip(("supervised", "marked"), there, strict=True)
        return UNSUPERVISED + tuple(name for name, known in more if known)

    def score(self, local: Halves, whole: Floats, grid: Size) -> tuple[list[Floats], list[Floats]]:
        """Raw scores, one (n,) for each scorer, and blurred maps (n, positions) of MAPS."""
        placed = blurred(self.positions.distances(local), grid)
        pooled = self.pooled.distances(local)
        raw = [
            top_mean(placed, TOP),
            top_mean(pooled, POOLED_TOP),
            self.whole.distances(whole[:, features.STATISTICS]),
        ]
        if self.supervised is not None:
            raw.append(self.supervised.logits(whole[:, features.SUPERVISED]))
        if self.segments is not None:
            raw.append(self.segments.scores(local, self.pooled, grid))
        return raw, [placed, blurred(pooled, grid)]


def fit_ensemble(normal: Halves, whole: Floats, anomalous: Bools, supervise: bool) -> Ensemble:
    """Fit to projected locals (n, P, D) of normal pictures, and vectors (m, WHOLE) of all."""
    supervised = None
    if supervise:
        supervised = fit_supervised(whole[:, features.SUPERVISED], anomalous)
    return Ensemble(
        fit_positions(normal),
        fit_pooled(normal),
        fit_whole(whole[~anomalous][:, features.STATISTICS]),
        supervised,
    )
