"""Rendered parts as files: a folder to train from, or a bucket of the API with a manifest."""

from __future__ import annotations

import json
from pathlib import Path

from edged.cameras.simulation.parts import render
from edged.wire import imaging

SMALL = (320, 240)
MANIFEST = "train.manifest"


def parts_folder(
    root: Path,
    count: int,
    size: tuple[int, int] = SMALL,
    good: int | None = None,
    digits: int = 3,
) -> Path:
    """`root` with `count` parts: `good` of them (or all) in normal/, others anomaly/<defect>/.

    digits: of the names, at least. The trainer goes through pictures in the order of their names,
    so other digits make another model.
    """
    for index in range(count):
        bad = good is not None and index >= good
        image, truth = render("machined", 1, index, *size, float(bad))
        kind = Path("anomaly", str(truth.defect)) if truth.is_anomalous else Path("normal")
        (root / kind).mkdir(parents=True, exist_ok=True)
        imaging.write_png(root / kind / f"{index:0{digits}}.png", image)
    return root


def parts_bucket(
    state: Path, count: int, good: int, size: tuple[int, int] = SMALL
) -> tuple[Path, str]:
    """The bucket `parts` in a daemon's state, and the key of a manifest of all its pictures."""
    bucket = state / "buckets" / "parts"
    bucket.mkdir(parents=True)
    lines = []
    for number in range(count):
        image, truth = render("machined", 1, number, *size, float(number >= good))
        imaging.write_png(bucket / f"{number}.png", image)
        kind = "anomaly" if truth.is_anomalous else "normal"
        meta = {"class-name": kind, "human-annotated": "yes",
                "type": "groundtruth/image-classification"}  # fmt: skip
        lines.append({"source-ref": f"s3://parts/{number}.png", "a": 0, "a-metadata": meta})
    (bucket / MANIFEST).write_text("\n".join(map(json.dumps, lines)))
    return bucket, MANIFEST
