"""The unit file as systemd itself judges it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "edged.service"


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with a program that exists here in place of the installed one."""
    if shutil.which("systemd-analyze") is None:
        if os.environ.get("EDGED_REQUIRE_ALL"):
            pytest.fail("systemd-analyze (Debian package systemd) is not installed")
        pytest.skip("systemd-analyze (Debian package systemd) is not installed")
    lines = UNIT.read_text(encoding="utf-8").splitlines()
    lines = ["ExecStart=/bin/true" if x.startswith("ExecStart=") else x for x in lines]
    path = tmp_path / "edged.service"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_the_unit_is_clean(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_unit_exposes_at_most_2_5(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
