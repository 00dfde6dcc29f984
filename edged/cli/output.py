"""What the command line shows: reports and a progress bar."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edged.core.protocols import Progress


def print_report(report: dict[str, Any], as_json: bool) -> None:
    """One object, or its members a line each, on standard output."""
    if as_json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        if value in ([], {}):
            continue
        name = key.replace("_", " ")
        if isinstance(value, dict):
            print(f"{name:20} {', '.join(f'{k} {_short(v)}' for k, v in value.items())}")
        elif isinstance(value, list) and not isinstance(value[0], float):
            print(name)
            for row in value:
                cells = row.items() if isinstance(row, dict) else [("", row)]
                print("    " + ", ".join(f"{k} {_short(v)}".strip() for k, v in cells))
        else:
            print(f"{name:20} {_short(value)}")


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list):
        return " to ".join(map(_short, value))
    return "-" if value is None else str(value)


class Bar:
    """A progress bar on standard error; silent when it is no terminal or JSON was asked for."""

    def __init__(self, silent: bool) -> None:
        from rich.console import Console
        from rich.progress import Progress as Bars

        console = Console(stderr=True, quiet=silent)
        self._bars = Bars(
            console=console, transient=True, disable=silent or not console.is_terminal
        )
        self._stages: dict[str, Any] = {}
        self.show: Progress = self._show

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def _show(self, stage: str, done: int, total: int, **facts: Any) -> None:
        if stage not in self._stages:
            self._stages[stage] = self._bars.add_task(stage, total=total)
        speed = facts.get("per_second")
        words = f"{stage}, {speed:.0f}/s" if speed else stage
        self._bars.update(self._stages[stage], completed=done, total=total, description=words)
