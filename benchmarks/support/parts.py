"""Rendered parts: a model of them, and bitmaps for a camera."""

from __future__ import annotations

from pathlib import Path

import cv2

from edged.cameras.simulation.parts import render
from edged.tools import training_job
from tests.support.parts import parts_folder

WIDTH, HEIGHT = 640, 480
DISTINCT = 20


def train(
    root: Path,
    count: int = 30,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    side: int | None = None,
) -> Path:
    """A model folder, trained on so many good parts; `side` is of its input, None = it chooses."""
    images = parts_folder(root / "parts", count, size, digits=1)
    training_job.train(images, root / "model", "part", 0, lambda *_a, **_f: None, side=side)
    return root / "model"


def bitmaps(folder: Path, count: int) -> list[Path]:
    """So many names of a few bitmaps, next to nothing to decode."""
    folder.mkdir()
    files = [folder / f"{index:05}.bmp" for index in range(count)]
    for index, file in enumerate(files):
        if index < DISTINCT:
            image, _ = render("machined", 5, index, WIDTH, HEIGHT, 0.0)
            cv2.imwrite(str(file), image)
        else:
            file.hardlink_to(files[index % DISTINCT])
    return files
