"""A memory bank: how far each position is from the nearest of some remembered normal ones.

For parts whose pose varies, where no position has a look of its own and where what is normal is
no single cloud. Bounded: BANK_MB and BANK_MS say how many vectors are kept, a greedy coreset
(each next vector is the one farthest from all that are kept) says which.

Distances are between whitened vectors, in which the normal ones are alike in all directions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats
from edged.training.features.network import Size
from edged.training.features.view import View
from edged.training.scorers.distances import Gaussian, blurred, top_mean

BANK_MB = 1.0
"""Megabytes of vectors that a model may remember."""
BANK_MS = 2.0
"""Milliseconds that they may cost for each picture, at MULTIPLICATIONS_A_MS."""
MULTIPLICATIONS_A_MS = 30e6
"""Of one core that runs a convolution of kernel 1 in ONNX Runtime (measured: 25e6 to 40e6)."""
BANK_TOP = 0.01
"""Share of positions whose mean is the score."""
CANDIDATES = 16_384
"""Normal vectors, drawn by the seed, from which the coreset is chosen."""


def rows_within(view: View) -> int:
    """How many vectors both budgets hold."""
    by_size = int(BANK_MB * 2**20 / (4 * view.dimensions))
    by_time = int(BANK_MS * MULTIPLICATIONS_A_MS / (view.positions * view.dimensions))
    return max(16, min(by_size, by_time))


@dataclass(frozen=True, slots=True)
class Bank:
    """rows (M, D): whitened vectors; mean and factor that whiten are those of the pooled scorer."""

    rows: Floats

    def scores(self, local: npt.NDArray[np.floating], pooled: Gaussian, grid: Size) -> Floats:
        """(n,): the mean of the largest distances of each picture, smoothed on the grid."""
        return top_mean(blurred(self.distances(local, pooled), grid), BANK_TOP)

    def distances(self, local: npt.NDArray[np.floating], pooled: Gaussian) -> Floats:
        """Distance (n, P) of projected locals (n, P, D) to the nearest row."""
        result = np.empty(local.shape[:2], np.float32)
        squares = (self.rows**2).sum(axis=1)
        for index, picture in enumerate(local):
            white = (picture.astype(np.float32) - pooled.mean) @ pooled.factor
            nearest = (squares - 2.0 * white @ self.rows.T).min(axis=1)
            result[index] = np.sqrt(np.maximum(nearest + (white**2).sum(axis=1), 0.0))
        return result


def fit_bank(view: View, local: npt.NDArray[np.floating], pooled: Gaussian, seed: int) -> Bank:
    """A coreset of the projected locals (n, P, D) of normal pictures."""
    total = local.shape[0] * local.shape[1]
    rng = np.random.default_rng([seed, 9])
    places = np.sort(rng.choice(total, min(CANDIDATES, total), replace=False))
    chosen = local.reshape(total, -1)[places].astype(np.float32)
    white = np.asarray((chosen - pooled.mean) @ pooled.factor, np.float32)
    return Bank(white[coreset(white, rows_within(view))])


def coreset(vectors: Floats, count: int) -> npt.NDArray[np.int64]:
    """Places of `count` of the vectors (n, D) that cover the others best, greedily."""
    squares = (vectors**2).sum(axis=1)
    kept = [int(np.argmax(squares))]
    nearest = np.full(len(vectors), np.inf, np.float32)
    while len(kept) < min(count, len(vectors)):
        last = vectors[kept[-1]]
        nearest = np.minimum(nearest, squares - 2.0 * vectors @ last + last @ last)
        kept.append(int(np.argmax(nearest)))
    return np.array(kept, np.int64)
