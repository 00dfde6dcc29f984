"""A triggered station of the whole daemon: a process, a model, a broker with passwords."""

from __future__ import annotations

import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edged.core.types import Reason
from tests.conftest import HEIGHT, WIDTH
from tests.support.broker import Mosquitto, wait_until
from tests.support.certificates import tool
from tests.support.plc import Plc

CONFIG = """
state_dir = "state"
[[models]]
name = "flange"
path = "flange"
engine = "onnxruntime"
[[models]]
name = "other"
path = "other"
engine = "onnxruntime"
autostart = false
[[cameras]]
name = "cam1"
{camera}
[[stations]]
name = "s1"
camera = "cam1"
model = "flange"
models = ["other"]
trigger = "mqtt"
deadline = 20.0
topic = "plant/line1/s1"
[mqtt]
port = {port}
username = "edged"
password_file = "password"
"""


@pytest.fixture
def folder(tmp_path: Path, model: Path) -> Path:
    """A line's folder: two models and the broker's passwords."""
    for name in ("flange", "other"):
        shutil.copytree(model, tmp_path / name)
    (tmp_path / "password").write_text("pw", encoding="utf-8")
    (tmp_path / "passwords").write_text("edged:pw\nplc:pw\n", encoding="ascii")
    (tmp_path / "passwords").chmod(stat.S_IRUSR | stat.S_IWUSR)
    command = [tool("mosquitto_passwd", "mosquitto"), "-U", str(tmp_path / "passwords")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return tmp_path


def test_a_line_is_triggered_gets_another_recipe_and_is_stopped(folder: Path, parts: Path) -> None:
    picture = next(iter(sorted(parts.rglob("normal/*"))))
    (folder / "line").mkdir()
    shutil.copy(picture, folder / "line" / picture.name)
    with (
        Mosquitto([f"password_file {folder / 'passwords'}"], anonymous=False) as broker,
        Plc(broker.port, "plant/line1/s1", username="plc", password="pw") as plc,
    ):
        camera = 'kind = "folder"\npath = "line"\nloop = true'
        config = folder / "edged.toml"
        config.write_text(CONFIG.format(camera=camera, port=broker.port), encoding="utf-8")
        with subprocess.Popen(
            [sys.executable, "-m", "edged.cli", "run", "--config", str(config)]
        ) as daemon:
            plc.wait_state("ready")
            plc.trigger(1, "A-1")
            (first,) = plc.wait("full", 1, 30.0)
            plc.send("cmd", {"cmd": "recipe", "model": "nothing", "id": "1"})
            refused = plc.wait("cmd/reply", 1)[0]
            assert refused["ok"] == 0
            assert "may not use model 'nothing' (it may use: flange, other)" in refused["text"]
            plc.send("cmd", {"cmd": "recipe", "model": "other", "id": "2"})
            assert plc.wait("cmd/reply", 2)[1]["ok"] == 1
            plc.wait_state("error")
            assert wait_until(lambda: plc.got("state")[-1]["st"] == "ready", 60.0)
            plc.trigger(2, "A-2")
            second = plc.wait("full", 2, 30.0)[1]
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
        offline = plc.wait_state("offline")
        with subprocess.Popen(
            [sys.executable, "-m", "edged.cli", "run", "--config", str(config)]
        ) as again:
            assert wait_until(lambda: plc.got("state")[-1]["st"] == "ready", 60.0)
            assert plc.got("state")[-1]["model"] == "other", "a restart undoes no recipe"
            again.terminate()
        results = plc.got("result")
    assert (first["model"]["name"], second["model"]["name"]) == ("flange", "other")
    assert [(r["seq"], r["part"], r["ok"], r["eval"]) for r in results] == [
        (1, "A-1", 1, 1),
        (2, "A-2", 1, 1),
    ]
    assert first["trigger"] == {"kind": "mqtt", "part": "A-1", "seq": 1}
    assert first["engine"].startswith("onnxruntime")
    assert (offline["hb"], offline["code"]) == (0, Reason.SHUTDOWN.code)


def test_a_simulated_part_is_never_ok_for_a_plc(folder: Path) -> None:
    camera = f'kind = "simulated"\nrate = 50\ndefect_rate = 0\nwidth = {WIDTH}\nheight = {HEIGHT}'
    with (
        Mosquitto([f"password_file {folder / 'passwords'}"], anonymous=False) as broker,
        Plc(broker.port, "plant/line1/s1", username="plc", password="pw") as plc,
    ):
        config = folder / "edged.toml"
        config.write_text(CONFIG.format(camera=camera, port=broker.port), encoding="utf-8")
        with subprocess.Popen(
            [sys.executable, "-m", "edged.cli", "run", "--config", str(config)]
        ) as daemon:
            plc.wait_state("ready")
            plc.trigger(1)
            (result,) = plc.wait("result", 1, 30.0)
            daemon.terminate()
    assert (result["st"], result["ok"], result["sim"]) == (1, 0, 1)
    assert result["code"] == Reason.SIMULATED.code
