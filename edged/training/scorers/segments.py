"""Which pixels show which class of defect: learned from masks, one linear scorer for each class.

Owns the classes of a data set, the truth of its masks on the grid, the fit and its limit. A
position is described by its whitened local vector and by the same vector of its surroundings;
both are linear, so in the graph it is two small convolutions and a blur (export/graph.py).

Decision: one logistic regression for each class, not one of many classes: a position may show
two, and a class with few examples does not pull at the others. Measured by cross-validation on
32 masked cookies: pixel AUROC 0.98, intersection over union 0.60; without the surroundings 0.97
and 0.56.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.errors import BadDataset, BadImage
from edged.core.types import DefectClass, Floats
from edged.training.data.samples import Sample
from edged.training.features.network import Size
from edged.training.scorers.distances import Gaussian, blur_matrix, top_mean
from edged.wire import imaging

Doubles: TypeAlias = npt.NDArray[np.float64]
LEAST_MASKS = 5
"""Masked pictures of a class from which on it is learned."""
AROUND = 1.5  # deviation of the surroundings, in grid positions
COVERED = 0.25  # share of a position that must be defective for it to teach the class
BACKGROUND_ROWS = 20_000
STRANGE = 0.001
"""Share of a mask from which on a colour without a class is no smear."""
MARK_TOP = 0.01  # share of positions whose mean is the score
REGULARISATION = 0.01
NEWTON_STEPS = 20
LIMITS = np.linspace(-4.0, 6.0, 81)
PALETTE = ("#23A436", "#14A3B3", "#F76902", "#9380FF", "#BD10E0", "#467CE6", "#A09308", "#0094BD")
"""For classes whose colour no manifest names: Lookout's own order."""


@dataclass(frozen=True, slots=True)
class Segments:
    """weights (2, D, K): of the vector itself and of its surroundings; bias (K,), less the limit.

    A class is seen where its logit is at least 0.
    """

    weights: Floats
    bias: Floats

    def logits(self, white: Floats, grid: Size) -> Floats:
        """(P, K) of one picture's whitened locals (P, D)."""
        around = surroundings(white @ self.weights[1], grid)
        return np.asarray(white @ self.weights[0] + around + self.bias, np.float32)

    def scores(self, local: npt.NDArray[np.floating], pooled: Gaussian, grid: Size) -> Floats:
        """How surely some defect of a known class is there: (n,) of projected locals (n, P, D)."""
        return np.array(
            [mark(self.logits(whitened(each, pooled), grid)) for each in local], np.float32
        )


def classes_of(samples: Sequence[Sample]) -> tuple[DefectClass, ...]:
    """The classes that have LEAST_MASKS masks, in the order of their names."""
    found: dict[str, tuple[str | None, int]] = {}
    for sample in samples:
        for name, colour in _named(sample):
            known, count = found.get(name, (colour, 0))
            if known != colour:
                raise BadDataset(
                    f"{sample.path}: class {name} has colour {colour} here and {known} elsewhere: "
                    "give it one colour in all manifest lines."
                )
            found[name] = (known, count + 1)
    chosen = sorted(name for name, (_, count) in found.items() if count >= LEAST_MASKS)
    return tuple(
        DefectClass(name, found[name][0] or PALETTE[index % len(PALETTE)])
        for index, name in enumerate(chosen)
    )


def left_out(samples: Sequence[Sample], classes: Sequence[DefectClass]) -> list[str]:
    """Names of masked classes that have too few masks to be learned."""
    names = {name for sample in samples for name, _ in _named(sample)}
    return sorted(names - {c.name for c in classes})


def _named(sample: Sample) -> list[tuple[str, str | None]]:
    if sample.mask is None:
        return []
    if sample.mask_colors is None:
        return [((sample.defect or "defect").split("/")[0], None)]
    names = sample.mask_names or ("defect",) * len(sample.mask_colors)
    return list(zip(names, sample.mask_colors, strict=True))


def truth(sample: Sample, classes: Sequence[DefectClass]) -> npt.NDArray[np.bool_]:
    """Where the sample's mask shows each class: bool (K, H, W). Raises BadImage.

    Transparency is ignored; a colour that the manifest does not name is background.
    """
    if sample.mask is None:
        raise BadImage(f"{sample.path}: has no mask.")
    image = imaging.read(sample.mask, sample.opener).astype(np.uint32)
    packed = (image[..., 2] << 16) | (image[..., 1] << 8) | image[..., 0]
    layers = np.zeros((len(classes), *packed.shape), np.bool_)
    for index, known in enumerate(classes):
        for name, colour in _named(sample):
            if name == known.name:
                layers[index] |= packed != 0 if colour is None else packed == int(colour[1:], 16)
    return layers


def stranger(sample: Sample) -> tuple[str, float] | None:
    """The commonest colour of the mask that has no class, #RRGGBB, and its share; None if rare.

    Black and white are background whatever the manifest says; a blend at an edge is rare.
    """
    if sample.mask is None or sample.mask_colors is None:
        return None
    image = imaging.read(sample.mask, sample.opener).astype(np.uint32)
    packed = (image[..., 2] << 16) | (image[..., 1] << 8) | image[..., 0]
    known = [0, 0xFFFFFF, *(int(colour[1:], 16) for colour in sample.mask_colors)]
    colours, counts = np.unique(packed[~np.isin(packed, known)], return_counts=True)
    if not len(counts) or counts.max() < STRANGE * packed.size:
        return None
    return f"#{int(colours[counts.argmax()]):06X}", float(counts.max() / packed.size)


def shown(sample: Sample) -> npt.NDArray[np.bool_]:
    """Where the sample's mask shows any defect at all: bool (1, H, W). Raises BadImage."""
    kinds = [DefectClass(name, colour or "") for name, colour in _named(sample)]
    return np.asarray(truth(sample, kinds).any(axis=0, keepdims=True))


def coverage(layers: npt.NDArray[np.bool_], grid: Size) -> Floats:
    """The share of each position that each class covers: (P, K) of bool (K, H, W)."""
    _, height, width = layers.shape
    rows = np.arange(grid[0]) * height // grid[0]
    columns = np.arange(grid[1]) * width // grid[1]
    sums = np.add.reduceat(layers.astype(np.float32), rows, axis=1)
    sums = np.add.reduceat(sums, columns, axis=2)
    # A picture smaller than the grid has positions without a pixel of their own: they share one.
    tall = np.maximum(np.diff(np.append(rows, height)), 1)
    wide = np.maximum(np.diff(np.append(columns, width)), 1)
    share = sums / np.outer(tall, wide)
    return np.ascontiguousarray(share.reshape(len(layers), -1).T.astype(np.float32))


def mark(logits: Floats) -> float:
    """The score of one picture's logits (P, K): the mean of the surest positions."""
    return float(top_mean(logits.max(axis=1)[None], MARK_TOP)[0])


def whitened(local: npt.NDArray[np.floating], pooled: Gaussian) -> Floats:
    """(P, D): one picture's locals in units in which normal ones are alike in all directions."""
    return np.asarray((local.astype(np.float32) - pooled.mean) @ pooled.factor, np.float32)


def surroundings(values: Floats, grid: Size) -> Floats:
    """(P, C) blurred over AROUND positions."""
    rows, columns = (blur_matrix(side, AROUND) for side in grid)
    planes = rows @ values.T.reshape(-1, *grid) @ columns.T
    return np.asarray(planes.reshape(values.shape[1], -1).T, np.float32)


@dataclass(frozen=True, slots=True)
class Lessons:
    """Positions of one picture that teach: rows (r, 2 D), and covered (r, K) by which class."""

    rows: Floats
    covered: npt.NDArray[np.bool_]


def lessons(
    white: Floats,
    share: Floats,
    touched: npt.NDArray[np.bool_],
    grid: Size,
    background: int,
    rng: np.random.Generator,
) -> Lessons:
    """All defective positions of a picture and some clear ones.

    white: whitened locals (P, D); share: coverage (P, K); touched (P,): whether the mask shows
    anything there, of whatever class; background: how many clear ones. A defect too thin to
    cover a position teaches by the positions that it covers most.
    """
    clear = rng.permutation(np.flatnonzero(~touched))[:background]
    covered = (share >= np.minimum(COVERED, share.max(axis=0))) & (share > 0)
    chosen = np.concatenate([np.flatnonzero(covered.any(axis=1)), np.sort(clear)])
    rows = np.concatenate([white, surroundings(white, grid)], axis=1)[chosen]
    return Lessons(rows, covered[chosen])


def fit_segments(taught: Sequence[Lessons]) -> Segments:
    """Fit to the lessons of masked and normal pictures."""
    rows = np.concatenate([each.rows for each in taught])
    covered = np.concatenate([each.covered for each in taught])
    fitted = [_logistic(rows, covered[:, k]) for k in range(covered.shape[1])]
    weights = np.stack([w for w, _ in fitted], axis=1)
    half = rows.shape[1] // 2
    return Segments(
        np.stack([weights[:half], weights[half:]]).astype(np.float32),
        np.array([bias for _, bias in fitted], np.float32),
    )


def _logistic(rows: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Doubles, float]:
    """L2-regularised, class-balanced logistic regression by Newton's method."""
    if not positive.any():
        return np.zeros(rows.shape[1]), -10.0
    x = np.column_stack([rows, np.ones(len(rows))]).astype(np.float64)
    weight = np.where(positive, 0.5 / positive.sum(), 0.5 / max(1, (~positive).sum()))
    penalty = np.full(x.shape[1], REGULARISATION)
    penalty[-1] = 0.0
    solution = np.zeros(x.shape[1])
    for _ in range(NEWTON_STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(x @ solution, -30, 30)))
        gradient = x.T @ (weight * (chance - positive)) + penalty * solution
        curve = weight * np.maximum(chance * (1.0 - chance), 1e-4)
        step = np.linalg.solve((x * curve[:, None]).T @ x + np.diag(penalty), gradient)
        solution -= step
        if np.abs(step).max() < 1e-4:
            break
    return solution[:-1], float(solution[-1])


def best_limits(logits: Floats, share: Floats) -> list[float]:
    """For each class the logit from which on positions overlap best with the masks.

    logits, share: (n, P, K), logits out-of-fold. Intersection over union of areas.
    """
    limits = []
    for k in range(logits.shape[2]):
        overlaps = []
        for limit in LIMITS:
            seen = logits[..., k] >= limit
            both = share[..., k][seen].sum()
            either = seen.sum() + share[..., k][~seen].sum()
            overlaps.append(both / either if either else 0.0)
        limits.append(float(LIMITS[int(np.argmax(overlaps))]))
    return limits
