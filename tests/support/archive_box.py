"""An archive of its own for a test, and inspections to put into it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from edged.archive.reader import PICTURES
from edged.archive.sink import Archive
from edged.config import ArchiveConfig
from edged.core.protocols import JournalEntry
from edged.core.types import (
    NO_IMAGE,
    Frame,
    Image,
    Inspection,
    ModelRef,
    NoVerdict,
    Reason,
    Timing,
    Trigger,
    Verdict,
)
from edged.runtime.workers import Crew, Deadline
from tests.support.fakes import Ears

PLENTY = 1e15
GOOD, BAD, NONE = "good", "bad", "none"


def image_of(number: int, side: int = 64) -> Image:
    """Noise, which does not compress, and is the same each time."""
    return np.random.default_rng(number).integers(0, 256, (side, side, 3), np.uint8)


def inspection(
    number: int, kind: str = BAD, station: str = "cam", image: Image | None = None, **frame: Any
) -> Inspection:
    """Of part `number`: rejected, good, or not judged."""
    picture = image_of(number) if image is None else image
    now = datetime.now(timezone.utc)
    seen = Frame(station, number, time.monotonic_ns(), frame.pop("at", now), picture, **frame)
    anomalous = kind == BAD
    outcome: Verdict | NoVerdict = Verdict(anomalous, 0.9, 0.9 if anomalous else 0.1, 0.5)
    if kind == NONE:
        outcome = NoVerdict(Reason.TIMEOUT, "too late")
    model = ModelRef("flange", "1", "ab" * 32)
    return Inspection(seen, model, outcome, Timing(seen.captured_ns), engine="onnxruntime cpu fp32")


def triggered(number: int) -> Inspection:
    """Of an order that came to nothing: there is no picture."""
    trigger = Trigger("P-1", 7, time.monotonic_ns(), kind="mqtt")
    made = inspection(number, NONE, image=NO_IMAGE, trigger=trigger)
    return replace(made, late_of=0)


class Heard(Ears):
    """What an archive tells: its observers, and who subscribed."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[JournalEntry] = []
        self.lost: list[str] = []
        self.kept = (0, 0, 0)

    def told(self, entries: Sequence[JournalEntry]) -> None:
        with self.changed:
            self.entries += entries
            self.changed.notify_all()

    def archive_kept(self, pictures: int, size: int, state: int) -> None:
        with self.changed:
            self.kept = (pictures, size, state)
            self.changed.notify_all()

    def archive_dropped(self, policy: str) -> None:
        with self.changed:
            self.lost.append(policy)
            self.changed.notify_all()


@contextmanager
def archive(
    folder: Path, free: Any = lambda: PLENTY, **config: Any
) -> Iterator[tuple[Archive, Heard]]:
    """A running archive in `folder`; `heard` subscribed."""
    heard = Heard()
    crew = Crew(heard.worker_crashed)
    made = Archive(ArchiveConfig(**config), folder, crew, heard, Deadline(), free)
    made.subscribe(heard.told)
    made.start()
    try:
        yield made, heard
    finally:
        made.close()
    assert heard.crashed == []


def files(folder: Path) -> set[str]:
    """The names of all pictures on the disk."""
    return {name for _, _, names in os.walk(folder / PICTURES) for name in names}
