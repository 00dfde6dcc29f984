"""The demo as a person types it: one command, no camera, no broker, no model beforehand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edged.tools.demo.run import CAMERAS, HEIGHT, WIDTH
from edged.wire import imaging


@pytest.mark.timeout(400)  # it trains two models
def test_the_demo_trains_inspects_and_delivers_every_part_by_mqtt_and_grpc(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edged.cli", "demo", "--seconds", "3", "--output"]
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=390, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["simulated"] is True
    assert said["inspections"] == said["mqtt_received"] == said["grpc_received"] > 0
    assert said["no_verdict"] == 0
    assert 0.8 < said["accuracy"] <= 1.0  # chance is far below, no model is perfect for ever
    assert 0 < said["latency_p50_ms"] <= said["latency_p99_ms"]
    assert said["inspections_per_second"].keys() == said["heatmaps"].keys() == CAMERAS.keys()
    for path in map(Path, said["heatmaps"].values()):
        shown = imaging.read(path)
        assert path.is_relative_to(tmp_path)
        assert shown.shape == (HEIGHT, 2 * WIDTH, 3)  # the part, and beside it the part with heat
        part, heat = shown[:, :WIDTH], shown[:, WIDTH:]
        assert not np.array_equal(part, heat)
