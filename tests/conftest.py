"""Shared by the tests that need a trained model: one, small, trained once from rendered parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.tools import training_job
from tests.support.parts import SMALL, parts_folder

WIDTH, HEIGHT = SMALL


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of rendered parts: normal/ and anomaly/<defect>/."""
    return parts_folder(tmp_path_factory.mktemp("parts"), 40, (WIDTH, HEIGHT), good=28)


@pytest.fixture(scope="session")
def model(parts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder trained on `parts`."""
    folder = tmp_path_factory.mktemp("models") / "flange"
    training_job.train(parts, folder, "flange", 1, lambda *_args, **_facts: None)
    return folder
