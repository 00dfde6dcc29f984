"""Plans that are kept: found by what they depend on, trusted only if nobody touched them."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest

from edged.core.errors import EngineError
from edged.engines.plan import MOST, Plans, PlanSpec

SPEC = PlanSpec("a" * 64, "fp16", 4)
MACHINE = {"tensorrt": "10.3.0", "cuda": "12.6", "gpu": "Orin sm_87", "l4t": "36.4.4"}


def test_a_plan_has_another_name_for_whatever_it_depends_on() -> None:
    names = {
        SPEC.key(MACHINE),
        *(replace(SPEC, **{key: value}).key(MACHINE) for key, value in (  # type: ignore[arg-type]
            ("sha256", "b" * 64), ("precision", "fp32"), ("batch", 8), ("workspace", 1),
        )),
        *(SPEC.key({**MACHINE, key: "other"}) for key in MACHINE),
    }  # fmt: skip
    assert len(names) == 1 + len(fields(PlanSpec)) + len(MACHINE)
    assert SPEC.key(dict(reversed(MACHINE.items()))) == SPEC.key(MACHINE)


def test_a_kept_plan_is_found_by_its_owner_alone(tmp_path: Path) -> None:
    plans = Plans(tmp_path / "plans")
    assert plans.find("k") is None
    plans.keep("k", b"plan", {"model": "flange"})
    assert plans.find("k") == b"plan"
    path = tmp_path / "plans" / "k.plan"
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o077 == 0
    assert json.loads((tmp_path / "plans" / "k.json").read_text())["model"] == "flange"
    assert {p.name for p in path.parent.iterdir()} == {"k.plan", "k.json"}


@pytest.mark.parametrize("fault", ["changed", "cut off", "open to others", "no sum", "no JSON"])
def test_a_plan_that_cannot_be_trusted_is_removed_and_said(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    plans, path, sidecar = Plans(tmp_path), tmp_path / "k.plan", tmp_path / "k.json"
    plans.keep("k", b"plan of some length", {})
    if fault == "changed":
        path.write_bytes(b"Plan of some length")
    elif fault == "cut off":
        path.write_bytes(b"plan")
    elif fault == "open to others":
        path.chmod(0o666)
    else:
        sidecar.write_text("{}" if fault == "no sum" else "no JSON")
    with caplog.at_level(logging.WARNING):
        assert plans.find("k") is None
    assert "plan k is removed" in caplog.text
    assert not path.exists() and not sidecar.exists()
    plans.keep("k", b"built anew", {})
    assert plans.find("k") == b"built anew"


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file")
    with pytest.raises(EngineError, match="a plan cannot be kept"):
        Plans(tmp_path / "plans").keep("k", b"plan", {})


def test_a_plan_takes_the_place_of_the_same_for_another_machine_and_of_no_other(
    tmp_path: Path,
) -> None:
    plans, mine = Plans(tmp_path), {"sha256": "a", "precision": "fp16", "batch": 8}
    plans.keep("before", b"JetPack 6", {"what": mine})
    plans.keep("other", b"another model", {"what": {**mine, "sha256": "b"}})
    plans.keep("timing-1", b"times", {"what": "timing cache"})
    plans.keep("after", b"JetPack 7", {"what": mine})
    assert [plans.find(k) for k in ("before", "other", "timing-1", "after")] == [
        None, b"another model", b"times", b"JetPack 7",
    ]  # fmt: skip
    assert plans.has("after") and not plans.has("before")


def test_the_plans_of_models_that_are_gone_do_not_fill_the_disk(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    for number in range(MOST + 3):
        plans.keep(str(number), b"plan", {"what": number})
        os.utime(tmp_path / f"{number}.json", (number, number))
        if number:
            assert plans.find("0") == b"plan"  # the one that serves
    kept = {path.stem for path in tmp_path.glob("*.plan")}
    assert len(kept) == MOST and {"0", str(MOST + 2)} <= kept and "1" not in kept


def test_a_sidecar_without_its_plan_is_no_plan(tmp_path: Path) -> None:
    plans = Plans(tmp_path)
    plans.keep("k", b"plan", {})
    (tmp_path / "k.plan").unlink()
    assert not plans.has("k") and plans.find("k") is None
