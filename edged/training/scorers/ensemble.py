"""The scorers that judge together, fitted to the same pictures and asked together.

Owns their names and order; every list of raw scores has this order. Knows no unit, weight or
threshold: those are figures/calibration.py's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats
from edged.training.features.view import View
from edged.training.scorers.bank import Bank, fit_bank
from edged.training.scorers.distances import (
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
from edged.training.scorers.segments import Segments

UNSUPERVISED = ("position_gaussian", "pooled_gaussian", "whole_gaussian")
"""Always there; they guard what the others let pass."""
BANK, SUPERVISED, MARKED = "memory_bank", "supervised", "marked"
WEIGHTS = {
    **dict.fromkeys((*UNSUPERVISED, BANK), 1.0),
    SUPERVISED: 2.0,
    MARKED: 4.0,
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
    """Fitted scorers; the last three are None where evidence, labels or masks do not ask for them.

    Raw scores are one (n,) for each of `names`, in their order.
    """

    positions: PositionGaussian
    pooled: Gaussian
    whole: Gaussian
    bank: Bank | None = None
    supervised: Supervised | None = None
    segments: Segments | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the scorers that are there, in the order of the raw scores."""
        there = {BANK: self.bank, SUPERVISED: self.supervised, MARKED: self.segments}
        return UNSUPERVISED + tuple(name for name, fitted in there.items() if fitted is not None)

    def score(
        self, local: Halves, whole: Floats, view: View
    ) -> tuple[dict[str, Floats], list[Floats]]:
        """Raw scores (n,) by name, and blurred maps (n, positions) of MAPS."""
        placed = blurred(self.positions.distances(local), view.grid)
        pooled = self.pooled.distances(local)
        raw = {
            UNSUPERVISED[0]: top_mean(placed, TOP),
            UNSUPERVISED[1]: top_mean(pooled, POOLED_TOP),
            UNSUPERVISED[2]: self.whole.distances(whole[:, view.statistics]),
        }
        if self.bank is not None:
            raw[BANK] = self.bank.scores(local, self.pooled, view.grid)
        if self.supervised is not None:
            raw[SUPERVISED] = self.supervised.logits(whole[:, view.supervised])
        if self.segments is not None:
            raw[MARKED] = self.segments.scores(local, self.pooled, view.grid)
        return raw, [placed, blurred(pooled, view.grid)]


@dataclass(frozen=True, slots=True)
class ScorerChoice:
    """Which of the optional scorers to fit; `seed` draws the bank's candidates."""

    bank: bool
    supervised: bool
    seed: int


def fit_ensemble(
    view: View, normal: Halves, whole: Floats, anomalous: Bools, wanted: ScorerChoice
) -> Ensemble:
    """Fit to projected locals (n, P, D) of normal pictures, and vectors (m, view.whole) of all."""
    pooled = fit_pooled(normal)
    return Ensemble(
        fit_positions(normal),
        pooled,
        fit_whole(whole[~anomalous][:, view.statistics]),
        fit_bank(view, normal, pooled, wanted.seed) if wanted.bank else None,
        fit_supervised(whole[:, view.supervised], anomalous) if wanted.supervised else None,
    )
