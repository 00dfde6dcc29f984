"""Every benchmark starts the way `make bench` starts it, and stands in benchmarks/README.md."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "benchmarks").glob("[!_]*.py"))


def said(*words: str) -> str:
    """What it says without help from the environment; wide enough that no line is broken."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"COLUMNS": "200"}
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows() -> dict[str, list[str]]:
    """README.md's table: question, arguments and time of each benchmark."""
    lines = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    table = [[cell.strip() for cell in x.split("|")[1:-1]] for x in lines if x.startswith("| `")]
    return {name.strip("`"): more for name, *more in table}


@pytest.mark.parametrize("name", NAMES)
def test_help_says_the_question_and_the_arguments_as_the_readme_does(name: str) -> None:
    usage, _, question, *_ = said(f"benchmarks.{name}", "--help").splitlines()
    start, _, arguments = usage.partition(" [-h]")
    assert start == f"usage: {name}"
    assert rows()[name][:2] == [question, f"`{arguments.strip()}`" if arguments else ""]


def test_the_readme_and_the_list_name_all_benchmarks_and_no_other() -> None:
    assert list(rows()) == NAMES
    listed = [line for line in said("benchmarks").splitlines()[2:] if not line.startswith(" ")]
    assert [line.split()[0] for line in listed] == NAMES
