"""Plans that are kept: found by what they depend on, trusted only if nobody touched them."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from edged.core.errors import EngineError
from edged.engines.plan import Plans, PlanSpec, plan_key

SPEC = PlanSpec("a" * 64, "fp16", 4)
MACHINE = {"tensorrt": "10.3.0", "cuda": "12.6", "gpu": "Orin sm_87", "l4t": "36.4.4"}


def test_a_plan_has_another_name_for_whatever_it_depends_on() -> None:
    names = {
        plan_key(SPEC, MACHINE),
        *(plan_key(replace(SPEC, **{key: value}), MACHINE) for key, value in (  # type: ignore[arg-type]
            ("sha256", "b" * 64), ("precision", "fp32"), ("batch", 8), ("workspace", 1),
            ("portable", True),
        )),
        *(plan_key(SPEC, {**MACHINE, key: "other"}) for key in MACHINE),
    }  # fmt: skip
    assert len(names) == 1 + 5 + len(MACHINE)
    assert plan_key(SPEC, dict(reversed(MACHINE.items()))) == plan_key(SPEC, MACHINE)


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
