"""Does FP16 in the graph change a verdict? Judges a set with the FP32 graph and its FP16 twin.

The twin is what `edged compile` builds TensorRT's plan of (training/onnx/half.py), here run by ONNX
Runtime on the CPU, which rounds where the graph says so. Printed: pictures, verdicts that flip, the
largest difference of a score, and that over the largest score of the set. What the kernels of a GPU
add to it is not shown here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.support.command import add_model, add_pictures, question
from benchmarks.support.figures import show
from edged.core.types import Image, ModelSpec
from edged.engines import choose
from edged.engines.onnxruntime import OnnxRuntimeLoader
from edged.tools.judge import pictures
from edged.tools.plan_build import golden_pictures
from edged.training.onnx.half import half_graph, input_means
from edged.wire import imaging
from edged.wire.spec import MODEL, read_spec


def scores(graph: bytes, spec: ModelSpec, rows: list[Image]) -> npt.NDArray[np.float32]:
    """Of each picture, one at a time."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / MODEL
        file.write_bytes(graph)
        loader = OnnxRuntimeLoader(file, spec)
    engine, found = loader.open(), []
    for row in rows:
        engine.input[0] = row
        found.append(engine.infer(1).scores[0])
    engine.close()
    loader.close()
    return np.array(found)


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_model(made)
    add_pictures(made)
    return made


def main() -> int:
    """Print one object."""
    given = parser().parse_args()
    folder = given.model
    spec, full = read_spec(folder), (folder / MODEL).read_bytes()
    rows: list[Image] = []
    for file in pictures([given.pictures]):
        row: Image = np.empty((spec.height, spec.width, 3), np.uint8)
        imaging.resize_into(imaging.read(file), row)
        rows.append(row)
    exact = scores(full, spec, rows)
    facts: dict[str, object] = {"pictures": len(rows)}
    means = input_means(full, choose.extractor, golden_pictures(folder, spec))
    for name, half in (
        ("plainly rounded", half_graph(full)),
        ("as built", half_graph(full, means)),
    ):
        other = scores(half, spec, rows)
        worst = float(np.abs(exact - other).max())
        facts[name] = {
            "flips": int(((exact >= spec.threshold) != (other >= spec.threshold)).sum()),
            "largest_difference": round(worst, 6),
            "over_largest_score": round(worst / float(exact.max()), 6),
        }
    show(facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
