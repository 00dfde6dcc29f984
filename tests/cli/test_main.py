"""The command line: what it prints, what it loads, and how it ends."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edged import __version__
from edged.cli.main import main
from edged.wire import imaging

COMMANDS = ("demo", "run", "check", "train", "evaluate", "detect")

HELP = """
import contextlib, io, sys
from edged.cli.main import main
for words in {words!r}:
    with contextlib.redirect_stdout(io.StringIO()) as page:
        try:
            main(words)
        except SystemExit as end:
            assert end.code == 0, words
    assert page.getvalue().startswith("usage: edged"), words
rooms = {{name.partition(".")[0] for name in sys.modules}}
print(*sorted(rooms & {heavy!r}))
"""
HEAVY = {
    *("amqtt", "cv2", "google", "grpc", "numpy", "onnx", "onnxruntime", "openvino", "paho"),
    *("prometheus_client", "pydantic", "rich", "tensorrt"),
}


def test_help_is_there_for_every_command_and_loads_no_heavy_library() -> None:
    words = [["--help"], *([command, "--help"] for command in COMMANDS)]
    done = subprocess.run(
        [sys.executable, "-c", HELP.format(words=words, heavy=HEAVY)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    listed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert tuple(words[0] for words in listed if words and words[0] in COMMANDS) == COMMANDS


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"edged {__version__}\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "COMMAND"),
        (["inspect"], "'inspect'"),
        (["run"], "--config"),
        (["check", "--config"], "--config"),
        (["detect", "model"], "images"),
        (["detect", "model", "a.png", "--engine", "abacus"], "'abacus'"),
        (["train", "images", "--output", "x", "--seed", "one"], "'one'"),
    ],
)
def test_a_wrong_command_line_is_exit_code_2_and_says_what_is_wrong(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("usage: edged")
    assert said in shown.err.splitlines()[-1]


@pytest.fixture
def pictures(parts: Path, tmp_path: Path) -> Path:
    """Three parts, and between them a file that is no picture and one that stops early."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    good = sorted((parts / "normal").iterdir())[:3]
    for name, source in zip(("a.png", "c.png", "e.png"), good, strict=True):
        shutil.copy(source, folder / name)
    (folder / "b.png").write_bytes(b"no picture")
    whole = good[0].read_bytes()
    (folder / "d.png").write_bytes(whole[: len(whole) // 2])
    return folder


def test_detect_names_broken_pictures_and_judges_the_others(
    pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = tmp_path / "maps"
    words = ["detect", str(model), str(pictures), "--engine", "onnxruntime"]
    assert main([*words, "--json", "--heatmaps", str(maps)]) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    names = [str(pictures / f"{letter}.png") for letter in "abcde"]
    assert [f["name"] for f in found] == names
    assert ["error" in f for f in found] == [False, True, False, True, False]
    assert found[1]["error"].startswith(f"{names[1]}: not a readable picture")
    assert found[3]["error"].startswith(f"{names[3]}: the file is truncated")
    for judged in found[::2]:
        assert judged["DetectAnomalyResult"]["IsAnomalous"] is (
            judged["score"] >= judged["threshold"]
        )
        assert Path(judged["heatmap"]).read_bytes().startswith(b"\x89PNG")
    assert main(words) == 1
    said = capsys.readouterr()
    assert [line.split()[-1] for line in said.out.splitlines()] == names[::2]
    assert said.err.splitlines() == [found[1]["error"], found[3]["error"]]


def test_detect_of_whole_pictures_is_exit_code_0(
    pictures: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(pictures / name) for name in ("e.png", "a.png")]
    assert main(["detect", str(model), *files, "--engine", "onnxruntime"]) == 0
    assert [line.split()[-1] for line in capsys.readouterr().out.splitlines()] == files


def test_what_is_not_there_is_named_in_one_sentence(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    absent, there = str(tmp_path / "absent"), str(tmp_path)
    output = str(tmp_path / "model")
    for words, code in (
        (["detect", str(model), absent, "--engine", "onnxruntime"], 1),
        (["detect", absent, there], 1),
        (["evaluate", str(model), absent], 2),
        (["train", absent, "--output", output], 2),
    ):
        assert main(words) == code, words
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith(f"edged: {absent}: "), words
        assert said.err.count("\n") == 1


def test_a_place_that_cannot_be_written_is_named_in_one_sentence(
    pictures: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    words = ["detect", str(model), str(pictures / "a.png"), "--engine", "onnxruntime"]
    assert main([*words, "--heatmaps", str(taken)]) == 1
    assert capsys.readouterr().err == f"edged: {taken} cannot be used (File exists).\n"


def run(config: Path) -> tuple[int, list[str]]:
    """Run the daemon; its exit code, and its sentences on standard error without the log."""
    done = subprocess.run(
        [sys.executable, "-m", "edged.cli", "run", "--config", str(config), "--json"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, [x for x in done.stderr.splitlines() if not x.startswith("{")]


def configure(folder: Path, model: Path, extra: str = "", state: str = "state") -> Path:
    path = folder / "edged.toml"
    path.write_text(
        f'state_dir = "{state}"\n{extra}\n'
        f'[[models]]\nname = "flange"\npath = "{model}"\nengine = "onnxruntime"\nunits = 1\n'
        '[[cameras]]\nname = "cam1"\nmodel = "flange"\nkind = "simulated"\n',
        encoding="utf-8",
    )
    return path


def truncate(folder: Path) -> None:
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole[: len(whole) // 2])


def damage_spec(folder: Path) -> None:
    (folder / "spec.json").write_text('{"format": 1, "inp', encoding="utf-8")


def lose_a_key_of_spec(folder: Path) -> None:
    spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    del spec["threshold"]
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")


@pytest.mark.parametrize(
    ("damage", "named", "words"),
    [
        (shutil.rmtree, "", "no such model folder; train one with edged train."),
        (truncate, "/model.onnx", "is damaged: "),
        (damage_spec, "/spec.json", "cannot be read ("),
        (lose_a_key_of_spec, "/spec.json", "'threshold'"),
    ],
)
def test_a_model_that_cannot_be_used_ends_run_with_one_sentence(
    damage: Callable[[Path], None],
    named: str,
    words: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "flange"
    shutil.copytree(model, folder)
    damage(folder)
    config = configure(tmp_path, folder)
    code, said = run(config)
    assert code == 2
    assert len(said) == 1
    assert said[0].startswith(f"model flange does not start: {folder}{named}: ")
    assert words in said[0]
    assert main(["check", "--config", str(config)]) == 2, "check knows it before"
    assert said[0].removeprefix("model flange does not start: ") in capsys.readouterr().err


@pytest.mark.parametrize("door", ["metrics", "grpc", "grpc socket"])
def test_an_address_that_is_taken_ends_run_with_one_sentence(
    door: str, model: Path, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        if door == "grpc socket":
            address = str(tmp_path / "agent.sock")
            other = stack.enter_context(socket.socket(socket.AF_UNIX))
            other.bind(address)
            other.listen()
            section = f'[grpc]\nsocket = "{address}"'
        else:
            other = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            address = f"127.0.0.1:{other.getsockname()[1]}"
            section = f'[{door}]\nlisten = "{address}"'
        code, said = run(configure(tmp_path, model, section))
    assert code == 1
    assert len(said) == 1
    assert said[0].startswith(f"edged: {door.split()[0]}")
    assert address in said[0] and "another" in said[0]


def test_a_state_folder_that_cannot_be_made_ends_run_with_one_sentence(
    model: Path, tmp_path: Path
) -> None:
    taken = tmp_path / "taken"
    taken.touch()
    code, said = run(configure(tmp_path, model, state="taken"))
    assert code == 1
    assert said == [f"edged: {taken} cannot be used (File exists)."]


def test_pictures_of_one_name_get_an_overlay_each(
    tmp_path: Path, model: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = next(p for p in sorted(parts.rglob("*.png")))
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        shutil.copy(picture, tmp_path / folder / "part.png")
    out = tmp_path / "out"
    words = ["detect", str(model), str(tmp_path / "left"), str(tmp_path / "right")]
    assert main([*words, "--engine", "onnxruntime", "--heatmaps", str(out), "--json"]) == 0
    named = [json.loads(line)["heatmap"] for line in capsys.readouterr().out.splitlines()]
    assert sorted(named) == sorted(str(p) for p in out.iterdir())
    assert len(named) == 2


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("threshold", None, "key 'threshold' is missing"),
        ("threshold", 7, "threshold 7.0 is not within 0 to 1"),
        ("golden", ["a.png"], "has wrong values"),
    ],
)
def test_a_model_folder_with_a_wrong_spec_is_a_sentence(
    tmp_path: Path,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    key: str,
    value: object,
    words: str,
) -> None:
    other = tmp_path / "model"
    shutil.copytree(model, other)
    facts = json.loads((other / "spec.json").read_text(encoding="utf-8"))
    facts[key] = value
    if value is None:
        del facts[key]
    (other / "spec.json").write_text(json.dumps(facts), encoding="utf-8")
    assert main(["detect", str(other), str(tmp_path)]) == 1
    assert words in capsys.readouterr().err


def test_check_says_which_file_of_the_broker_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text('[mqtt]\nusername = "line"\npassword_file = "gone"\n', encoding="utf-8")
    assert main(["check", "--config", str(config)]) == 2
    assert f"{config}:3 mqtt.password_file: no file {tmp_path / 'gone'}" in capsys.readouterr().err


def test_a_picture_of_another_size_than_the_training_s_is_no_ok(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    imaging.write_png(tmp_path / "small.png", np.zeros((1, 1, 3), np.uint8))
    assert main(["detect", str(model), str(tmp_path), "--engine", "onnxruntime"]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{tmp_path / 'small.png'}: The picture has 1x1 pixels" in said.err


def test_a_folder_without_pictures_says_so(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "pipe.png")  # to be opened by nobody
    assert main(["detect", str(model), str(tmp_path), "--engine", "onnxruntime"]) == 1
    assert f"{tmp_path}: no pictures there." in capsys.readouterr().err


def test_a_full_disk_behind_the_output_is_a_sentence(model: Path, parts: Path) -> None:
    command = [sys.executable, "-m", "edged.cli", "detect", str(model), str(parts)]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*command, "--engine", "onnxruntime"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "edged: the output cannot be used (No space left on device)." in done.stderr
    assert "Traceback" not in done.stderr


def test_check_sees_that_a_camera_cannot_fit_its_model(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "edged.toml"
    camera = f'[[models]]\nname = "m"\npath = "{model}"\n[[cameras]]\nname = "c"\nmodel = "m"\n'
    config.write_text(f'{camera}kind = "simulated"\nwidth = 64\n', encoding="utf-8-sig")
    assert main(["check", "--config", str(config)]) == 2
    assert f"{config}:8 cameras[0].width: renders 64x480 pixels" in capsys.readouterr().err
    config.write_text(f'{camera}kind = "opencv"\nsource = "gone.mp4"\n', encoding="utf-8")
    assert main(["check", "--config", str(config)]) == 2
    assert f"{config}:8 cameras[0].source: no file or device" in capsys.readouterr().err
