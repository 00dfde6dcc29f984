"""What counts of successes say about a rate: exact binomial bounds (Clopper and Pearson, 1934).

Pure arithmetic; no scipy, because a bisection on the binomial sum is enough here.
"""

from __future__ import annotations

import math
from collections.abc import Callable

STEPS = 60  # halvings of 0..1: far below the precision of a double


def upper_bound(events: int, trials: int, confidence: float) -> float:
    """The rate that the true one does not exceed, with this confidence; 1.0 without trials."""
    if events >= trials:
        return 1.0
    return _root(lambda rate: _at_most(events, trials, rate), 1.0 - confidence)


def lower_bound(events: int, trials: int, confidence: float) -> float:
    """The rate that the true one does not fall below, with this confidence."""
    return 1.0 - upper_bound(trials - events, trials, confidence) if events else 0.0


def interval(events: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Both bounds, each with half of the doubt."""
    each = 1.0 - (1.0 - confidence) / 2.0
    return lower_bound(events, trials, each), upper_bound(events, trials, each)


def trials_needed(rate: float, confidence: float, events: int = 0) -> int:
    """How many trials with so many events show that the rate is at most `rate`."""
    if events:
        low, high = events, 2 * events + 2
        while upper_bound(events, high, confidence) > rate:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (low, middle) if upper_bound(events, middle, confidence) <= rate else (middle, high)
            )
        return high
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


def most_events(trials: int, rate: float, confidence: float) -> int | None:
    """The most events in so many trials that still show at most `rate`; None = not even none."""
    if upper_bound(0, trials, confidence) > rate:
        return None
    low, high = 0, trials  # low shows it, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if upper_bound(middle, trials, confidence) <= rate else (low, middle)
        )
    return low


def _at_most(events: int, trials: int, rate: float) -> float:
    """P(X <= events) for X binomial, 0 < rate < 1."""
    total = 0.0
    for k in range(events + 1):
        ways = math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)
        total += math.exp(ways + k * math.log(rate) + (trials - k) * math.log1p(-rate))
    return total


def _root(falling: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2.0
        if falling(middle) > target:
            low = middle
        else:
            high = middle
    return high
