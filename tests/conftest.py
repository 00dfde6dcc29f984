"""Shared by the tests that need a trained model: one, small, trained once from rendered parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.cameras.simulation.parts import render
from edged.tools import judge
from edged.wire import imaging

WIDTH, HEIGHT = 320, 240


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rendered parts: normal/ and anomaly/<defect>/."""
    root = tmp_path_factory.mktemp("parts")
    for index in range(40):
        image, truth = render("machined", 1, index, WIDTH, HEIGHT, 1.0 if index >= 28 else 0.0)
        kind = Path("anomaly", str(truth.defect)) if truth.is_anomalous else Path("normal")
        (root / kind).mkdir(parents=True, exist_ok=True)
        imaging.write_png(root / kind / f"{index:03}.png", image)
    return root


@pytest.fixture(scope="session")
def model(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder trained on `parts`."""
    folder = tmp_path_factory.mktemp("models") / "flange"
    judge.train(parts, folder, "flange", 1, lambda *_args, **_facts: None)
    return folder
