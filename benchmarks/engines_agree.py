"""Do all engines give the same verdicts? Judges the pictures of a set on each and compares.

The trainer's runtime (ONNX Runtime, fp32) is what the others are compared with.
"""

from __future__ import annotations

import argparse

from benchmarks.support.command import add_model, add_pictures, question
from benchmarks.support.figures import show
from edged.core.errors import EdgedError
from edged.engines.choose import ENGINES, installed
from edged.tools.judge import Judge, pictures


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_model(made)
    add_pictures(made)
    return made


def main() -> None:
    given = parser().parse_args()
    files = list(pictures([given.pictures]))
    found: dict[str, list[tuple[float, bool]]] = {}
    for engine in (name for name in ENGINES if name in installed()):
        try:
            with Judge(given.model, engine) as judge:
                verdicts = [judge(judge.read(file)) for file in files]
        except EdgedError as error:
            print(f"{engine}: {error}")
            continue
        found[engine] = [(v.score, v.is_anomalous) for v in verdicts]
    base = found["onnxruntime"]
    for engine, judged in found.items():
        pairs = list(zip(base, judged, strict=True))
        largest = max(abs(a[0] - b[0]) for a, b in pairs)
        flips = sum(a[1] is not b[1] for a, b in pairs)
        row = {"engine": engine, "pictures": len(files), "flips": flips}
        show({**row, "largest_score_difference": largest}, digits=6)


if __name__ == "__main__":
    main()
