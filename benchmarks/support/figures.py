"""What becomes of measured times. Ratios are of medians: a busy machine moves both alike."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def ratio(over: Sequence[float], under: Sequence[float]) -> float:
    """How many times the median of the one is that of the other."""
    return statistics.median(over) / statistics.median(under)


def show(figures: Mapping[str, object], digits: int = 3) -> None:
    """Print one object on one line, its fractions with so many digits."""
    shown = {k: round(v, digits) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps(shown), flush=True)
