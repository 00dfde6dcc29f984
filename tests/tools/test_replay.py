"""The command `replay`: what the line said of a part, said again from the archive."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edged.archive.reader import JOURNAL, PICTURES, ArchiveReader
from edged.cli.main import main
from edged.config.load import load
from edged.daemon.app import App
from edged.tools import judge
from edged.wire import imaging
from tests.conftest import HEIGHT, WIDTH
from tests.support.fakes import PATIENCE


class Line(NamedTuple):
    """A line that has run: its configuration and the records of its parts."""

    config: Path
    records: list[dict[str, Any]]

    @property
    def archive(self) -> Path:
        return self.config.parent / "state" / "archive"


def run_line(folder: Path, model: Path, count: int, engine: str = "onnxruntime") -> Line:
    config = folder / "edged.toml"
    config.write_text(
        f"""
state_dir = "state"
[[models]]
name = "flange"
path = "{model}"
engine = "{engine}"
batch = 2
[[cameras]]
name = "cam1"
model = "flange"
kind = "simulated"
seed = 1
width = {WIDTH}
height = {HEIGHT}
rate = 0
count = {count}
defect_rate = 0.5
[archive]
passes = 1.0
""",
        encoding="utf-8",
    )
    app = App(load(config), until_cameras_end=True)
    thread = threading.Thread(target=app.run, kwargs={"signals": False})
    thread.start()
    thread.join(PATIENCE * 3)
    assert not thread.is_alive() and not app.failed
    reader = ArchiveReader(folder / "state" / "archive")
    records = [dict(entry.record) for entry in reader.since(0, 1000)]
    reader.close()
    return Line(config, records)


@pytest.fixture(scope="module")
def own(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that a test may change."""
    folder = tmp_path_factory.mktemp("own") / "flange"
    shutil.copytree(model, folder)
    return folder


@pytest.fixture(scope="module")
def line(own: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Line]:
    yield run_line(tmp_path_factory.mktemp("line"), own, 12)


def replay(line: Line, id: str, *more: str) -> int:
    return main(["replay", id, "--config", str(line.config), "--json", *more])


def test_every_part_of_a_run_gets_its_score_again(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(line.records) == 12
    assert {record["eval"] for record in line.records} == {"OK", "NotOK"}
    for record in line.records:
        assert replay(line, record["id"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["agrees"] and told["difference"] <= 1e-4
        assert told["engine"] == told["recorded_engine"] == "onnxruntime cpu fp32"
        assert told["recorded_score"] == record["score"]
        assert told["verdict"] == told["recorded_verdict"] == record["eval"]


def test_another_engine_is_said_and_has_the_tolerance_of_engines(
    line: Line, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("openvino", reason="openvino is not installed")
    assert replay(line, line.records[0]["id"], "--engine", "openvino") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["engine"] == "openvino cpu fp32" and told["tolerance"] == 0.02


def test_a_recorded_score_that_does_not_come_out_is_exit_code_1(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(line, tmp_path)
    record = copy.records[0]
    change(copy, record["id"], score=record["score"] - 0.01)
    assert replay(copy, record["id"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["agrees"] is False and told["difference"] == pytest.approx(0.01)


def test_a_model_that_has_changed_is_told_with_both_hashes(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(line, tmp_path)
    record = copy.records[0]
    was = record["model"]["sha256"]
    change(copy, record["id"], model={**record["model"], "sha256": "0" * 64})
    assert replay(copy, record["id"]) == 1
    said = capsys.readouterr().err
    assert was in said and "0" * 64 in said and "Traceback" not in said


def test_a_model_of_the_api_is_found_by_its_hash(
    line: Line, own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(line, tmp_path)
    shutil.copytree(own, tmp_path / "state" / "models" / "7" / "model")
    text = copy.config.read_text(encoding="utf-8")
    copy.config.write_text(text.replace(str(own), str(tmp_path / "gone")), encoding="utf-8")
    assert replay(copy, copy.records[0]["id"]) == 0


def test_a_picture_that_is_not_the_judged_one_is_refused(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(line, tmp_path)
    id = copy.records[0]["id"]
    (path,) = (copy.archive / PICTURES).rglob(f"{id}.png")
    image = imaging.read(path)
    image[0, 0, 0] ^= 1
    path.write_bytes(imaging.encoded_png(image))
    assert replay(copy, id) == 1
    assert "is not the one that was judged" in capsys.readouterr().err
    path.write_bytes(b"")
    assert replay(copy, id) == 2
    assert "the file is empty" in capsys.readouterr().err
    path.unlink()
    assert replay(copy, id) == 1
    assert "is not kept" in capsys.readouterr().err


def test_what_is_no_id_or_not_there_is_a_sentence(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay(line, "../state/archive") == 2
    assert "is no id of an inspection" in capsys.readouterr().err
    assert replay(line, "0" * 32) == 1
    assert "No inspection" in capsys.readouterr().err
    empty = tmp_path / "edged.toml"
    empty.write_text('state_dir = "state"\n', encoding="utf-8")
    assert main(["replay", "0" * 32, "--config", str(empty)]) == 1
    assert "add an [archive] section" in capsys.readouterr().err


def test_a_part_without_a_verdict_has_no_score_to_give_again(
    line: Line, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = copied(line, tmp_path)
    id = copy.records[0]["id"]
    change(copy, id, score=None, reason="timeout")
    assert replay(copy, id) == 2
    assert "has no verdict (timeout)" in capsys.readouterr().err


def test_a_changed_threshold_does_not_change_what_is_compared(
    line: Line, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = (own / "spec.json").read_bytes()
    try:
        judge.set_threshold(own, 0.99, None, None, 0.95, "for a test")
        record = next(r for r in line.records if r["eval"] == "NotOK")
        assert replay(line, record["id"]) == 0
        told = json.loads(capsys.readouterr().out)
        assert told["threshold_now"] == 0.99 and told["threshold"] == record["threshold"]
        assert told["verdict"] == "NotOK"
    finally:
        (own / "spec.json").write_bytes(spec)


def copied(line: Line, folder: Path) -> Line:
    """The same line, which a test may damage."""
    shutil.copytree(line.config.parent / "state", folder / "state")
    shutil.copy(line.config, folder)
    return Line(folder / line.config.name, line.records)


def change(line: Line, id: str, **members: Any) -> None:
    """Another record under the same id; None takes a member away."""
    record = next(r for r in line.records if r["id"] == id)
    changed = {k: v for k, v in {**record, **members}.items() if v is not None}
    db = sqlite3.connect(line.archive / JOURNAL)
    db.execute("UPDATE inspections SET record = ? WHERE id = ?", (json.dumps(changed), id))
    db.commit()
    db.close()
