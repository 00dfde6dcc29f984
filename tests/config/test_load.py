"""What `edged check` says of a configuration: the file, the line, the key, and what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from edged.cli.main import main
from edged.config import FolderCameraConfig, OpenCvCameraConfig, SimulatedCameraConfig
from edged.config.load import load
from tests.conftest import HEIGHT, WIDTH

SHIPPED = Path(__file__).parents[2] / "configs" / "edged.toml"

MODEL = """
[[models]]
name = "flange"
path = "models/flange"
"""
CAMERA = """
[[cameras]]
name = "cam1"
model = "flange"
kind = "simulated"
"""
FOLDER = CAMERA.replace("simulated", "folder")

# Name: (the file, with `#!` on the line that must be named; the key; what the sentence says).
FAULTS = {
    "a mistyped key": ('state_dri = "x"  #!', "state_dri", "did you mean 'state_dir'?"),
    "a mistyped table": ("stop_seconds = 1\n[metrix] #!", "metrix", "did you mean 'metrics'?"),
    "a mistyped key of a table": (
        'stop_seconds = 5.0\n[log]\nformat = "json"\nlevl = "info"  #!',
        "log.levl",
        "unknown key; did you mean 'level'?",
    ),
    "a mistyped key of the second camera": (
        f"{MODEL}{CAMERA}rate = 1\n{CAMERA.replace('cam1', 'cam2')}rat = 1 #!",
        "cameras[1].rat",
        "did you mean 'rate'?",
    ),
    "a key that only another kind of camera has": (
        f'{MODEL}{FOLDER}path = "x"\nwidth = 640  #!',
        "cameras[0].width",
        "unknown key; known here: kind, loop, model, name, path, project, rate.",
    ),
    "a key that is called like a kind of camera": (
        f'{MODEL}{FOLDER}path = "x"\nfolder = "y"  #!',
        "cameras[0].folder",
        "unknown key",
    ),
    "a word for a number": ('[mqtt]\nport = "mqtt"  #!', "mqtt.port", "valid integer"),
    "a number for a word": (f"{MODEL}engine = 5  #!", "models[0].engine", "(found 5)"),
    "a value for a table": ("mqtt = 5  #!", "mqtt", "(found 5)"),
    "a list for a source": (
        f"{MODEL}{CAMERA.replace('simulated', 'opencv')}source = [0]  #!",
        "cameras[0].source",
        "must be a device number, rtsp://... or a video file.",
    ),
    "true for a source": (
        f"{MODEL}{CAMERA.replace('simulated', 'opencv')}source = true  #!",
        "cameras[0].source",
        "(found True)",
    ),
    "a number out of range": (f"{MODEL}queue = 0  #!", "models[0].queue", "(found 0)"),
    "time that never ends": ("stop_seconds = inf  #!", "stop_seconds", "(found inf)"),
    "a name that is no topic": (
        MODEL + CAMERA.replace('"cam1"', '"cam/1"  #!'),
        "cameras[0].name",
        "(found 'cam/1')",
    ),
    "a required key that is absent": (
        '[[models]]  #!\nname = "flange"',
        "models[0].path",
        "this key is required: add it.",
    ),
    "a camera without its kind": (
        MODEL + '[[cameras]]  #!\nname = "cam1"\nmodel = "flange"',
        "cameras[0].kind",
        "this key is required: opencv, folder or simulated.",
    ),
    "a camera of an unknown kind": (
        MODEL + '[[cameras]]\nname = "cam1"\nmodel = "flange"\nkind = "usb"  #!',
        "cameras[0].kind",
        "must be opencv, folder or simulated (found 'usb').",
    ),
    "a camera of an unknown model": (
        MODEL + '[[cameras]]\nname = "cam1"\nmodel = "flnge"  #!\nkind = "simulated"',
        "cameras[0].model",
        "no model is called 'flnge' (models: flange).",
    ),
    "two cameras of one name": (
        MODEL + CAMERA + CAMERA.replace('"cam1"', '"cam1"  #!'),
        "cameras[1].name",
        "'cam1' is used twice: choose another name.",
    ),
    "two models of one name": (
        f'{MODEL}[[models]]\nname = "flange"  #!\npath = "y"',
        "models[1].name",
        "'flange' is used twice",
    ),
    "fewer units at most than at start": (
        '[[models]]  #!\nname = "a"\npath = "a"\nunits = 4\nmax_units = 2',
        "models[0]",
        "max_units = 2 is less than units = 4.",
    ),
    "metrics for everybody": (
        '[metrics]\nlisten = "0.0.0.0:9464"  #!',
        "metrics.listen",
        "without TLS and authentication: use 127.0.0.1",
    ),
    "gRPC for the network": (
        '[grpc]\nlisten = "192.168.1.5:50051"  #!',
        "grpc.listen",
        "192.168.1.5 can be reached from outside: set cert_file and key_file for TLS, and",
    ),
    "gRPC for everybody on the network": (
        '[grpc]\nlisten = "192.168.1.5:50051"  #!\ncert_file = "c"\nkey_file = "k"',
        "grpc.listen",
        "everybody may do everything: set client_ca_file or token_file",
    ),
    "a token for the network in clear text": (
        '[grpc]\nlisten = "192.168.1.5:50051"  #!\ntoken_file = "t"',
        "grpc.listen",
        "set cert_file and key_file for TLS",
    ),
    "a client's certificate without TLS": (
        '[grpc]\nlisten = "127.0.0.1:50051"\nclient_ca_file = "c"  #!',
        "grpc.client_ca_file",
        "nobody can show a certificate without TLS",
    ),
    "half a certificate of gRPC": (
        '[grpc]  #!\nlisten = "127.0.0.1:50051"\ncert_file = "c"',
        "grpc",
        "cert_file and key_file go together",
    ),
    "a token for a socket": (
        '[grpc]\nsocket = "s"\ntoken_file = "t"  #!',
        "grpc.token_file",
        "is of the TCP port: set listen, too",
    ),
    "a group that is none": (
        '[grpc]\nsocket = "s"\ngroup = true  #!',
        "grpc.group",
        "must be the name or the number of a group",
    ),
    "gRPC for every host of IPv6": (
        '[grpc]\nlisten = "[::]:50051"  #!',
        "grpc.listen",
        ":: can be",
    ),
    "an address without a port": (
        '[metrics]\nlisten = "127.0.0.1"  #!',
        "metrics.listen",
        "write host:port, as in 127.0.0.1:9464",
    ),
    "gRPC that nobody reaches": ("[grpc]  #!", "grpc", "set socket or listen."),
    "a password in clear text": (
        '[mqtt]  #!\nhost = "10.0.0.1"\nusername = "plc"',
        "mqtt",
        "would travel in clear text to 10.0.0.1: set tls = true.",
    ),
    "a broker elsewhere without TLS": (
        '[mqtt]  #!\nhost = "10.0.0.1"',
        "mqtt",
        "10.0.0.1 is another machine: set tls = true and a username or a certificate, or "
        "plaintext = true if the network between is closed.",
    ),
    "certificates without TLS": (
        '[mqtt]  #!\nca_file = "ca.pem"',
        "mqtt",
        "certificates are given, but tls is not on: set tls = true.",
    ),
    "a password without a user": (
        '[mqtt]  #!\npassword_file = "secret"',
        "mqtt",
        "password_file needs a username beside it.",
    ),
    "the API for the network in clear text": (
        '[rest]  #!\nlisten = "0.0.0.0:8443"',
        "rest",
        "0.0.0.0 can be reached from outside: set cert_file and key_file for HTTPS, or listen on "
        "127.0.0.1.",
    ),
    "the API for everybody on the network": (
        '[rest]  #!\nlisten = "[::]:8443"\nanonymous = true\ncert_file = "c"\nkey_file = "k"',
        "rest",
        ":: can be reached from outside, and anonymous lets everybody do everything",
    ),
    "half of the API's certificate": (
        '[rest]  #!\nkey_file = "k"',
        "rest",
        "cert_file and key_file go together",
    ),
    "an address of the API without a port": (
        '[rest]\nlisten = "127.0.0.1"  #!',
        "rest.listen",
        "write host:port",
    ),
    "a camera with a model and a project": (
        MODEL + '[[cameras]]\nname = "c"\nkind = "folder"\npath = "."\nmodel = "m"  #!\n'
        'project = "p"\n[rest]',
        "cameras[0].model",
        "give either a model or a project.",
    ),
    "a project without the API": (
        '[[cameras]]\nname = "c"\nkind = "folder"\npath = "."\nproject = "p"  #!',
        "cameras[0].project",
        "projects are the API's, which is off: add a [rest] section.",
    ),
    "a project's name with a slash": (
        '[[cameras]]\nname = "c"\nkind = "folder"\npath = "."\nproject = "a/b"  #!\n[rest]',
        "cameras[0].project",
        "",
    ),
    "half of a certificate": (
        '[mqtt]  #!\ntls = true\ncert_file = "x.pem"',
        "mqtt",
        "cert_file and key_file go together",
    ),
    "what is not TOML": ('[log]\nlevel = info  #!\nformat = "json"', "-", "is not TOML: "),
    "a key that is there twice": ("stop_seconds = 1\nstop_seconds = 2  #!", "-", "is not TOML: "),
    "a string without its end": ('[log]\nlevel = """info  #!', "-", "is not TOML: "),
}


def check(path: Path, *more: str) -> int:
    return main(["check", "--config", str(path), *more])


def marked(text: str) -> int:
    return next(n for n, line in enumerate(text.splitlines(), 1) if line.endswith("#!"))


@pytest.mark.parametrize("fault", FAULTS)
def test_check_names_the_line_and_the_key_of(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, key, words = FAULTS[fault]
    path = tmp_path / "edged.toml"
    path.write_text(text, encoding="utf-8")
    assert check(path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"{path}:{marked(text)} {key}: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert said.err.endswith((".\n", "?\n"))


def test_every_fault_of_a_file_is_said_at_once_and_as_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edged.toml"
    path.write_text('stop_seconds = -1\n[log]\nlevel = "loud"\ncolour = true\n', encoding="utf-8")
    assert check(path, "--json") == 2
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert answer["ok"] is False
    assert answer["problems"] == said.err.splitlines()
    places = [problem.partition(": ")[0] for problem in answer["problems"]]
    assert places == [f"{path}:1 stop_seconds", f"{path}:3 log.level", f"{path}:4 log.colour"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read (No such file or directory)."),
        (b'state_dir = "\xff"', "is not UTF-8 text (byte 13)."),
    ],
)
def test_a_file_that_cannot_be_read_is_named(
    content: bytes | None, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edged.toml"
    if content is not None:
        path.write_bytes(content)
    assert check(path) == 2
    assert capsys.readouterr().err == f"{path}:0 -: {words}\n"
    assert check(path.parent) == 2, "a folder is no file, either"
    assert capsys.readouterr().err.startswith(f"{path.parent}:0 -: cannot be read (")


def test_what_the_file_names_must_be_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edged.toml"
    path.write_text(f'{MODEL}{FOLDER}path = "pictures"\n', encoding="utf-8")
    assert check(path, "--json") == 2
    model, camera = json.loads(capsys.readouterr().out)["problems"]
    assert model.startswith(f"{path}:4 models[0].path: {tmp_path / 'models/flange'}: no such model")
    assert camera.startswith(f"{path}:10 cameras[0].path: no folder {tmp_path / 'pictures'}; ")


def test_a_good_file_is_said_to_be_good(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "edged.toml"
    text = f"{MODEL}{CAMERA}".replace("models/flange", str(model))
    size = f"width = {WIDTH}\nheight = {HEIGHT}\n"
    path.write_text(f"{text}{size}[metrics]\n", encoding="utf-8")
    assert check(path) == 0
    assert capsys.readouterr().out == f"{path}: good: 1 models, 1 cameras\n"
    assert check(path, "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "models": 1, "cameras": 1}


def test_relative_paths_start_at_the_folder_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line, elsewhere = tmp_path / "line", tmp_path / "elsewhere"
    line.mkdir()
    elsewhere.mkdir()
    (line / "film.avi").touch()
    opencv = CAMERA.replace("simulated", "opencv").replace("cam1", "film")
    device = opencv.replace("film", "device")
    text = (
        f'state_dir = "state"\n{MODEL}{FOLDER}path = "/pictures"\n{opencv}source = "film.avi"\n'
        f'{device}source = "no-file"\n[mqtt]\ntls = true\nca_file = "ca.pem"\n'
        '[grpc]\nsocket = "s"\n'
    )
    (line / "edged.toml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(elsewhere)
    found = load(Path("../line/edged.toml"))
    assert found.state_dir == line / "state"
    assert found.models[0].path == line / "models/flange"
    assert [getattr(c, "path", None) or getattr(c, "source", None) for c in found.cameras] == [
        Path("/pictures"),
        str(line / "film.avi"),
        "no-file",
    ]
    assert found.mqtt is not None and found.mqtt.ca_file == line / "ca.pem"
    assert found.grpc is not None and found.grpc.socket == line / "s"


def test_the_shipped_file_parses_and_lacks_only_its_model(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert check(SHIPPED, "--json") == 2
    problems = json.loads(capsys.readouterr().out)["problems"]
    assert len(problems) == 1
    assert "models[0].path: " in problems[0] and "no such model folder" in problems[0]


def test_the_shipped_file_has_every_key_with_its_default(tmp_path: Path) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    path = tmp_path / "edged.toml"
    # Its certificates are examples in comments, and only right with TLS.
    assert "\ntls = false" in text
    text = text.replace("\ntls = false", "\ntls = true")
    path.write_text(re.sub(r"^# (?=\[|[a-z0-9_]+ = )", "", text, flags=re.M), encoding="utf-8")
    whole = load(path)
    assert {type(c) for c in whole.cameras} == {
        OpenCvCameraConfig,
        FolderCameraConfig,
        SimulatedCameraConfig,
    }
    sections: list[Any] = [whole, *whole.models, *whole.cameras, *whole.stations, whole.archive]
    sections += [
        whole.mqtt,
        whole.sparkplug,
        whole.grpc,
        whole.rest,
        whole.quotas,
        whole.metrics,
        whole.log,
    ]
    for section in sections:
        assert isinstance(section, BaseModel)
        fields = type(section).model_fields
        # A station has a model or a project; a camera may leave both to its station.
        assert section.model_fields_set | {"project", "model"} >= fields.keys(), type(
            section
        ).__name__
        for name, field in fields.items():
            shown = getattr(section, name)
            if (
                field.is_required()
                or field.default is None
                or isinstance(shown, (tuple, BaseModel))
                or name == "tls"
            ):
                continue
            assert shown == field.default, f"{type(section).__name__}.{name}"
