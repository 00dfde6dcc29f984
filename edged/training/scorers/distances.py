"""What is fitted: four scorers, each a few arrays, each with its scores in numpy.

Owns the arithmetic that export/graph.py repeats as ONNX nodes; fit.py checks that both agree. Knows
no threshold and no unit: those are figures/calibration.py's.

    PositionGaussian   per grid position, how far from what is normal there (aligned parts)
    Gaussian, pooled   per grid position, how far from what is normal anywhere (textures, poses)
    Gaussian, whole    how unusual the picture is as a whole
    Supervised         logistic regression towards the labelled anomalies, when there are enough
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats
from edged.training.features.view import fixed_signs

RANK = 16  # directions kept per position; 8 to 32 measured alike
ISOTROPIC = 0.1  # share of the mean variance added to every direction: pictures are few
BLUR = 1.0  # deviation in grid positions
BLUR_REACH = 3  # deviations
TOP = 0.003  # share of positions whose mean is the score of the Gaussians by position
POOLED_TOP = 0.02  # and of the pooled one: without a place of its own a position is noisier
TOP_LEAST = 3
POOLED_RIDGE = 1e-3  # of the mean variance; 1e-4 to 1 measured alike
CHUNK = 64  # positions worked on at once: bounds memory
REGULARISATION = 0.003
NEWTON_STEPS = 25

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PositionGaussian:
    """mean (P, D); axes (P, D, R); shrink (P, R), how much of each axis is normal; scale (P,)."""

    mean: Floats
    axes: Floats
    shrink: Floats
    scale: Floats

    def distances(self, local: npt.NDArray[np.floating]) -> Floats:
        """Mahalanobis distance (n, P) of projected locals (n, P, D)."""
        result = np.empty(local.shape[:2], np.float32)
        for start in range(0, local.shape[1], CHUNK):
            part = slice(start, start + CHUNK)
            off = local[:, part].astype(np.float32).transpose(1, 0, 2) - self.mean[part, None]
            along = (off @ self.axes[part]) * self.shrink[part, None]
            rest = off - along @ self.axes[part].transpose(0, 2, 1)
            result[:, part] = (np.sqrt((rest**2).sum(-1)) * self.scale[part, None]).T
        return result


def fit_positions(local: npt.NDArray[np.floating]) -> PositionGaussian:
    """Fit to projected locals (n, P, D) of normal pictures, n >= 2.

    The covariance at a position is taken as its RANK main directions plus the same variance in
    all directions: with tens of pictures the rest of it is noise.
    """
    count, positions, dimensions = local.shape
    rank = min(RANK, count - 1, dimensions - 1)
    fitted = PositionGaussian(
        np.empty((positions, dimensions), np.float32),
        np.empty((positions, dimensions, rank), np.float32),
        np.empty((positions, rank), np.float32),
        np.empty(positions, np.float32),
    )
    for start in range(0, positions, CHUNK):
        part = slice(start, start + CHUNK)
        rows = local[:, part].astype(np.float32).transpose(1, 0, 2)
        mean = rows.mean(axis=1, keepdims=True)
        off = rows - mean
        covariance = (off.transpose(0, 2, 1) @ off).astype(np.float64) / (count - 1)
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[:, ::-1].clip(min=0), vectors[:, :, ::-1][:, :, :rank]
        total = values.sum(axis=1)
        rest = (total - values[:, :rank].sum(axis=1)) / (dimensions - rank)
        base = rest + ISOTROPIC * total / dimensions + 1e-6
        excess = (values[:, :rank] - rest[:, None]).clip(min=0)
        fitted.mean[part] = mean[:, 0]
        fitted.axes[part] = fixed_signs(vectors)
        fitted.shrink[part] = 1.0 - np.sqrt(base[:, None] / (base[:, None] + excess))
        fitted.scale[part] = 1.0 / np.sqrt(base)
    return fitted


def blur_matrix(side: int, deviation: float = BLUR) -> Floats:
    """(side, side): B @ map @ B.T is the map blurred, with weights that sum to 1 at borders too."""
    steps = np.arange(side)[:, None] - np.arange(side)[None, :]
    reach = BLUR_REACH * deviation
    weights = np.where(abs(steps) <= reach, np.exp(-((steps / deviation) ** 2) / 2), 0.0)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def blurred(distances: Floats, grid: tuple[int, int]) -> Floats:
    """(n, P) -> (n, P), smoothed on the grid of (rows, columns)."""
    rows, columns = grid
    maps = blur_matrix(rows) @ distances.reshape(-1, rows, columns) @ blur_matrix(columns).T
    return np.asarray(maps.reshape(distances.shape), np.float32)


def top_count(positions: int, share: float) -> int:
    """How many positions make the score."""
    return max(TOP_LEAST, math.ceil(share * positions))


def top_mean(maps: Floats, share: float) -> Floats:
    """The score (n,) of distances (n, P): the mean of the largest `share` of them."""
    count = top_count(maps.shape[1], share)
    largest = np.partition(maps, maps.shape[1] - count, axis=1)[:, -count:]
    return np.asarray(largest.mean(axis=1), np.float32)


@dataclass(frozen=True, slots=True)
class Gaussian:
    """mean (D,); factor (D, D) with factor @ factor.T = inverse covariance."""

    mean: Floats
    factor: Floats

    def distances(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """Mahalanobis distance (n,) of (n, D), or (n, P) of (n, P, D)."""
        result = np.empty(vectors.shape[:-1], np.float32)
        for index, row in enumerate(vectors):  # one picture at once bounds memory
            white = (row.astype(np.float32) - self.mean) @ self.factor
            result[index] = np.sqrt((white**2).sum(axis=-1))
        return result


def fit_whole(statistics: Floats) -> Gaussian:
    """Fit to (n, D) of normal pictures; covariance shrunk as Ledoit and Wolf say."""
    rows = statistics.astype(np.float64)
    mean = rows.mean(axis=0)
    return _gaussian(mean, ledoit_wolf(rows - mean))


def fit_pooled(local: npt.NDArray[np.floating]) -> Gaussian:
    """Fit to projected locals (n, P, D) of normal pictures, whatever their position."""
    count, dimensions = 0, local.shape[2]
    total, products = np.zeros(dimensions), np.zeros((dimensions, dimensions))
    for picture in local:
        rows = picture.astype(np.float64)
        count += len(rows)
        total += rows.sum(axis=0)
        products += rows.T @ rows
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    ridge = POOLED_RIDGE * np.trace(covariance) / dimensions + 1e-9
    return _gaussian(mean, covariance + ridge * np.eye(dimensions))


def _gaussian(mean: Doubles, covariance: Doubles) -> Gaussian:
    lower = np.linalg.cholesky(covariance)
    factor = np.linalg.solve(lower, np.eye(len(lower))).T
    return Gaussian(mean.astype(np.float32), factor.astype(np.float32))


def ledoit_wolf(centred: Doubles) -> Doubles:
    """Covariance of centred rows (n, D), drawn towards a multiple of the identity."""
    count, dimensions = centred.shape
    sample = centred.T @ centred / count
    level = np.trace(sample) / dimensions + 1e-9
    target = level * np.eye(dimensions)
    distance = ((sample - target) ** 2).sum()
    squares = centred**2
    noise = ((squares.T @ squares).sum() / count - (sample**2).sum()) / count
    amount = float(np.clip(noise / distance, 0.0, 1.0)) if distance > 0 else 1.0
    amount = max(amount, 1e-4)  # keeps it invertible
    return np.asarray(amount * target + (1.0 - amount) * sample)


@dataclass(frozen=True, slots=True)
class Supervised:
    """weights (D,) and bias: logits of being anomalous."""

    weights: Floats
    bias: float

    def logits(self, vectors: Floats) -> Floats:
        """(n,) of (n, D)."""
        return np.asarray(vectors @ self.weights + np.float32(self.bias), np.float32)


def fit_supervised(vectors: Floats, anomalous: npt.NDArray[np.bool_]) -> Supervised:
    """L2-regularised, class-balanced logistic regression; needs both classes.

    Newton's method on the kernel: pictures are fewer than dimensions.
    """
    rows = vectors.astype(np.float64)
    mean, deviation = rows.mean(axis=0), rows.std(axis=0) + 1e-6
    rows = (rows - mean) / deviation
    count = len(rows)
    share = np.where(anomalous, anomalous.sum(), (~anomalous).sum())
    cost = REGULARISATION * count / (2.0 * share)
    system: npt.NDArray[Any] = np.zeros((count + 1, count + 1))
    system[:count, :count] = kernel = rows @ rows.T
    system[:count, count] = system[count, :count] = 1.0
    alpha: npt.NDArray[Any] = np.zeros(count)
    bias = 0.0
    for _ in range(NEWTON_STEPS):
        logits = kernel @ alpha + bias
        chance = 1.0 / (1.0 + np.exp(-np.clip(logits, -40, 40)))
        gradient = cost * (chance - anomalous)
        curve = np.maximum(cost * chance * (1.0 - chance), 1e-9)
        system[np.arange(count), np.arange(count)] = kernel.diagonal() + 1.0 / curve
        solved = np.linalg.solve(system, np.append(logits - gradient / curve, 0.0))
        step = solved[:count] - alpha
        alpha, bias = solved[:count], float(solved[count])
        if np.abs(step).max() < 1e-10:
            break
    weights = rows.T @ alpha / deviation
    return Supervised(weights.astype(np.float32), float(bias - mean @ weights))
