"""SIMULATED: the command line and the whole daemon with a TensorRT that is none.

Real: edged, its child processes, NVIDIA's parser and builder (tensorrt-rtx), pycuda. Simulated: the
driver and TensorRT's runtime, which a module of these tests puts in the place of `tensorrt`. What
is shown is how edged builds, keeps, proves, swaps and gives up; nothing of a GPU.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from edged.wire.pb import edge_agent_pb2 as agent
from edged.wire.pb import edge_agent_pb2_grpc as agent_grpc
from tests.engines.test_tensorrt_simulated import driver, pycuda  # noqa: F401 - fixtures
from tests.support.broker import Mosquitto, Subscriber, require_mosquitto, wait_until
from tests.training.export.test_builds import GENERATIONS, installed

ROOT = Path(__file__).parents[2]
SHIM = """
from tests.support.simulated.trt import *
from tests.support.simulated.trt import __version__
"""
START_SECONDS = 60


class Box:
    """A machine with a simulated GPU."""

    def __init__(self, folder: Path, library: Path, site: Path, model: Path, parts: Path) -> None:
        self.folder, self.model, self.parts = folder, model, parts
        self.shim = folder / "site" / "tensorrt.py"
        self.shim.parent.mkdir()
        self.shim.write_text(SHIM)
        places = [self.shim.parent, ROOT, site, installed(GENERATIONS[-1])]
        self.environment = {
            **os.environ,
            "EDGED_SOFTCUDA": str(library),
            "LD_LIBRARY_PATH": str(library.parent),
            "PYTHONPATH": os.pathsep.join(map(str, places)),
            "XDG_CACHE_HOME": str(folder / "cache"),
        }
        self.plans = folder / "state" / "plans"

    def configure(self, engine: str, more: str = "") -> Path:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        path = self.folder / "edged.toml"
        path.write_text(f"""
state_dir = "state"
metrics = {{ listen = "127.0.0.1:{self.port}" }}
[[models]]
name = "flange"
path = "{self.model}"
engine = "{engine}"
units = 2
batch = 2
[[cameras]]
name = "cam1"
model = "flange"
kind = "folder"
path = "{self.parts}"
rate = 20
loop = true
{more}
""")
        return path

    def edged(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "edged.cli", *words],
            env={**self.environment, **environment}, cwd=self.folder,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    @contextlib.contextmanager
    def line(self, config: Path, **environment: str) -> Iterator[Line]:
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "edged.cli", "run", "--config", str(config), "--json"],
                env={**self.environment, **environment}, cwd=self.folder,
                stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        try:
            yield Line(process, self)
        finally:
            process.kill()
            process.communicate()


class Line:
    """A daemon that runs."""

    def __init__(self, process: subprocess.Popen[str], box: Box) -> None:
        self.process, self.box = process, box

    def metrics(self) -> str:
        with contextlib.suppress(OSError):
            url = f"http://127.0.0.1:{self.box.port}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        assert self.process.poll() is None, self.log()
        return ""

    def engines(self) -> list[str]:
        return re.findall(r'edged_engine\{engine="([^"]*)",model="flange"\} 1.0', self.metrics())

    def number(self, name: str) -> float:
        found = re.search(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", self.metrics(), re.M)
        return float(found[1]) if found else 0.0

    def log(self) -> str:
        return (self.box.folder / "log").read_text()

    def judged(self, more: int) -> None:
        """Wait until so many more parts were judged."""
        name = r"edged_result_latency_seconds_count"
        before = self.number(name)
        wait_until(lambda: self.number(name) >= before + more, START_SECONDS)

    def serves(self, engine: str) -> None:
        wait_until(lambda: any(e.startswith(engine) for e in self.engines()), START_SECONDS)

    def stop(self) -> dict[str, Any]:
        """Stop as systemd does; the summary."""
        self.process.send_signal(signal.SIGTERM)
        said, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.log()
        return dict(json.loads(said))


@pytest.fixture
def box(
    tmp_path: Path,
    driver: Path,  # noqa: F811
    pycuda: Path,  # noqa: F811
    model: Path,
    parts: Path,
) -> Box:
    return Box(tmp_path, driver, pycuda, model, parts)


def numbers_given(box: Box) -> int:
    with contextlib.closing(sqlite3.connect(box.folder / "state" / "sequences.sqlite")) as numbers:
        ((free,),) = numbers.execute("SELECT free FROM sequences")
    return int(free) - 1


def test_a_line_runs_at_once_and_gets_the_plan_when_it_is_built(box: Box) -> None:
    require_mosquitto()
    with Mosquitto() as broker, Subscriber(broker.port, "edged/state") as plc:
        config = box.configure("tensorrt", f"[mqtt]\nport = {broker.port}\n")
        summary = swapped_line(box, config)
        states = [json.loads(message.payload)["st"] for message in plc.messages]
    # From its start to its end the line was ready, also while units changed.
    assert "ready" in states and "error" not in states[states.index("ready") :]
    counts = summary["cameras"]["cam1"]
    assert counts["no_verdict"] == counts["skipped"] == 0
    assert counts["ok"] + counts["ng"] == numbers_given(box)  # none lost, none twice
    with box.line(box.configure("tensorrt")) as line:
        line.serves("tensorrt")
        assert line.number("edged_engine_changes_total") == 1  # there was no other before it
        line.stop()


def swapped_line(box: Box, config: Path) -> dict[str, Any]:
    """A line that runs until some parts were judged by a plan that was built behind it."""
    with box.line(config, EDGED_SIMULATE="slow load") as line:
        line.serves("o")  # onnxruntime or openvino: what is ready
        line.serves("tensorrt fp16 on softcuda (no GPU: simulated")
        line.judged(10)
        assert len(line.engines()) == 1 and line.number("edged_engine_refusals_total") == 0
        assert line.number("edged_units") == 2
        return line.stop()


def test_compile_builds_ahead_of_time_and_auto_measures_it(box: Box) -> None:
    config = box.configure("auto")
    done = box.edged("compile", str(box.model), "--config", str(config), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["engine"].startswith("tensorrt fp16 on softcuda")
    assert report["largest_difference"] < 0.02
    kept = {path.suffix for path in box.plans.iterdir()}
    assert kept == {".plan", ".json"} and Path(report["plan"]).parent == box.plans
    assert any(path.name.startswith("timing-") for path in box.plans.iterdir())
    with box.line(config) as line:
        line.judged(5)
        line.stop()
    (order,) = json.loads((box.folder / "state" / "engine-choice.json").read_text()).values()
    assert "tensorrt" in order


@pytest.mark.parametrize("fault", ["bytes", "content"])
def test_a_corrupted_plan_is_removed_and_built_anew_while_the_line_runs(
    box: Box, fault: str
) -> None:
    config = box.configure("tensorrt")
    done = box.edged("compile", str(box.model), "--config", str(config), "--json")
    plan = Path(json.loads(done.stdout)["plan"])
    whole = plan.read_bytes()
    if fault == "bytes":
        plan.write_bytes(whole[:-1] + b"?")
    else:  # what was written is damaged already: TensorRT itself must refuse it
        script = (
            "import sys; from pathlib import Path; from edged.engines.plan import Plans\n"
            "Plans(Path(sys.argv[1])).keep(sys.argv[2], b'of another TensorRT', {})"
        )
        command = [sys.executable, "-c", script, str(plan.parent), plan.stem]
        subprocess.run(command, env=box.environment, check=True, timeout=60)
    with box.line(config) as line:
        line.serves("o")
        line.serves("tensorrt")
        line.judged(5)
        line.stop()
    assert plan.read_bytes() == whole
    why = "its bytes are not those" if fault == "bytes" else "TensorRT cannot load the plan"
    assert f"plan {plan.stem} is removed: {why}" in line.log()


def test_a_plan_that_judges_otherwise_leaves_the_line_where_it_was(box: Box) -> None:
    config = box.configure("tensorrt", '[grpc]\nsocket = "agent.sock"\n')
    with box.line(config, EDGED_SIMULATE="other numbers") as line:
        wait_until(lambda: line.number("edged_engine_refusals_total") == 1, START_SECONDS)
        line.judged(5)
        with grpc.insecure_channel(f"unix:{box.folder / 'agent.sock'}") as channel:
            asked = agent.DescribeModelRequest(model_component="flange")
            told = agent_grpc.EdgeAgentStub(channel).DescribeModel(asked).model_description
        assert told.status == agent.RUNNING
        assert re.match(
            r"The model is running; another engine was refused: Engine tensorrt .* is allowed",
            told.status_message,
        )
        (serves,) = line.engines()
        assert serves.startswith("o")
        counts = line.stop()["cameras"]["cam1"]
    assert counts["no_verdict"] == 0
    said = r"flange goes on with the engine that it has: Engine tensorrt.* is refused"
    assert re.search(said, line.log())
    # It is remembered: later starts say so again and build nothing.
    (sidecar,) = [path for path in box.plans.glob("*.json") if "refused" in path.read_text()]
    built = sidecar.stat().st_mtime_ns
    with box.line(config) as line:  # though this TensorRT would judge as the trainer did
        wait_until(lambda: line.number("edged_engine_refusals_total") == 1, START_SECONDS)
        line.judged(3)
        line.stop()
    assert sidecar.stat().st_mtime_ns == built and re.search(said, line.log())


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (
            "no driver",
            "CUDA needs pycuda, which cannot be imported (ImportError: libcuda.so.1: ",
        ),
        ("half a library", "cannot be imported (OSError: libnvdla_compiler.so: cannot open"),
        ("a library that crashes", "TensorRT crashes here (exit code -6)"),
        ("no library", "needs tensorrt, which is not installed"),
    ],
    ids=lambda word: word if len(word) < 30 else "",
)
def test_without_what_a_plan_needs_the_line_runs_and_says_why(
    box: Box, fault: str, why: str
) -> None:
    environment = {}
    if fault == "no driver":
        environment["LD_LIBRARY_PATH"] = ""
    elif fault == "half a library":
        box.shim.write_text("raise OSError('libnvdla_compiler.so: cannot open shared object')")
    elif fault == "a library that crashes":
        box.shim.write_text("import os; os.abort()")
    else:
        box.shim.unlink()
    with box.line(box.configure("tensorrt"), **environment) as line:
        wait_until(lambda: line.number("edged_engine_refusals_total") == 1, START_SECONDS)
        line.judged(3)
        assert line.stop()["cameras"]["cam1"]["no_verdict"] == 0
    assert why in line.log()
    done = box.edged("compile", str(box.model), "--json", **environment)
    assert done.returncode == 1 and why in done.stderr, done.stderr


def test_a_lost_device_ends_the_daemon_for_systemd_and_every_part_has_its_record(
    box: Box,
) -> None:
    config = box.configure("tensorrt", "[mqtt]\nport = 9\n")
    assert box.edged("compile", str(box.model), "--config", str(config)).returncode == 0
    with box.line(config, EDGED_SIMULATE="sticky") as line:
        said, _ = line.process.communicate(timeout=START_SECONDS)
        assert line.process.returncode == 3, line.log()
    total = json.loads(said)["inspections"]
    with contextlib.closing(sqlite3.connect(box.folder / "state" / "outbox.sqlite")) as outbox:
        topics = [topic for (topic,) in outbox.execute("SELECT topic FROM outbox")]
    assert total == numbers_given(box) == sum(topic.endswith("/full") for topic in topics) > 20
    assert "CUDA could not" in line.log()


def test_a_place_where_no_plan_can_be_kept_is_no_reason_to_stop(box: Box) -> None:
    box.plans.parent.mkdir()
    box.plans.write_text("a file, where the folder should be")
    with box.line(box.configure("tensorrt")) as line:
        wait_until(lambda: line.number("edged_engine_refusals_total") == 1, START_SECONDS)
        line.judged(3)
        line.stop()
    assert "a plan cannot be kept" in line.log()


def test_a_plan_that_crashes_its_process_never_reaches_the_daemon(box: Box) -> None:
    config = box.configure("tensorrt")
    for _ in range(2):
        with box.line(config, EDGED_SIMULATE="crash") as line:
            wait_until(lambda: line.number("edged_engine_refusals_total") == 1, START_SECONDS)
            line.judged(3)
            line.stop()
        assert "The compilation's process ended with code -6" in line.log()
        assert list(box.plans.glob("[!t]*.plan")) == []


def test_a_plan_that_crashes_the_daemon_does_so_once(box: Box) -> None:
    """Its library was changed under it, say."""
    config = box.configure("tensorrt")
    assert box.edged("compile", str(box.model), "--config", str(config)).returncode == 0
    with box.line(config, EDGED_SIMULATE="crash") as line:
        assert line.process.wait(START_SECONDS) == -signal.SIGABRT
    with box.line(config, EDGED_SIMULATE="crash") as line:  # as systemd starts it again
        wait_until(lambda: line.number("edged_engine_refusals_total") == 1, START_SECONDS)
        line.judged(3)
        line.stop()
    assert "is removed: the process that used it first ended at once" in line.log()


def test_a_library_that_writes_on_standard_output_disturbs_no_build(box: Box) -> None:
    box.shim.write_text(f"import os; os.write(1, b'NvMMLiteOpen : Block\\n')\n{SHIM}")
    done = box.edged("compile", str(box.model), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["engine"].startswith("tensorrt fp16")


def test_compile_builds_what_the_model_s_section_asks_for(box: Box) -> None:
    config = box.configure("tensorrt-fp32")
    words = ["compile", str(box.model), "--config", str(config), "--json"]
    done = box.edged(*words)
    assert json.loads(done.stdout)["engine"].startswith("tensorrt fp32")
    (facts,) = [json.loads(path.read_text()) for path in box.plans.glob("*.json")
                if "timing" not in path.name]  # fmt: skip
    assert facts["what"]["batch"] == 2 and facts["what"]["precision"] == "fp32"
    with box.line(config) as line:
        line.serves("tensorrt fp32")
        assert line.number("edged_engine_changes_total") == 1
        line.stop()
    elsewhere = box.folder / "elsewhere"
    elsewhere.mkdir()
    done = box.edged("compile", str(elsewhere), "--config", str(config))
    assert done.returncode == 2 and "has no model in" in done.stderr
