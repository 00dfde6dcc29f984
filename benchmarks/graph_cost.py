"""What a model's graph costs over its bare backbone, on ONNX Runtime with one thread.

Both run on the same pictures in turns, so that a noisy machine disturbs both alike; the ratio is
of medians. Bare: from the picture's bytes to the backbone's last map.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.support.command import path, question
from edged.training.features.backbone import EfficientNetLite0
from edged.training.onnx.nodes import Nodes

ROUNDS = 200


def session(model: bytes) -> Any:
    """One thread, as a unit of the daemon runs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def bare(height: int, width: int) -> bytes:
    """The default backbone alone."""
    network, nodes = EfficientNetLite0(), Nodes(height, width)
    last = network.add(nodes)[-1]
    step = network.reductions[-1]
    shape: list[int | str] = ["N", network.channels[-1], height // step, width // step]
    return nodes.serialise([(last, shape)])


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    made.add_argument("models", metavar="MODEL", nargs="+", type=path, help="model folders")
    return made


def main() -> int:
    """Print one line for each model."""
    for folder in parser().parse_args().models:
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        height, width = spec["input"]["height"], spec["input"]["width"]
        runs = [session(bare(height, width)), session((folder / "model.onnx").read_bytes())]
        picture = np.random.default_rng(0).integers(0, 255, (1, height, width, 3), np.uint8)
        times: list[list[float]] = [[], []]
        for _ in range(ROUNDS):
            for run, taken in zip(runs, times, strict=True):
                began = time.perf_counter()
                run.run(None, {"image": picture})
                taken.append(time.perf_counter() - began)
        alone, whole = (statistics.median(taken[ROUNDS // 10 :]) for taken in times)
        names = ", ".join(row["name"] for row in spec["scorers"])
        print(
            f"{spec['name']} {height}x{width} ({names}): {whole / alone:.2f} x the backbone "
            f"({whole * 1e3:.2f} ms, {alone * 1e3:.2f} ms)"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
