"""From out-of-fold scores to one score in 0..1: units, fusion, threshold, pixel limit.

Owns every number that turns distances into a judgement. Sees scores only, never pictures.
All scores here come from scorers that did not see the picture: in-sample scores of normal
parts are far too small, and limits set on them would reject good parts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]

THRESHOLD = 0.5
"""Of every model: calibration moves the scores, not the threshold."""
TYPICAL = 0.05
"""The calibrated score of the median normal part."""
NORMAL_LOGIT = math.log((1 - TYPICAL) / TYPICAL)
"""How far below the threshold that is, before the sigmoid."""
SMOOTHING = 0.35
"""Kernel width for choosing the threshold, in deviations of the normal scores."""
PLATEAU = 0.004
"""F1 differences below this are noise: the middle of the plateau is chosen."""
DEVIATIONS = 2.0
"""Without anomalies, how far above the median normal score the limit is: about 2 % are above."""
GUARD_MARGIN = 0.7
"""How far beyond the strangest normal parts a guard stands: of a logarithm, so twice as strange."""
ODD = 30
"""One normal part in so many may be odd; the guards do not go by it (31 cookies had one: with it
counted, a picture whose lower half is black passed)."""
TAIL, TAIL_DEVIATIONS = 0.9, 1.2816
"""The quantile that measures the upper side's deviation, and its place in a Gaussian."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Median and deviation of a scorer on normal parts that it did not see."""

    centre: float
    deviation: float

    def apply(self, scores: Scores) -> npt.NDArray[np.float64]:
        """Signed logarithm of the scores in this unit."""
        off = (scores.astype(np.float64) - self.centre) / self.deviation
        return np.asarray(np.sign(off) * np.log1p(np.abs(off)))


def unit_of(normal: Scores) -> Unit:
    """The unit of a scorer from its out-of-fold scores of normal parts."""
    values = normal.astype(np.float64)
    centre = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - centre)))
    floor = max(0.5 * float(values.std()), 1e-3 * abs(centre), 1e-6)
    return Unit(centre, max(spread, floor))


@dataclass(frozen=True, slots=True)
class Calibration:
    """How raw scores of each scorer become one score: see `apply`.

    guards: for the first scorers, the unit beyond which a picture is anomalous whatever the
    others say. A supervised scorer knows the defects it was shown, and calls a black picture
    normal; the guards do not let it.
    """

    units: tuple[Unit, ...]
    weights: tuple[float, ...]
    limit: float
    slope: float
    guards: tuple[float, ...]

    def apply(self, raw: Sequence[Scores]) -> npt.NDArray[np.float64]:
        """Calibrated scores 0..1; at or above THRESHOLD a part is anomalous."""
        terms = [unit.apply(scores) for unit, scores in zip(self.units, raw, strict=True)]
        logit = self.slope * (fuse(self.units, raw, self.weights) - self.limit)
        for term, guard in zip(terms, self.guards, strict=False):
            logit = np.maximum(logit, NORMAL_LOGIT * (term / guard - 1.0))
        return np.asarray(1.0 / (1.0 + np.exp(-logit)))


def fuse(
    units: Sequence[Unit], raw: Sequence[Scores], weights: Sequence[float]
) -> npt.NDArray[np.float64]:
    """The weighted sum of the signed logarithms."""
    parts = zip(units, raw, weights, strict=True)
    return np.asarray(np.sum([w * unit.apply(scores) for unit, scores, w in parts], axis=0))


def calibrate(
    raw: Sequence[Scores],
    anomalous: npt.NDArray[np.bool_],
    weights: Sequence[float],
    guarded: int,
) -> Calibration:
    """Units, limit, slope, guards from out-of-fold raw scores, one row of scores per scorer.

    guarded: how many of the first scorers may reject on their own.
    """
    units = tuple(unit_of(scores[~anomalous]) for scores in raw)
    fused = fuse(units, raw, weights)
    normal = fused[~anomalous]
    limit = f1_limit(normal, fused[anomalous]) if anomalous.any() else upper_limit(normal)
    centre = float(np.median(normal))
    limit = max(limit, centre + 1e-3)
    slope = NORMAL_LOGIT / (limit - centre)
    guards = tuple(
        _strangest(unit.apply(scores[~anomalous])) + GUARD_MARGIN
        for unit, scores in zip(units[:guarded], raw, strict=False)
    )
    return Calibration(units, tuple(weights), limit, slope, guards)


def _strangest(normal: Scores) -> float:
    """The largest of the normal scores, odd ones left out."""
    return float(np.sort(normal)[-1 - len(normal) // ODD])


def upper_limit(normal: Scores) -> float:
    """DEVIATIONS above the median, measured on the upper side, where false rejects come from.

    From a quantile and not from the largest: one odd part among the normal ones (they all have
    one) would otherwise set the limit, and defects would pass below it.
    """
    centre = float(np.median(normal))
    deviation = (float(np.quantile(normal, TAIL)) - centre) / TAIL_DEVIATIONS
    return centre + DEVIATIONS * deviation


def f1_limit(normal: Scores, anomalous: Scores) -> float:
    """With anomalies: the best F1, scores widened by a kernel so that few pictures suffice.

    The middle of the plateau is taken: in the gap when the classes are apart.
    """
    width = SMOOTHING * max(float(normal.std()), 1e-3)
    grid = np.linspace(min(normal.min(), anomalous.min()), max(normal.max(), anomalous.max()), 1001)

    def above(scores: Scores) -> npt.NDArray[np.float64]:
        steps = (scores[None, :] - grid[:, None]) / width
        return np.asarray((1.0 / (1.0 + np.exp(-np.clip(1.7 * steps, -40, 40)))).sum(axis=1))

    hits, false = above(anomalous), above(normal)
    f1 = 2 * hits / (hits + false + len(anomalous))
    best = int(f1.argmax())
    good = f1 >= f1[best] - PLATEAU
    first, last = best, best
    while first > 0 and good[first - 1]:
        first -= 1
    while last < len(grid) - 1 and good[last + 1]:
        last += 1
    return float((grid[first] + grid[last]) / 2)


def pixel_limit(normal_maps: Scores) -> float:
    """The distance that becomes 1.0 on the map: the upper limit of normal parts' largest values.

    normal_maps: out-of-fold blurred maps (n, positions).
    """
    return max(upper_limit(normal_maps.max(axis=1)), 1e-6)
