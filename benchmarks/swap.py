"""Whether a line notices that its model gets another engine.

Three cameras at full rate (each offers a picture as soon as the one before is answered), the engine
changed SWAPS times between ONNX Runtime and OpenVINO. Printed: parts lost and judged twice, the
longest gap between two answers of a camera while engines change, and the same without a change, in
the same run; both over the median cycle. Once with a core that no unit needs, once with none.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.support.command import add_model, add_number, question
from benchmarks.support.figures import show
from edged.core.observer import Observer
from edged.core.types import Image
from edged.engines.choose import EngineRequest, Engines
from edged.hosting.host import Host, HostingSpec
from edged.runtime.workers import Crew, Deadline
from edged.wire.spec import read_spec

CAMERAS = 3
PATIENCE = 120.0
CALM_SECONDS = 10.0
NAMES = ("onnxruntime", "openvino")


class Line:
    """Cameras that never rest, and when each of their parts was answered."""

    def __init__(self, host: Host, picture: Image) -> None:
        self.stop = threading.Event()
        self.answered: list[list[tuple[float, int]]] = [[] for _ in range(CAMERAS)]
        self.asked = [0] * CAMERAS
        self._host, self._picture = host, picture
        self._threads = [threading.Thread(target=partial(self._run, n)) for n in range(CAMERAS)]

    def __enter__(self) -> Line:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, camera: int) -> None:
        while not self.stop.is_set():
            self.asked[camera] += 1
            found = self._host.detect("m", self._picture).result(PATIENCE)
            self.answered[camera].append((time.perf_counter(), found.frame.sequence))

    def gaps(self, began: float, ended: float) -> list[float]:
        """Seconds between answers of one camera, within a time."""
        found = []
        for mine in self.answered:
            times = [at for at, _ in mine if began <= at <= ended]
            found += [b - a for a, b in pairwise(times)]
        return found


def swapped(folder: Path, swaps: int, units: int) -> dict[str, object]:
    """One run."""
    spec = read_spec(folder)
    loads = {
        name: Engines().candidates(folder, spec, EngineRequest(name, units, 1))[0] for name in NAMES
    }
    hosting = HostingSpec(
        "m", lambda: folder, read_spec, lambda *_: [loads[NAMES[0]]], units, queue=64
    )
    host = Host([hosting], Crew(), Observer(), Deadline())
    host.start("m")
    host.wait("m", PATIENCE)
    height, width = spec.image_size or (spec.height, spec.width)
    picture = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
    with Line(host, picture) as line:
        began = time.perf_counter()
        time.sleep(CALM_SECONDS)
        calm = time.perf_counter()
        for number in range(swaps):
            host.swap("m", loads[NAMES[(number + 1) % 2]])
            seen = host.wait("m", PATIENCE)
            if seen.message != "The model is running.":
                raise SystemExit(seen.message)
        ended = time.perf_counter()
    host.close()
    everything = [number for mine in line.answered for _, number in mine]
    quiet, busy = line.gaps(began, calm), line.gaps(calm, ended)
    cycle = statistics.median(quiet + busy)
    return {
        "units": units,
        "swaps": swaps,
        "parts": len(everything),
        "lost": sum(line.asked) - len(everything),
        "twice": len(everything) - len(set(everything)),
        "median_cycle_ms": round(cycle * 1e3, 2),
        "longest_gap_ms": round(max(busy) * 1e3, 2),
        "longest_over_median": round(max(busy) / cycle, 2),
        "longest_over_median_without_swaps": round(max(quiet) / cycle, 2),
    }


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_model(made)
    add_number(made, "swaps", 20, "how often the engine is changed")
    return made


def main() -> int:
    """Print an object for each run."""
    given = parser().parse_args()
    cores = os.cpu_count() or 1
    for units in sorted({max(1, cores - 1), cores}):
        show(swapped(given.model, given.swaps, units))
    return 0


if __name__ == "__main__":
    sys.exit(main())
