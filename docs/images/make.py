"""Makes the pictures of the README again: runs the demo and keeps its last table and a heatmap.

python docs/images/make.py [SECONDS]

demo.svg is the table as the terminal shows it; heatmap.jpg a rejected flange and carton, each with
its heatmap beside it. Nothing is drawn by hand.
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from edged.wire import imaging

HERE = Path(__file__).resolve().parent
WIDTH = 73  # columns of the terminal
HALF = 400  # pixels, of one picture of a pair
TOP_LEFT = "┏"
LOADED = re.compile(r"\s*(@font-face \{.*?\}|<!--.*?-->)", re.S)
"""Of rich's picture: fonts that it would load from elsewhere, and its own address."""


def main() -> int:
    """Run the demo for the seconds given (20) and write both pictures."""
    seconds = sys.argv[1] if len(sys.argv) > 1 else "20"
    with tempfile.TemporaryDirectory(prefix="edged-demo-") as folder:
        command = [sys.executable, "-m", "edged.cli", "demo"]
        command += ["--seconds", seconds, "--output", folder]
        environment = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        report = json.loads(done.stdout.splitlines()[-1])
        write_table(last_table(done.stderr), HERE / "demo.svg")
        pairs = [Path(report["heatmaps"][name]) for name in ("flange", "carton")]
        write_heatmaps(pairs, HERE / "heatmap.jpg")
    return 0


def last_table(said: str) -> list[str]:
    """The lines of the last table that the demo drew, with its title and colours."""
    lines = said.splitlines()
    top = max(i for i, line in enumerate(lines) if TOP_LEFT in line)
    bottom = next(i for i in range(top, len(lines)) if "└" in lines[i])
    return lines[top - 1 : bottom + 1]


def write_table(lines: list[str], path: Path) -> None:
    """The lines as a picture of a terminal."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line), no_wrap=True, crop=True)
    drawn = console.export_svg(title="edged demo", unique_id="edged-demo")
    path.write_text(LOADED.sub("", drawn), encoding="utf-8")


def write_heatmaps(pairs: list[Path], path: Path) -> None:
    """Each picture with its heatmap beside it, one below the other."""
    rows = []
    for pair in pairs:
        image = imaging.read(pair)
        height = round(image.shape[0] * 2 * HALF / image.shape[1])
        row = np.empty((height, 2 * HALF, 3), np.uint8)
        imaging.resize_into(image, row)
        rows.append(row)
    path.write_bytes(imaging.encoded_jpeg(np.vstack(rows)))


if __name__ == "__main__":
    sys.exit(main())
