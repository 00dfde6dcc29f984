"""How well scores tell normal from anomalous. Pure; knows no picture and no file.

Every function takes scores where higher means more anomalous, and labels True for anomalous.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.bool_]


def auroc(scores: Scores, labels: Labels) -> float | None:
    """Chance that an anomalous score exceeds a normal one; a tie counts half.

    None when one class is absent. Raises ValueError on a score that is no number.
    """
    if not np.isfinite(scores).all():
        raise ValueError("a score is not finite")
    positives = int(labels.sum())
    negatives = labels.size - positives
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]
    above = ranks[labels].sum() - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


def average_precision(scores: Scores, labels: Labels) -> float | None:
    """Mean precision over the anomalous pictures, from the most to the least suspicious.

    Ties are taken together. None when there are no anomalous pictures.
    """
    curve = precision_recall(scores, labels)
    if curve is None:
        return None
    recall, precision = curve
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def precision_recall(
    scores: Scores, labels: Labels
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Recall (rising) and precision at each distinct score as threshold, from high to low."""
    if not labels.any():
        return None
    order = np.argsort(-scores, kind="stable")
    ranked, hit = scores[order], labels[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    hits = np.cumsum(hit)[last]
    return hits / labels.sum(), hits / (last + 1.0)


@dataclass(frozen=True, slots=True)
class Confusion:
    """Counts of decisions against the truth; positive means anomalous."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def precision(self) -> float | None:
        """Share of rejected parts that are anomalous; None when none was rejected."""
        return _ratio(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float | None:
        """Share of anomalous parts that are rejected; None when there are none."""
        return _ratio(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float | None:
        """Harmonic mean of precision and recall; None when there are no anomalous parts."""
        if self.true_positives + self.false_negatives == 0:
            return None
        errors = self.false_positives + self.false_negatives
        return _ratio(2 * self.true_positives, 2 * self.true_positives + errors)

    @property
    def false_reject_rate(self) -> float | None:
        """Share of normal parts that are rejected; None when there are none."""
        return _ratio(self.false_positives, self.false_positives + self.true_negatives)

    @property
    def escape_rate(self) -> float | None:
        """Share of anomalous parts that pass; None when there are none."""
        return _ratio(self.false_negatives, self.true_positives + self.false_negatives)


def confusion(decisions: Labels, labels: Labels) -> Confusion:
    """Count decisions (True = rejected) against labels."""
    return Confusion(
        true_positives=int((decisions & labels).sum()),
        false_positives=int((decisions & ~labels).sum()),
        true_negatives=int((~decisions & ~labels).sum()),
        false_negatives=int((~decisions & labels).sum()),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def class_metrics(both: int, seen: int, there: int) -> dict[str, float]:
    """precision, recall, f1, iou of pixels that are both seen and there, are seen, are there."""
    precision, recall = both / seen if seen else 0.0, both / there if there else 0.0
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    either = seen + there - both
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "iou": both / either if either else 0.0,
    }


class PixelAuroc:
    """AUROC over any number of pixels in bounded memory: values are counted in bins.

    Bins are fine where limits lie (1.0) and coarse far above; a tie within a bin counts half.
    """

    BINS = 65536

    def __init__(self) -> None:
        self._counts = np.zeros((2, self.BINS), np.int64)

    def add(self, values: Scores, labels: Labels) -> None:
        """Count one picture: values in units of the pixel limit and labels of the same shape."""
        if values.shape != labels.shape:
            raise ValueError(f"map {values.shape} and mask {labels.shape} differ in size")
        clipped = np.clip(np.nan_to_num(values, nan=np.inf), 0.0, None).astype(np.float64)
        share = 1.0 - 1.0 / (1.0 + clipped)  # 0..inf onto 0..1, keeps order
        bins = np.minimum((share * self.BINS).astype(np.int64), self.BINS - 1)
        for label in (0, 1):
            chosen = bins[labels == bool(label)]
            self._counts[label] += np.bincount(chosen, minlength=self.BINS)

    @property
    def value(self) -> float | None:
        """The AUROC so far; None while one class is absent."""
        normal, anomalous = (row.astype(np.float64) for row in self._counts)
        if not normal.sum() or not anomalous.sum():
            return None
        below = np.cumsum(normal) - normal
        return float((anomalous * (below + normal / 2)).sum() / (normal.sum() * anomalous.sum()))
