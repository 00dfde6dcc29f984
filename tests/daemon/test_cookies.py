"""Real photographs from the folder to the broker: the tutorial's cookies."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.cli.main import main
from edged.wire import imaging
from tests.support.broker import Mosquitto, Subscriber, require_mosquitto
from tests.support.shared_data import shared_data


@pytest.fixture(scope="module")
def cookies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model trained on the 63 training pictures."""
    manifest = shared_data("cookies/getting-started/dataset-files/manifests/template.manifest")
    model = tmp_path_factory.mktemp("cookies") / "cookies"
    assert said("train", str(manifest), "--output", str(model))["images"] == 63
    return model


def said(*words: str) -> Any:
    """What a command that reports prints with --json: one object, or one for each line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main([*words, "--json"]) == 0
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    return lines if words[0] == "detect" else lines[0]


def test_the_tutorials_test_pictures_are_told_apart(cookies: Path) -> None:
    pictures = shared_data("cookies/getting-started/test-images")
    report = said("evaluate", str(cookies), str(pictures))
    assert report["images"] == 22
    assert report["auroc"] >= 0.98
    rates = ("precision", "recall", "f1", "false_reject_rate", "escape_rate")
    assert all(0 <= report[key] <= 1 for key in rates)
    assert (cookies / "model.onnx").stat().st_size < 40_000_000


def test_a_folder_camera_delivers_22_of_22_as_detect_prints_them(
    cookies: Path, tmp_path: Path
) -> None:
    require_mosquitto()
    pictures = shared_data("cookies/getting-started/test-images")
    printed = {
        Path(found["name"]).name: found["DetectAnomalyResult"]
        for found in said("detect", str(cookies), str(pictures), "--engine", "onnxruntime")
    }
    with Mosquitto() as broker, Subscriber(broker.port, "edged/line/+") as mes:
        config = tmp_path / "edged.toml"
        config.write_text(
            f"""
state_dir = "state"
[[models]]
name = "cookies"
path = "{cookies}"
engine = "onnxruntime"
[[cameras]]
name = "line"
model = "cookies"
kind = "folder"
path = "{pictures}"
[mqtt]
port = {broker.port}
""",
            encoding="utf-8",
        )
        command = [sys.executable, "-m", "edged.cli", "run", "--until-cameras-end"]
        subprocess.run([*command, "--config", str(config)], timeout=60, check=True)
        mes.wait_for(22, 20, "/full")
        mes.wait_for(22, 20, "/result")
        full = [json.loads(m.payload) for m in mes.messages if m.topic.endswith("/full")]
    assert len(full) == 22
    assert {r["name"]: r["DetectAnomalyResult"] for r in full} == printed


def test_what_is_no_part_at_all_is_never_ok(cookies: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    part = imaging.read(shared_data("cookies/getting-started/test-images/test-normal-1.jpg"))
    half = part.copy()
    half[384:] = 0
    odd = {f"flat{level}": np.full_like(part, level) for level in (0, 64, 128, 192, 255)}
    odd["noise"] = rng.integers(0, 256, part.shape).astype(np.uint8)
    odd["half"] = half
    for name, image in odd.items():
        imaging.write_png(tmp_path / f"{name}.png", image)
    found = said("detect", str(cookies), str(tmp_path))
    assert len(found) == len(odd)
    ok = [f["name"] for f in found if not f["DetectAnomalyResult"]["IsAnomalous"]]
    assert ok == []
