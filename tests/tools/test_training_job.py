"""Training in a process of its own: progress, errors, cancelling, the memory cap."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from edged.cli.main import main
from edged.core.errors import BadDataset, ModelError
from edged.tools.training_job import Cancelled, TrainingJob


def request(images: Path, output: Path) -> dict[str, Any]:
    return {"images": str(images), "output": str(output), "name": "part", "seed": 0}


def quiet(stage: str, done: int, total: int, **facts: object) -> None:
    """Progress that nobody looks at."""


def test_the_job_reports_progress_with_speed_and_remaining_time(
    parts: Path, tmp_path: Path
) -> None:
    heard: list[tuple[str, int, int, dict[str, Any]]] = []

    def listen(stage: str, done: int, total: int, **facts: Any) -> None:
        heard.append((stage, done, total, facts))

    report = TrainingJob(request(parts, tmp_path / "model")).run(listen)
    assert (tmp_path / "model" / "model.onnx").is_file()
    assert 50 < report["peak_memory_mb"] < 1500
    features = [facts for stage, _, _, facts in heard if stage == "features"]
    assert len(features) > 10
    assert features[-1]["per_second"] > 0
    assert features[-1]["remaining_seconds"] == 0.0
    assert heard[-1][0] == "writing" and heard[-1][1] == heard[-1][2]


def test_the_trainer_s_own_error_comes_through_the_pipe(tmp_path: Path) -> None:
    job = TrainingJob(request(tmp_path / "nowhere", tmp_path / "model"))
    with pytest.raises(BadDataset, match="nowhere: no such file or folder"):
        job.run(quiet)


def test_a_cancelled_job_ends_and_leaves_nothing(parts: Path, tmp_path: Path) -> None:
    job = TrainingJob(request(parts, tmp_path / "out" / "model"))
    begun = threading.Event()

    def listen(stage: str, done: int, total: int, **facts: object) -> None:
        if not begun.is_set():
            begun.set()
            job.cancel()

    with pytest.raises(Cancelled, match="nothing was written"):
        job.run(listen)
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())
    with pytest.raises(Cancelled):
        job.run(quiet)


def test_the_memory_cap_is_kept_with_a_sentence(parts: Path, tmp_path: Path) -> None:
    job = TrainingJob(request(parts, tmp_path / "model"), memory_mb=256)
    with pytest.raises(ModelError, match="256 MB"):
        job.run(quiet)
    assert not (tmp_path / "model").exists()


def test_the_command_line_trains_in_a_job_and_takes_a_budget(
    parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(parts), "--output", str(tmp_path / "model"), "--json"]
    assert main([*words, "--false-rejects", "0.001"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert any("more normal pictures are needed" in w for w in report["warnings"])
    assert report["peak_memory_mb"] > 50
