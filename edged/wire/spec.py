"""A model folder's `spec.json`, read and written.

    FOLDER/model.onnx     the whole graph: uint8 (N, H, W, 3) BGR in, `score` and `map` out
    FOLDER/spec.json      this
    FOLDER/golden/*.png   a few training pictures whose scores the trainer wrote down
    FOLDER/plans/         TensorRT plans of a model that may not lie open elsewhere

`read_spec` checks that `model.onnx` is the file the trainer wrote, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

from edged.core.errors import ModelError
from edged.core.types import DefectClass, ModelRef, ModelSpec

FORMAT = 1
MODEL, SPEC, GOLDEN, PLANS = "model.onnx", "spec.json", "golden", "plans"


def read_spec(folder: Path, name: str | None = None) -> ModelSpec:
    """Read a model folder; `name` is what the model is called here (default: the folder's name).

    Raises ModelError with a sentence that names the file.
    """
    path = folder / SPEC
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such model folder; train one with edged train.")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{folder}: is no model folder, it has no {SPEC}.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ModelError(f"{path}: is not of format {FORMAT}; train the model again.")
    try:
        spec = _parse(data, name or folder.resolve().name)
    except KeyError as error:
        raise ModelError(f"{path}: key {error} is missing; train the model again.") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: has wrong values ({error}); train the model again.") from error
    check_model_file(folder / MODEL, spec.ref.sha256)
    return spec


def _parse(data: dict[str, Any], name: str) -> ModelSpec:
    size = data["input"]
    images = data.get("image_size")
    threshold = float(data["threshold"])
    if not 0.0 <= threshold <= 1.0 or not math.isfinite(threshold):
        raise ValueError(f"threshold {threshold} is not within 0 to 1")
    if float(data["thresholds"][-1]["threshold"]) != threshold:
        raise ValueError(
            f"threshold {threshold} is not the last recorded one: it was changed by hand; use "
            "edged threshold"
        )
    golden = {str(k): float(v) for k, v in data["golden"].items()}
    if not golden:
        raise ValueError("no golden pictures, so no engine could prove itself")
    return ModelSpec(
        ref=ModelRef(name, str(data["version"]), str(data["sha256"])),
        height=int(size["height"]),
        width=int(size["width"]),
        threshold=threshold,
        image_size=(int(images["height"]), int(images["width"])) if images else None,
        golden=golden,
        seen_scores=tuple(float(s) for each in data["out_of_fold"].values() for s in each),
        classes=tuple(DefectClass(str(c["name"]), str(c["color"])) for c in data["classes"]),
    )


def check_model_file(path: Path, sha256: str) -> None:
    """Raise ModelError unless the file's bytes are those the trainer wrote."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{path}: is damaged: its {len(data)} bytes have sha256 {found[:12]}..., the trainer "
            f"wrote {sha256[:12]}... Copy the model folder again or train it again."
        )
