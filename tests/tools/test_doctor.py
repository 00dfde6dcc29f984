"""`edged doctor`: one page that says what runs here, and why the rest does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from edged.cli.main import main


def page(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["doctor", "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_page_says_what_was_tried_and_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text('state_dir = "state"\n')
    found = page(capsys, "--config", str(config))
    assert found["engines"]["onnxruntime"].startswith("usable (")
    assert found["engines"]["tensorrt (fp32)"].startswith("no: ")
    assert found["cameras"]["opencv"] == cv2.__version__
    assert found["cameras"]["gstreamer"] in ("YES", "NO") or "YES" in found["cameras"]["gstreamer"]
    assert found["disk"]["state_dir"] == f"{tmp_path / 'state'} (not there yet)"
    assert found["disk"]["free"].endswith("MB") and found["disk"]["writable"] == "yes"
    assert int(found["machine"]["cores"]) >= 1 and "free of" in found["machine"]["memory"]
    assert "has not run on a Jetson" in found["not shown"]["hardware"]


def test_the_page_for_people_has_a_line_for_each_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "edged" and "engines" in lines
    assert any(line.split()[:2] == ["onnxruntime", "usable"] for line in lines)


def test_a_library_that_is_half_installed_is_named_with_its_own_words(tmp_path: Path) -> None:
    broken = tmp_path / "openvino"
    broken.mkdir()
    (broken / "__init__.py").write_text("raise ImportError('libopenvino.so.2: cannot open')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", ""), str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, "-m", "edged.cli", "doctor", "--json"],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    engines = json.loads(done.stdout)["engines"]
    assert engines["openvino"].startswith("no: ") and "openvino" in engines["openvino"][4:]
    assert engines["onnxruntime"].startswith("usable (")
