"""Do all engines give the same verdicts? Judges the pictures of a set on each and compares.

    python benchmarks/engines_agree.py MODEL PICTURES     a model folder, a data set or a folder

The trainer's runtime (ONNX Runtime, fp32) is what the others are compared with.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edged.core.errors import EdgedError
from edged.engines.candidate import ENGINES, installed
from edged.tools.judge import Judge, pictures


def main() -> None:
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    files = list(pictures([folder]))
    found: dict[str, list[tuple[float, bool]]] = {}
    for engine in (name for name in ENGINES if name in installed()):
        try:
            with Judge(model, engine) as judge:
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
        print(json.dumps({**row, "largest_score_difference": round(largest, 6)}))


if __name__ == "__main__":
    main()
