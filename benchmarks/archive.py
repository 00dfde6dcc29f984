"""What the archive costs the inspecting thread, and how many pictures its worker keeps up with.

Two runs side by side, of a unit that works and hands its inspection to a publisher, with the
archive among its sinks and without: the ratio of what handing over takes. The pictures are rendered
parts of 1280x720 with a sensor's noise, all rejected, so all of them are kept.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks.support.command import add_number, question
from benchmarks.support.figures import quantile, ratio, show
from edged.archive.sink import Archive
from edged.cameras.simulation.parts import render
from edged.config import ArchiveConfig
from edged.core.observer import Observer
from edged.core.protocols import JournalEntry, Sink
from edged.core.types import Frame, Image, Inspection, ModelRef, Timing, Verdict
from edged.line.publish import Publisher
from edged.runtime.workers import Crew, Deadline
from edged.wire import results

WIDTH, HEIGHT, PICTURES = 1280, 720, 8
WORK_SECONDS = 0.03
"""Of one inspection before it is handed over: about 33 a second, within what the worker keeps."""


class Recorder:
    """The other sink of both runs: makes the record, as MQTT's does."""

    name = "recorder"

    def start(self) -> None:
        """Nothing to begin."""

    def accept(self, inspection: Inspection) -> None:
        """Make the record."""
        results.dumps(results.full(inspection))

    def close(self) -> None:
        """Nothing to end."""


def pictures() -> list[Image]:
    """A few parts, each with noise of its own."""
    random = np.random.default_rng(0)
    found = []
    for index in range(PICTURES):
        part, _ = render("machined", 1, index, WIDTH, HEIGHT, 1.0)
        noisy = part + random.normal(0, 2, part.shape)
        found.append(np.clip(noisy.round(), 0, 255).astype(np.uint8))
    return found


def inspection(number: int, image: Image) -> Inspection:
    """One reject."""
    now = time.monotonic_ns()
    frame = Frame("cam", number, now, datetime.now(timezone.utc), image)
    verdict = Verdict(True, 0.9, 0.9, 0.5)
    return Inspection(frame, ModelRef("m", "1", "0" * 64), verdict, Timing(now))


def handing_over(sinks: Sequence[Sink], images: list[Image], first: int, count: int) -> list[float]:
    """Seconds that each hand-over took on the inspecting thread."""
    publisher, taken, pause = Publisher(sinks, Observer()), [], threading.Event()
    for number in range(first, first + count):
        made = inspection(number, images[number % PICTURES])
        pause.wait(WORK_SECONDS)
        publisher.expect(made.frame)
        began = time.perf_counter()
        publisher.publish(made)
        taken.append(time.perf_counter() - began)
    return taken


def keeping_up(archive: Archive, images: list[Image], first: int, seconds: float) -> float:
    """Pictures a second that the worker keeps when there is always one waiting."""
    room, told = threading.Semaphore(16), [0]

    def done(entries: Sequence[JournalEntry]) -> None:
        told[0] += sum(entry.picture for entry in entries)
        for _ in entries:
            room.release()

    end = archive.subscribe(done)
    began, number = time.monotonic(), first
    while time.monotonic() < began + seconds:
        room.acquire()
        archive.accept(inspection(number, images[number % PICTURES]))
        number += 1
    rate = told[0] / (time.monotonic() - began)
    end()
    return rate


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_number(made, "parts", 200, "how many are handed over in each of the two ways")
    return made


def main() -> None:
    count = parser().parse_args().parts
    images = pictures()
    with tempfile.TemporaryDirectory() as folder:
        crew = Crew()
        archive = Archive(ArchiveConfig(), Path(folder), crew, Observer(), Deadline())
        archive.start()
        off: list[float] = []
        on: list[float] = []
        for turn in range(4):
            first = turn * count
            off += handing_over([Recorder()], images, first, count // 4)
            on += handing_over([archive, Recorder()], images, first, count // 4)
        rate = keeping_up(archive, images, 100_000, 8.0)
        archive.close()
    report = {
        "handing_over_ratio_p50": round(ratio(on, off), 2),
        "on_us_p50": round(statistics.median(on) * 1e6),
        "off_us_p50": round(statistics.median(off) * 1e6),
        "on_us_p99": round(quantile(on, 0.99) * 1e6),
        "off_us_p99": round(quantile(off, 0.99) * 1e6),
        "pictures_per_second": round(rate, 1),
    }
    show(report)


if __name__ == "__main__":
    main()
