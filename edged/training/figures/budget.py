"""A threshold for a budget: at most so many good parts rejected, or so many bad ones let through.

Owns the choice of a threshold from out-of-fold scores, and the words on what the pictures can
support. Changes no model: the threshold stands beside the graph, in spec.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edged.core.errors import InvalidInput
from edged.training.figures.bounds import most_events, trials_needed, upper_bound

CONFIDENCE = 0.95
DECIMALS = 4  # as hosting/decide.py compares


@dataclass(frozen=True, slots=True)
class Budget:
    """What is asked for: a rate in 0..1 of false rejects or of escapes, and how surely."""

    kind: Literal["false_rejects", "escapes"]
    rate: float
    confidence: float = CONFIDENCE


@dataclass(frozen=True, slots=True)
class Setting:
    """A threshold and what can be said of it.

    events of trials: how many of the pictures it is about are on the wrong side of it.
    bound: the rate that the true one does not exceed, with the budget's confidence.
    needed: how many more pictures would support the budget; 0 when these do.
    """

    threshold: float
    events: int
    trials: int
    bound: float
    needed: int
    words: str

    def as_fact(self) -> dict[str, Any]:
        """For spec.json and --json."""
        return {
            "events": self.events,
            "pictures": self.trials,
            "bound": round(self.bound, 6),
            "more_pictures_needed": self.needed,
        }


def setting(
    budget: Budget, normal: Sequence[float], anomalous: Sequence[float], most: float = 1.0
) -> Setting:
    """The threshold that keeps the budget and is best for the other side; scores out-of-fold.

    most: no threshold goes above it. Where a model has guards, what they reject scores 0.5 or
    more, and a higher threshold would let a black picture pass.

    When the pictures cannot support the budget, the threshold that is safest for it, and words
    that say how many pictures are missing. Raises InvalidInput for a rate or confidence that is
    none, and when there is no picture of the kind that the budget is about.
    """
    for name, value in (("rate", budget.rate), ("confidence", budget.confidence)):
        if not 0.0 < value < 1.0:
            raise InvalidInput(f"{name} {value}: give a number between 0 and 1, as 0.01 for 1 %.")
    about_normal = budget.kind == "false_rejects"
    scores = sorted(round(float(s), DECIMALS) for s in (normal if about_normal else anomalous))
    kind = "normal" if about_normal else "anomalous"
    if not scores:
        raise InvalidInput(
            f"No {kind} picture was in training, so nothing is known of {budget.kind}: train with "
            "some."
        )
    allowed = most_events(len(scores), budget.rate, budget.confidence)
    spared = allowed or 0
    step = 10.0**-DECIMALS
    if about_normal:  # rejected is what lies at or above the threshold
        limit = min(1.0, scores[-1 - spared] + step) if spared < len(scores) else 0.0
        threshold = min(most, round(limit, DECIMALS))
        events = sum(score >= threshold for score in scores)
    else:  # let through is what lies below it
        threshold = min(most, scores[spared] if spared < len(scores) else 1.0)
        events = sum(score < threshold for score in scores)
    bound = upper_bound(events, len(scores), budget.confidence)
    missing = trials_needed(budget.rate, budget.confidence, events) - len(scores)
    needed = 0 if bound <= budget.rate else max(missing, 1)
    words = _words(budget, kind, events, len(scores), bound, needed)
    if threshold == most < 1.0:
        words += f" A threshold above {most:g} would let pass what is no part at all."
    others = anomalous if about_normal else normal
    wrong = sum((round(float(s), DECIMALS) < threshold) is about_normal for s in others)
    if others:
        what = "anomalous pictures pass" if about_normal else "normal pictures are rejected"
        words += f" At this threshold {wrong} of {len(others)} {what}."
    return Setting(threshold, events, len(scores), bound, needed, words)


def _words(budget: Budget, kind: str, events: int, trials: int, bound: float, needed: int) -> str:
    what = "false rejects" if budget.kind == "false_rejects" else "escapes"
    said = (
        f"{events} of {trials} {kind} pictures are on the wrong side: at most {bound:.2%} {what}, "
        f"with {budget.confidence:.0%} confidence"
    )
    if not needed:
        return f"{said}."
    return (
        f"{said}. That does not show {budget.rate:.2%}: at least {needed} more {kind} pictures are "
        "needed."
    )


def asked_budget(
    false_rejects: float | None, escapes: float | None, confidence: float
) -> Budget | None:
    """The budget that somebody asked for, if any. Raises InvalidInput for both at once."""
    if false_rejects is not None and escapes is not None:
        raise InvalidInput(
            "Give --false-rejects or --escapes, not both: one threshold, one budget."
        )
    if false_rejects is not None:
        return Budget("false_rejects", false_rejects, confidence)
    return None if escapes is None else Budget("escapes", escapes, confidence)
