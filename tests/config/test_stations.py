"""Stations in the configuration: what cannot work is named before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config.load import load
from edged.core.errors import ConfigError

STATION = """
[[models]]
name = "m"
path = "m"
[[cameras]]
name = "cam"
kind = "simulated"
[[stations]]
name = "s1"
camera = "cam"
model = "m"
"""


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ('trigger = "mqtt"', "there is no broker to come from: add an [mqtt] section"),
        ('trigger = "grpc"', "there is no door to come in: add a [grpc] section"),
        ('trigger = "bell"', "trigger: Input should be 'free', 'interval', 'mqtt', 'grpc'"),
        ('models = ["x"]', "no model is called 'x'"),
        ('project = "p"', "give either a model or a project"),
        ('topic = "a b"', "topic: String should match pattern"),
        ('topic = "edged"', "'edged' is used twice: choose another topic or name"),
        (
            'topic = "edged/s2"\n[[cameras]]\nname = "s2"\nkind = "simulated"\nmodel = "m"',
            "'edged/s2' is used twice: choose another topic or name",
        ),
        ("deadlin = 1", "unknown key; did you mean 'deadline'?"),
        (
            '[[stations]]\nname = "s2"\ncamera = "cam"\nmodel = "m"',
            "'cam' has a station already: one each",
        ),
        (
            '[[stations]]\nname = "s2"\ncamera = "eye"\nmodel = "m"',
            "no camera is called 'eye' (cameras: cam)",
        ),
    ],
)
def test_a_station_that_cannot_work_is_named_before_it_runs(
    tmp_path: Path, more: str, problem: str
) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(STATION + more, encoding="utf-8")
    with pytest.raises(ConfigError) as fault:
        load(path)
    assert problem in str(fault.value)


def test_a_camera_with_a_model_is_a_station_of_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "edged.toml"
    own = STATION.partition("[[stations]]")[0] + 'model = "m"\n'
    path.write_text(own, encoding="utf-8")
    (station,) = load(path).all_stations
    assert (station.name, station.camera, station.model) == ("cam", "cam", "m")
    assert (station.trigger, station.limit) == ("free", 0.0)
    path.write_text(own.replace('model = "m"\n', ""), encoding="utf-8")
    with pytest.raises(ConfigError, match="give a model or a project, or name the camera in a"):
        load(path)
    path.write_text(STATION + 'trigger = "mqtt"\n[mqtt]\n', encoding="utf-8")
    assert load(path).all_stations[0].limit == 1.0, "a trigger from outside has a deadline"
