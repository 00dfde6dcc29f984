"""Thresholds by budget: what the pictures support, and the record of every change."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.cli.main import main
from edged.core.errors import InvalidInput
from edged.training.figures.bounds import (
    interval,
    lower_bound,
    most_events,
    trials_needed,
    upper_bound,
)
from edged.training.figures.budget import Budget, setting


def test_bounds_are_those_of_clopper_and_pearson() -> None:
    # Tabulated values, 95 % two-sided: 3 of 50, 0 of 30, 30 of 30.
    assert interval(3, 50) == pytest.approx((0.01255, 0.16548), abs=1e-5)
    assert interval(0, 30) == pytest.approx((0.0, 0.11570), abs=1e-5)
    assert interval(30, 30) == pytest.approx((0.88430, 1.0), abs=1e-5)
    assert upper_bound(0, 0, 0.95) == 1.0
    assert lower_bound(0, 10, 0.95) == 0.0


def test_the_rule_of_three_says_how_many_pictures_a_rate_needs() -> None:
    needed = trials_needed(0.001, 0.95)
    assert needed == 2995
    assert upper_bound(0, needed, 0.95) <= 0.001 < upper_bound(0, needed - 1, 0.95)
    assert most_events(needed, 0.001, 0.95) == 0
    assert most_events(needed - 1, 0.001, 0.95) is None


def test_a_budget_of_false_rejects_holds_on_parts_that_were_not_in_training() -> None:
    rng = np.random.default_rng(0)
    kept = 0
    for _ in range(200):
        found = setting(Budget("false_rejects", 0.1, 0.9), rng.beta(2, 9, 80).tolist(), [0.9])
        assert found.needed == 0
        kept += float((rng.beta(2, 9, 20000) >= found.threshold).mean()) <= 0.1
    assert kept >= 170, "90 % confidence: about 180 of 200"


def test_a_budget_of_escapes_takes_the_highest_threshold_that_keeps_it() -> None:
    anomalous = [round(0.5 + i / 200, 4) for i in range(100)]
    found = setting(Budget("escapes", 0.1), [0.1], anomalous)
    assert found.bound <= 0.1 < upper_bound(found.events + 1, 100, 0.95)
    assert sum(score < found.threshold for score in anomalous) == found.events > 0


def test_what_the_pictures_cannot_support_is_said_with_the_number_that_is_missing() -> None:
    found = setting(Budget("false_rejects", 0.001), [0.1, 0.2, 0.3], [0.9])
    assert found.threshold == 0.3001, "the safest there is"
    assert found.needed == 2992
    assert "at least 2992 more normal pictures are needed" in found.words


def test_a_budget_about_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="No anomalous picture was in training"):
        setting(Budget("escapes", 0.1), [0.1], [])
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        setting(Budget("escapes", 10), [0.1], [0.9])


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Path:
    """A copy of the model that the test may change."""
    return Path(shutil.copytree(model, tmp_path / "model"))


def facts(model: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((model / "spec.json").read_text(encoding="utf-8"))
    return found


def test_a_change_is_recorded_and_the_model_serves_with_it(
    own: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["threshold", str(own), "--value", "0.999", "--reason", "trial run", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["before"], report["threshold"], report["reason"]) == (0.5, 0.999, "trial run")
    first, last = facts(own)["thresholds"]
    assert first["threshold"] == 0.5 and "at" not in first
    assert last["threshold"] == 0.999 and last["by"] and last["at"].endswith("+00:00")
    main(["detect", str(own), str(parts), "--engine", "onnxruntime", "--json"])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {f["threshold"] for f in found} == {0.999}


def test_a_budget_changes_the_threshold_without_training(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["threshold", str(own), "--escapes", "0.3", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["supported"]["pictures"] == len(facts(own)["out_of_fold"]["anomaly"])
    assert "with 95% confidence" in report["words"]
    assert facts(own)["threshold"] == report["threshold"]


def test_a_threshold_that_was_edited_by_hand_is_refused(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (own / "spec.json").read_text(encoding="utf-8")
    (own / "spec.json").write_text(
        text.replace('"threshold": 0.5,\n  "th', '"threshold": 0.9,\n  "th')
    )
    assert facts(own)["threshold"] == 0.9
    assert main(["detect", str(own), str(own / "golden")]) == 1
    said = capsys.readouterr().err
    assert "threshold 0.9 is not the last recorded one" in said
    assert "use edged threshold" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--value", "1.5", "--reason", "x"], "give a number from 0 to 1"),
        (["--value", "0.4"], "Say why with --reason"),
        ([], "Give --value, --false-rejects or --escapes"),
        (["--escapes", "0.1", "--false-rejects", "0.1"], "not both"),
    ],
)
def test_a_change_that_makes_no_sense_changes_nothing(
    own: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    before = (own / "spec.json").read_bytes()
    assert main(["threshold", str(own), *words]) == 2
    assert said in capsys.readouterr().err
    assert (own / "spec.json").read_bytes() == before


def test_more_wrong_ones_need_more_pictures_than_none() -> None:
    needed = trials_needed(0.01, 0.95, events=3)
    assert upper_bound(3, needed, 0.95) <= 0.01 < upper_bound(3, needed - 1, 0.95)
    assert needed > trials_needed(0.01, 0.95) * 2


def test_what_the_budget_costs_on_the_other_side_is_said() -> None:
    found = setting(Budget("false_rejects", 0.5), [0.1] * 20 + [0.9], [0.5, 0.6, 0.95])
    assert "At this threshold 0 of 3 anomalous pictures pass" in found.words
    found = setting(Budget("false_rejects", 0.14), [0.1] * 20 + [0.9], [0.5, 0.6, 0.95])
    assert "At this threshold 2 of 3 anomalous pictures pass" in found.words


def test_no_budget_goes_above_what_the_guards_hold() -> None:
    normal, anomalous = [0.1] * 30 + [0.7, 0.8], [0.9] * 40
    free = setting(Budget("escapes", 0.1), normal, anomalous)
    assert free.threshold == 0.9
    held = setting(Budget("escapes", 0.1), normal, anomalous, most=0.5)
    assert (held.threshold, held.events, held.needed) == (0.5, 0, 0)
    assert "would let pass what is no part at all" in held.words
    rejects = setting(Budget("false_rejects", 0.1), normal, anomalous, most=0.5)
    assert (rejects.threshold, rejects.events) == (0.5, 2)
    assert rejects.bound > 0.1 and rejects.needed > 0
