"""The whole daemon as its users meet it: a process, a configuration file, a real broker."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edged.core.types import Reason
from tests.conftest import HEIGHT, WIDTH
from tests.support.broker import Mosquitto, Subscriber, require_mosquitto

EDGED = [sys.executable, "-m", "edged.cli"]


def configure(tmp_path: Path, model: Path, port: int, camera: str, extra: str = "") -> Path:
    path = tmp_path / "edged.toml"
    path.write_text(
        f"""
state_dir = "state"
[[models]]
name = "flange"
path = "{model}"
engine = "onnxruntime"
[[cameras]]
name = "cam1"
model = "flange"
{camera}
[mqtt]
port = {port}
{extra}
""",
        encoding="utf-8",
    )
    return path


def run(*arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*EDGED, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )


def records(subscriber: Subscriber, topic: str) -> list[dict[str, Any]]:
    return [json.loads(m.payload) for m in subscriber.messages if m.topic == topic]


def test_a_folder_is_delivered_whole_and_as_detect_prints_it(
    tmp_path: Path, model: Path, parts: Path
) -> None:
    require_mosquitto()
    pictures = tmp_path / "pictures"
    shutil.copytree(parts, pictures)
    (pictures / "broken.png").write_bytes(b"no picture")
    said = run("detect", str(model), str(pictures), "--engine", "onnxruntime", "--json")
    assert said.returncode == 1, "a broken picture is an error of detect"
    printed = {
        str(Path(found["name"]).relative_to(pictures)): found
        for found in map(json.loads, said.stdout.splitlines())
        if "error" not in found
    }
    assert len(printed) == 40
    with Mosquitto() as broker, Subscriber(broker.port, "edged/#") as plc:
        config = configure(tmp_path, model, broker.port, f'kind = "folder"\npath = "{pictures}"')
        done = run("run", "--config", str(config), "--until-cameras-end", "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["cameras"]["cam1"]["skipped"] == 1
        assert "broken.png" in done.stderr
        plc.wait_for(40, 20, "/full")
        plc.wait_for(40, 20, "/result")
        received = {r["name"]: r for r in records(plc, "edged/cam1/full")}
    assert received.keys() == printed.keys()
    for name, record in received.items():
        # Threads are measured, and with them the order of sums: the last digits may differ.
        confidence = pytest.approx(printed[name]["DetectAnomalyResult"].pop("Confidence"), abs=1e-5)
        assert record["DetectAnomalyResult"].pop("Confidence") == confidence
        assert record["DetectAnomalyResult"] == printed[name]["DetectAnomalyResult"]
        assert record["simulated"] is False


def test_sigterm_under_load_loses_no_accepted_inspection(tmp_path: Path, model: Path) -> None:
    require_mosquitto()
    camera = f'kind = "simulated"\nrate = 0\nwidth = {WIDTH}\nheight = {HEIGHT}'
    with Mosquitto() as broker, Subscriber(broker.port, "edged/cam1/full") as mes:
        config = configure(tmp_path, model, broker.port, camera)
        daemon = subprocess.Popen(
            [*EDGED, "run", "--config", str(config), "--json"], stdout=subprocess.PIPE, text=True
        )
        mes.wait_for(50, 60)
        daemon.send_signal(signal.SIGTERM)
        said, _ = daemon.communicate(timeout=30)
        total = json.loads(said)["inspections"]
        assert daemon.returncode == 0
        mes.wait_for(total, 20)
        found = records(mes, "edged/cam1/full")
    with contextlib.closing(sqlite3.connect(tmp_path / "state" / "sequences.sqlite")) as numbers:
        ((free,),) = numbers.execute("SELECT free FROM sequences")
    # Every number that a frame was given came out, also those that waited at the signal.
    assert [r["seq"] for r in found] == list(range(1, free)) == list(range(1, total + 1))
    assert all(r["simulated"] is True for r in found)


def test_a_broker_absent_at_start_gets_everything_later(tmp_path: Path, model: Path) -> None:
    require_mosquitto()
    camera = f'kind = "simulated"\nrate = 0\ncount = 20\nwidth = {WIDTH}\nheight = {HEIGHT}'
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        absent = probe.getsockname()[1]
    config = configure(tmp_path, model, absent, camera)
    done = run("run", "--config", str(config), "--until-cameras-end", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["inspections"] == 20
    with Mosquitto() as broker, Subscriber(broker.port, "edged/cam1/#") as mes:
        config = configure(tmp_path, model, broker.port, camera.replace("count = 20", "count = 1"))
        assert run("run", "--config", str(config), "--until-cameras-end").returncode == 0
        mes.wait_for(21, 20, "/full")
        sequences = [r["seq"] for r in records(mes, "edged/cam1/full")]
        late = records(mes, "edged/cam1/result")
    assert sequences == sorted(set(sequences))
    assert len(late) <= 1, "a result is never replayed late"


def test_a_truncated_model_is_refused_with_a_sentence(tmp_path: Path, model: Path) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    whole = (damaged / "model.onnx").read_bytes()
    (damaged / "model.onnx").write_bytes(whole[: len(whole) // 2])
    config = configure(tmp_path, damaged, 1, 'kind = "simulated"')
    done = run("run", "--config", str(config))
    assert done.returncode == 2
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_is_named_by_check_with_its_line(tmp_path: Path) -> None:
    config = configure(tmp_path, tmp_path / "nowhere", 1, 'kind = "simulated"')
    done = run("check", "--config", str(config))
    assert done.returncode == 2
    assert done.stderr.startswith(f"{config}:5 models[0].path: ")


def test_a_taken_port_is_a_sentence(tmp_path: Path, model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        extra = f'[metrics]\nlisten = "127.0.0.1:{port}"'
        config = configure(tmp_path, model, 1, 'kind = "simulated"', extra)
        done = run("run", "--config", str(config))
    assert done.returncode == 1
    assert f"127.0.0.1:{port} is in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_camera_that_is_not_there_is_a_state_and_no_crash(tmp_path: Path, model: Path) -> None:
    require_mosquitto()
    camera = 'kind = "folder"\npath = "unplugged"'
    with Mosquitto() as broker, Subscriber(broker.port, "edged/state") as plc:
        config = configure(tmp_path, model, broker.port, camera)
        daemon = subprocess.Popen([*EDGED, "run", "--config", str(config)])
        try:
            assert plc.wait_match(lambda m: b'"st":"error"' in m.payload, 60)
            assert daemon.poll() is None
        finally:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0


def test_a_spare_model_that_nobody_started_is_no_error(tmp_path: Path, model: Path) -> None:
    require_mosquitto()
    camera = f'kind = "simulated"\nwidth = {WIDTH}\nheight = {HEIGHT}'
    spare = f'[[models]]\nname = "spare"\npath = "{model}"\nautostart = false'
    with Mosquitto() as broker, Subscriber(broker.port, "edged/state") as plc:
        config = configure(tmp_path, model, broker.port, camera, spare)
        daemon = subprocess.Popen([*EDGED, "run", "--config", str(config)])
        try:
            assert plc.wait_match(lambda m: b'"st":"ready"' in m.payload, 60)
            said = run("run", "--config", str(config))
        finally:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
    assert said.returncode == 1, "two daemons would give the same sequence numbers"
    assert "is in use by another edged" in said.stderr
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize("key", ["expossure = 1", "rate = -1"])
def test_a_config_fault_is_file_line_key_and_exit_code_2(tmp_path: Path, key: str) -> None:
    config = configure(tmp_path, tmp_path, 1, f'kind = "simulated"\n{key}')
    done = run("check", "--config", str(config))
    assert done.returncode == 2
    name = key.partition(" ")[0]
    assert done.stderr.startswith(f"{config}:11 cameras[0].{name}: ")


def judged(result: bytes) -> bool:
    """Whether the flat form tells of a verdict; without one its reason must be the model."""
    code = json.loads(result)["code"]
    judged = Reason.SIMULATED.code  # and no OK: no real camera saw the part
    assert code in (judged, Reason.MODEL_MISSING.code)
    return bool(code == judged)


def test_a_broken_model_stops_no_other_line_and_is_hosted_once_it_is_mended(
    tmp_path: Path, model: Path
) -> None:
    require_mosquitto()
    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    whole = (damaged / "model.onnx").read_bytes()
    (damaged / "model.onnx").write_bytes(whole[:1000])
    camera = f'kind = "simulated"\nrate = 5\nwidth = {WIDTH}\nheight = {HEIGHT}'
    second = f"""
[[cameras]]
name = "cam2"
model = "washer"
{camera}
[[models]]
name = "washer"
path = "{damaged}"
engine = "onnxruntime"
"""
    with Mosquitto() as broker, Subscriber(broker.port, "edged/#") as plc:
        config = configure(tmp_path, model, broker.port, camera, second)
        daemon = subprocess.Popen([*EDGED, "run", "--config", str(config)])
        try:
            good, bad = "edged/cam1/result", "edged/cam2/result"
            assert plc.wait_match(lambda m: m.topic == good and judged(m.payload), 60)
            assert plc.wait_match(lambda m: m.topic == bad and not judged(m.payload), 60)
            assert plc.wait_match(lambda m: m.topic == "edged/state" and b"error" in m.payload, 60)
            (damaged / "model.onnx").write_bytes(whole)
            assert plc.wait_match(lambda m: m.topic == bad and judged(m.payload), 60)
        finally:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
