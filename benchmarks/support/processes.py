"""Processes that benchmarks start: the daemon, and servers that a benchmark has in its own file."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def edged_run(config: Path, *options: str, **more: Any) -> subprocess.Popen[bytes]:
    """The daemon of this checkout; `more` is for Popen."""
    command = [sys.executable, "-m", "edged.cli", "run", *options, "--config", str(config)]
    return subprocess.Popen(command, cwd=ROOT, **more)


def module(name: str, *arguments: object) -> list[str]:
    """The command that runs a module of benchmarks/, with ROOT as its folder."""
    return [sys.executable, "-m", f"benchmarks.{name}", *map(str, arguments)]


def serving(name: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A benchmark run as a server, once it says that it is `ready`."""
    process = subprocess.Popen(module(name, *arguments), stdout=subprocess.PIPE, cwd=ROOT)
    if process.stdout is None or process.stdout.readline() != b"ready\n":
        raise SystemExit(f"{name} {arguments[0]} did not start")
    return process


def metrics(port: int) -> str:
    """The daemon's metrics, as Prometheus reads them."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text: str = answer.read().decode()
    return text
