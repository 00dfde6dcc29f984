"""What is made on a line stays there: no library reports to its maker."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = """
import importlib, sys, threading
from pathlib import Path
from edged.engines.choose import EngineCandidate, EngineRequest
from edged.wire.spec import read_spec
folder = Path(sys.argv[2])
request = EngineRequest(units=1, batch=1)
loader = EngineCandidate(sys.argv[1], folder, read_spec(folder), request)()
engine = loader.open()
engine.infer(1)
engine.close()
loader.close()
"""


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_keeps_no_identity_of_the_machine_for_its_maker(
    engine: str, model: Path, tmp_path: Path
) -> None:
    """Both libraries would keep one under HOME before they report anything."""
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, engine, str(model)],
        env={**environment, **home}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.iterdir()) == []
