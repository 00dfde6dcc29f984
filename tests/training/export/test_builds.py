"""Every graph that the trainer can write parses and builds with NVIDIA's own parser and builder.

Two generations of tensorrt-rtx, whose builder needs no GPU; `.ci/run` installs them beside the
virtual environment, since they are large and cannot both be in one. Nothing is run: what only a GPU
can show stays unshown.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.engines.onnxruntime import quantised
from edged.tools.plan_build import golden_pictures
from edged.training.export.graph import Fitted, model_graph
from edged.training.features.backbone import EfficientNetLite0
from edged.training.features.view import View
from edged.training.figures.calibration import Calibration, Unit
from edged.training.onnx.half import convolutions, half_graph
from edged.training.scorers.bank import Bank
from edged.training.scorers.distances import Gaussian, PositionGaussian, Supervised
from edged.training.scorers.ensemble import MAPS, Ensemble
from edged.training.scorers.segments import Segments
from edged.wire.spec import read_spec

GENERATIONS = ("1.4.0.76", "1.7.1.116")
SIZES = ((256, 256), (320, 320), (384, 384), (512, 512), (192, 544), (64, 64))
RECIPES = {
    "normal parts only": (),
    "bank": ("bank",),
    "labels": ("supervised",),
    "masks": ("supervised", "segments"),
    "everything": ("bank", "supervised", "segments"),
}
RANK, ROWS, CLASSES = 16, 500, 3
BUILD_SECONDS = 170


def installed(version: str) -> Path:
    """Where tensorrt-rtx of that version lies, or skip (fail when everything must run)."""
    root = Path(os.environ.get("EDGED_TENSORRT_RTX", Path(__file__).parents[3] / ".tensorrt-rtx"))
    if not (root / version).is_dir():
        missing = f"tensorrt-rtx {version} is not in {root}: .ci/run installs it"
        if os.environ.get("EDGED_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return root / version


@functools.lru_cache(maxsize=1)
def network() -> EfficientNetLite0:
    return EfficientNetLite0()


def graph(size: tuple[int, int], parts: tuple[str, ...], shown: str = MAPS[0]) -> bytes:
    """A model of that input size and recipe, its numbers drawn."""
    chance, view = np.random.default_rng(1), View(network(), size)
    draw = lambda *shape: chance.standard_normal(shape).astype(np.float32)  # noqa: E731
    count, length = view.positions, view.dimensions
    statistics = view.statistics.stop - view.statistics.start
    scorers = Ensemble(
        PositionGaussian(
            draw(count, length), draw(count, length, RANK), draw(count, RANK), draw(count)
        ),
        Gaussian(draw(length), draw(length, length)),
        Gaussian(draw(statistics), draw(statistics, statistics)),
        Bank(draw(ROWS, length)) if "bank" in parts else None,
        Supervised(draw(len(view.supervised)), 0.5) if "supervised" in parts else None,
        Segments(draw(2, length, CLASSES), draw(CLASSES)) if "segments" in parts else None,
    )
    names = scorers.names
    calibration = Calibration(
        tuple(Unit(1.0, 2.0) for _ in names), tuple(2.0 for _ in names), 0.5, 1.5, (5.0, 6.0, 7.0)
    )
    return model_graph(view, Fitted(draw(view.local, length), scorers, calibration, shown, 3.0))


def built(version: str, models: dict[str, bytes], folder: Path) -> dict[str, Any]:
    """What TensorRT says to each."""
    paths = {}
    for number, (name, data) in enumerate(models.items()):
        paths[str(folder / f"{number}.onnx")] = name
        (folder / f"{number}.onnx").write_bytes(data)
    script = Path(__file__).parents[2] / "support" / "tensorrt_build.py"
    done = subprocess.run(
        [sys.executable, str(script), str(installed(version)), *paths],
        capture_output=True, text=True, timeout=BUILD_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {paths[each["file"]]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("version", GENERATIONS)
@pytest.mark.parametrize("precision", ["fp32", "mixed fp16"])
def test_every_recipe_and_size_parses_and_builds(
    version: str, precision: str, tmp_path: Path
) -> None:
    installed(version)
    models = {f"{name} at 256x256": graph(SIZES[0], parts) for name, parts in RECIPES.items()}
    models |= {f"everything at {h}x{w}": graph((h, w), RECIPES["everything"]) for h, w in SIZES}
    models["the other map"] = graph(SIZES[0], (), MAPS[1])
    if precision != "fp32":
        models = {name: half_graph(data) for name, data in models.items()}
    found = built(version, models, tmp_path)
    assert found.keys() == models.keys()
    for name, each in found.items():
        assert each["parsed"] and each["built"] > 0, (name, each)


@pytest.mark.parametrize("version", GENERATIONS)
def test_a_model_that_the_trainer_wrote_parses_and_builds(
    version: str, model: Path, tmp_path: Path
) -> None:
    full = (model / "model.onnx").read_bytes()
    found = built(version, {"fp32": full, "mixed fp16": half_graph(full)}, tmp_path)
    assert all(each["built"] > 0 for each in found.values()), found


def test_int8_of_a_model_parses_and_builds(model: Path, tmp_path: Path) -> None:
    """With the newer of them: the older one has no INT8 convolution for this GPU."""
    full = (model / "model.onnx").read_bytes()
    pictures = golden_pictures(model, read_spec(model))
    logging.disable(logging.WARNING)  # advice of the quantiser for other models
    try:
        int8 = quantised(full, convolutions(full), pictures)
    finally:
        logging.disable(logging.NOTSET)
    assert int8.count(b"QuantizeLinear") > 40
    assert built(GENERATIONS[-1], {"int8": int8}, tmp_path)["int8"]["built"] > 0


@pytest.mark.parametrize("version", GENERATIONS)
def test_what_tensorrt_cannot_take_is_told(version: str, tmp_path: Path) -> None:
    """So that the tests above can fail."""
    found = built(version, {"junk": b"no graph"}, tmp_path)["junk"]
    assert not found["parsed"] and found["errors"]
