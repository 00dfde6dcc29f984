"""How an engine is used best here: measured once, remembered, and never in the daemon itself."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from edged.cli.main import main
from edged.core.names import EngineName
from edged.core.protocols import Tuning
from edged.engines import tune
from edged.engines.choose import ENGINES, NAMES, EngineCandidate, EngineRequest, Engines, tunings
from edged.runtime.state import StateFolder
from edged.wire.spec import read_spec


def test_the_shortest_batch_among_those_that_do_nearly_as_much_is_taken() -> None:
    one, large, slow = Tuning(2, 1), Tuning(2, 8), Tuning(1, 1)
    assert tune.best({one: (0.010, 200), large: (0.070, 230), slow: (0.008, 125)}) == one
    assert tune.best({one: (0.010, 200), large: (0.010, 1600), slow: (0.008, 125)}) == large


def test_the_best_use_is_measured_apart_and_remembered(model: Path, tmp_path: Path) -> None:
    spec, state = read_spec(model), StateFolder(tmp_path)
    engines = Engines(tune.Tuner(state))
    (found,) = engines.candidates(model, spec, "onnxruntime")
    assert found.tuning in tunings(found)
    kept = state.engine_tuning
    ((key, numbers),) = json.loads(kept.read_text()).items()
    assert Tuning(*numbers) == found.tuning
    kept.write_text(json.dumps({key: [5, 3, 1]}))
    (again,) = engines.candidates(model, spec, "onnxruntime")
    assert again.tuning == Tuning(5, 3, 1)  # what was kept counts, nothing is measured again
    loader = again()
    assert loader.tuning == Tuning(5, 3, 1)
    loader.close()
    for damaged in ("{", json.dumps({key: "x"}), json.dumps({key: [1, 2]})):
        kept.write_text(damaged)
        (anew,) = engines.candidates(model, spec, "onnxruntime")
        assert anew.tuning in tunings(anew)


def test_what_the_configuration_gives_is_not_measured_but_kept_to(
    model: Path, tmp_path: Path
) -> None:
    spec, state = read_spec(model), StateFolder(tmp_path)
    engines = Engines(tune.Tuner(state))
    for engine in ("onnxruntime", "openvino"):
        (found,) = engines.candidates(model, spec, EngineRequest(engine, units=3, batch=2))
        assert found.tuning is None
        loader = found()
        assert (loader.tuning.units, loader.tuning.batch) == (3, 2)
        loader.close()
    assert not state.engine_tuning.exists()


def test_an_engine_that_crashes_or_refuses_is_said_and_the_usual_is_kept(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn = tmp_path / "model"
    torn.mkdir()
    for name in ("spec.json", "model.onnx"):
        (torn / name).write_bytes((model / name).read_bytes()[: None if name[0] == "s" else 99])
    recipe = EngineCandidate("onnxruntime", torn, read_spec(model))
    assert tune.Tuner(StateFolder(tmp_path)).tuned(recipe) == recipe
    assert "engine onnxruntime is not tuned: " in caplog.text
    seconds, why = tune.tried(recipe)
    assert not seconds < 10 and why is not None and "damaged" in why


def test_a_gpu_that_is_not_there_is_said_and_never_the_cpu_in_its_place(model: Path) -> None:
    seconds, why = tune.tried(EngineCandidate("onnxruntime-cuda", model, read_spec(model)))
    assert seconds == float("inf")
    assert why is not None and "CUDAExecutionProvider" in why


def test_engines_have_one_list_of_names() -> None:
    assert set(get_args(EngineName)) == {"auto", *NAMES}


def test_the_daemon_loads_no_runtime_to_choose_one(model: Path, tmp_path: Path) -> None:
    import subprocess

    script = (
        "import sys; from pathlib import Path; from edged.engines.choose import Engines\n"
        "from edged.engines.tune import Tuner\n"
        "from edged.runtime.state import StateFolder\n"
        "from edged.wire.spec import read_spec\n"
        "p, kept = Path(sys.argv[1]), Engines(Tuner(StateFolder(Path(sys.argv[2]))))\n"
        "kept.candidates(p, read_spec(p))\n"
        "print(sorted({'onnxruntime', 'openvino', 'tensorrt', 'pycuda'} & set(sys.modules)))"
    )
    words = [sys.executable, "-c", script, str(model), str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


def test_every_engine_offers_its_usual_use_first(model: Path) -> None:
    plain = EngineCandidate("", model, read_spec(model))
    for engine in ENGINES:
        usual, *others = tunings(replace(plain, engine=engine))
        assert usual.units >= 1 and usual not in others


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--batch", "0"], "batch 0: give a whole number from 1 to 64"),
        (["--engine", "openvino"], "invalid choice: 'openvino'"),
        ([], "needs tensorrt, which is not installed: pip install 'edged[tensorrt]'"),
    ],
)
def test_compile_says_why_it_cannot(
    model: Path, words: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        assert main(["compile", str(model), *words]) != 0
    except SystemExit as error:
        assert error.code == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("command", ["detect", "evaluate"])
def test_who_names_tensorrt_gets_no_other_engine_s_numbers(
    command: str, model: Path, parts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(model), str(parts), "--engine", "tensorrt-fp32"]) == 1
    said = capsys.readouterr()
    assert "needs tensorrt, which is not installed" in said.err and not said.out


def test_check_names_an_engine_that_is_not_installed(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(
        f'[[models]]\nname = "flange"\npath = "{model}"\nengine = "onnxruntime-cuda"\n'
    )
    assert main(["check", "--config", str(config)]) == 2
    assert f"{config}:4 models[0].engine: onnxruntime-cuda needs onnxruntime-gpu" in (
        capsys.readouterr().err
    )


def test_a_gpu_that_failed_once_is_asked_again_and_the_others_are_not(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plain = EngineCandidate("auto", model, read_spec(model))
    have = {"onnxruntime": "1", "onnxruntime-cuda": "1"}
    assert tune.Tuner(StateFolder(tmp_path)).order(plain, have) == ["onnxruntime"]
    caplog.clear()
    assert tune.Tuner(StateFolder(tmp_path)).order(plain, have) == ["onnxruntime"]
    assert "onnxruntime-cuda does not run here: This ONNX Runtime was built" in caplog.text


def test_compile_of_no_model_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compile", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
