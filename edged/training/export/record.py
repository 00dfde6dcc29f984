"""What training finds out, and what of it is written beside the graph: spec.json.

The form of spec.json is wire/spec.py's. Equal data, seed and versions give an equal file but for
`seconds`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import edged
from edged.training.export.graph import Fitted
from edged.training.features.gather import Gathered
from edged.training.onnx.nodes import onnx_version
from edged.training.scorers.evidence import Choice
from edged.training.scorers.masks import Segmented


@dataclass(frozen=True, slots=True)
class Learned:
    """What the model will hold, and what each scorer would do alone, out-of-fold."""

    fitted: Fitted
    table: list[dict[str, Any]]
    segmented: Segmented | None


@dataclass(frozen=True, slots=True)
class Judgement:
    """Scores of pictures that the scorers did not see, and the threshold that they gave.

    metrics: figures of these pictures; `entry`: the first record of the threshold.
    """

    normal: list[float]
    anomalous: list[float]
    threshold: float
    entry: dict[str, Any]
    metrics: dict[str, float | None]


@dataclass(frozen=True, slots=True)
class TrainingRun:
    """What was asked for, and with what it was done."""

    name: str
    seed: int
    versions: Mapping[str, str]
    seconds: float


def spec_of(
    data: Gathered,
    learned: Learned,
    judged: Judgement,
    choice: Choice,
    model: bytes,
    golden: dict[str, float],
    run: TrainingRun,
) -> dict[str, Any]:
    """What goes into spec.json besides its format."""
    fitted, calibration = learned.fitted, learned.fitted.calibration
    only = next(iter(data.sizes)) if len(data.sizes) == 1 else None
    network = data.view.network
    return {
        "name": run.name,
        "version": "1",
        "sha256": hashlib.sha256(model).hexdigest(),
        "input": {"height": choice.size[0], "width": choice.size[1]},
        "image_size": {"height": only[0], "width": only[1]} if only else None,
        "threshold": judged.threshold,
        "thresholds": [judged.entry],
        "out_of_fold": {"normal": judged.normal, "anomaly": judged.anomalous},
        "classes": _classes(learned.segmented),
        "golden": golden,
        "seed": run.seed,
        "seconds": round(run.seconds, 1),
        "data_sha256": data.sha256,
        "images": {"normal": data.count(False), "anomaly": data.count(True)},
        "metrics": judged.metrics,
        "backbone": {"name": network.name, "sha256": network.sha256},
        "scorers": [
            {**row, "centre": u.centre, "deviation": u.deviation}
            for row, u in zip(learned.table, calibration.units, strict=True)
        ],
        "map": choice.map,
        "evidence": [trial.as_row() for trial in choice.trials],
        "calibration": {
            "limit": calibration.limit,
            "slope": calibration.slope,
            "guards": list(calibration.guards),
            "pixel_limit": fitted.pixel_limit,
        },
        "versions": {
            "edged": edged.__version__,
            "numpy": np.__version__,
            "onnx": onnx_version(),
            **run.versions,
        },
    }


def _classes(segmented: Segmented | None) -> list[dict[str, Any]]:
    """The classes of a segmentation model with their out-of-fold figures by pixel."""
    if segmented is None:
        return []
    known = zip(segmented.classes, segmented.metrics, strict=True)
    return [{**figures, "color": kind.color} for kind, figures in known]
