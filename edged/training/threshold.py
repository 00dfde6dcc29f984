"""Changing a model's threshold after training: by hand or by a budget, without a new model.

Owns the record of changes in spec.json. A threshold that differs from the last entry was changed
by other means, and the model is refused (wire/spec.py): what decides about parts leaves a trace.
"""

from __future__ import annotations

import getpass
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edged.core.errors import InvalidInput, ModelError
from edged.training.export.folder import rewrite_spec
from edged.training.figures.budget import Budget, Setting, setting
from edged.training.figures.calibration import THRESHOLD
from edged.wire.spec import SPEC, read_spec

UNBUDGETED = {
    True: "best F1 of the out-of-fold scores, smoothed",
    False: "two deviations above the median out-of-fold score of normal parts",
}
"""Why the threshold of a training without budget is what it is; by: anomalies were labelled."""


def first_entry(threshold: float, reason: str, found: Setting | None) -> dict[str, Any]:
    """The first record, written by training. Holds no time: equal data, equal file."""
    entry: dict[str, Any] = {"threshold": threshold, "reason": reason}
    if found is not None:
        entry["supported"] = found.as_fact()
    return entry


def change(model: Path, wanted: float | Budget, reason: str) -> dict[str, Any]:
    """Set the threshold of the model folder and record it; what was done, as one object.

    A daemon that runs the model takes the new threshold when it starts the model again.
    Raises InvalidInput, and ModelError for a folder that is no sound model.
    """
    before = read_spec(model).threshold
    path = model / SPEC
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    found: Setting | None = None
    if isinstance(wanted, Budget):
        scores = facts.get("out_of_fold")
        if not isinstance(scores, dict):
            raise ModelError(f"{path}: holds no out-of-fold scores; train the model again.")
        most = THRESHOLD if facts["calibration"]["guards"] else 1.0
        found = setting(wanted, scores["normal"], scores["anomaly"], most)
        threshold, reason = found.threshold, reason or described(wanted)
    elif 0.0 <= wanted <= 1.0:
        threshold = wanted
    else:
        raise InvalidInput(f"threshold {wanted}: give a number from 0 to 1.")
    if not reason:
        raise InvalidInput("Say why with --reason: the change is recorded with it.")
    entry = first_entry(threshold, reason, found)
    entry["at"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
    entry["by"] = _user()
    facts["threshold"] = threshold
    facts["thresholds"] = [*facts["thresholds"], entry]
    rewrite_spec(model, facts)
    report = {"model": str(model), "before": before, **entry}
    return {**report, "words": found.words} if found else report


def described(budget: Budget) -> str:
    """A budget in words, for the record."""
    what = budget.kind.replace("_", " ")
    return f"at most {budget.rate:g} {what} with {budget.confidence:g} confidence"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in a container
        return "unknown"
