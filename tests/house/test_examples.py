"""The examples as their README says: one demo, every program against it, and what a user sees.

The demo is started once and ended with Ctrl-C; every program has run by then, and each test looks
at what was printed.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.cameras.simulation.parts import render
from edged.tools.demo.configuration import CAMERAS, HEIGHT, STATIONS, WIDTH
from edged.wire import imaging, results
from edged.wire import plc as wire_plc
from tests.support.broker import wait_until

pytestmark = pytest.mark.timeout(400)  # the demo trains two models, and boto3 a third

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = {"plc_json.py", "plc_struct.py", "mes_watch.py", "mes_inspect.py", "lookout_boto3.py"}
IMPORTED = {"demo_box.py", "plc_station.py"}
DATA = {"README.md", "edged_types.st", "grafana/README.md", "grafana/edged.json"}
PARTS, REWORKED, SEEN = 4, 3, 5
"""Of each PLC, of the rework bench, and of each of the two lives of the watching MES."""
TRAINING_SECONDS, EXAMPLE_SECONDS = 150, 60

PLC_LINE = re.compile(r"(P-\d+)  (OK|NOT OK|no verdict) +score ([\d.]+), .* -> (\w+)")
INSPECT_LINE = re.compile(r"(R-\d+)  (OK|NOT OK|no verdict)")
WATCH_LINE = re.compile(r" *(\d+)  (\S+) +(\d+)  (\S+) +(OK|NOT OK|no verdict)")


@dataclass
class Demo:
    """A demo on its way, and what ran against it; `outputs` by a name of ours."""

    folder: Path
    process: subprocess.Popen[str]
    outputs: dict[str, subprocess.CompletedProcess[str]]
    metrics: str = ""
    report: str = ""

    @property
    def table(self) -> str:
        """What a person saw, and whatever went wrong."""
        return (self.folder / "said").read_text(encoding="utf-8")

    def run(self, name: str, file: str, *words: str) -> None:
        """One example, in the folder in which a user of this demo would be."""
        self.outputs[name] = subprocess.run(
            [sys.executable, str(EXAMPLES / file), *words],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=TRAINING_SECONDS,
            check=False,
        )

    def lines(self, name: str, form: re.Pattern[str]) -> list[tuple[str, ...]]:
        """What an example printed, line by line, of those that have this form; it went well."""
        done = self.outputs[name]
        assert done.returncode == 0 and "Traceback" not in done.stderr, done.stdout + done.stderr
        found = map(form.match, done.stdout.splitlines())
        return [match.groups() for match in found if match is not None]


def environment() -> dict[str, str]:
    """This checkout's edged, and no key of AWS that the tester may have."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
    return {**kept, "PYTHONPATH": str(EXAMPLES.parent)}


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that has ended, after every example has run."""
    folder = tmp_path_factory.mktemp("examples")
    output = folder / "demo-output"
    command = [sys.executable, "-m", "edged.cli", "demo", "--seconds", "600"]
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            [*command, "--output", str(output)],
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            start_new_session=True,  # so that a Ctrl-C reaches all of it, and nothing else
        )
    made = Demo(folder, process, {})
    try:
        up = output / "edge.sock"
        wait_until(lambda: up.exists() or process.poll() is not None, TRAINING_SECONDS)
        assert process.poll() is None, made.table
        run_all(made)
        os.killpg(process.pid, signal.SIGINT)
        made.report, _ = process.communicate(timeout=EXAMPLE_SECONDS)
        yield made
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def run_all(demo: Demo) -> None:
    """Every example, as its README says; the first returns when the line inspects."""
    position = ("--position", "demo-output/mes.json", "--count", str(SEEN))
    demo.run("first life", "mes_watch.py", *position)
    demo.run("second life", "mes_watch.py", *position)
    other = {"position": 3, "id": "0" * 32, "run": ""}
    (demo.folder / "other.json").write_text(json.dumps(other))
    demo.run("other box", "mes_watch.py", "--position", "other.json", "--count", "1")
    demo.run("json", "plc_json.py", "--parts", str(PARTS))
    demo.run("struct", "plc_struct.py", "--parts", str(PARTS))
    demo.run("inspect", "mes_inspect.py", "--count", str(REWORKED))
    stations = [word for station in STATIONS for word in ("--station", station.name)]
    demo.run("watch", "mes_watch.py", *stations, "--count", str(2 * PARTS + REWORKED))
    demo.run("api", "lookout_boto3.py")
    demo.run("train", "lookout_boto3.py", "--train")
    address = re.search(r'\[metrics\]\nlisten = "(.*)"', configuration(demo))
    assert address is not None
    with urllib.request.urlopen(f"http://{address[1]}/metrics", timeout=10) as page:
        demo.metrics = page.read().decode()


def configuration(demo: Demo) -> str:
    return (demo.folder / "demo-output" / "demo.toml").read_text(encoding="utf-8")


def seen_by(station: str, count: int) -> list[tuple[np.ndarray[Any, Any], str]]:
    """The first parts of a triggered station: the picture, and what is true about it."""
    (found,) = (each for each in STATIONS if each.name == station)
    parts = []
    for index in range(count):
        picture, truth = render("machined", found.seed, index, WIDTH, HEIGHT, found.defect_rate)
        parts.append((picture, "NOT OK" if truth.is_anomalous else "OK"))
    assert {word for _, word in parts} == {"OK", "NOT OK"}, "another seed would show both"
    return parts


def test_every_file_is_run_or_is_data_and_is_named_in_the_readme() -> None:
    files = {p.relative_to(EXAMPLES).as_posix() for p in EXAMPLES.rglob("*") if p.is_file()}
    files = {name for name in files if "__pycache__" not in name}
    assert files == RUN | IMPORTED | DATA
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    shown = {name.split("/")[0] for name in files} - {"README.md"}
    assert [name for name in shown if name not in readme] == []


@pytest.mark.parametrize("form", ["json", "struct"])
def test_a_plc_has_the_answer_of_each_part_and_acts_on_it(demo: Demo, form: str) -> None:
    lines = demo.lines(form, PLC_LINE)
    assert demo.outputs[form].stdout.startswith("ready\n")
    numbers = [int(part.removeprefix("P-")) for part, *_ in lines]
    assert numbers == list(range(numbers[0], numbers[0] + PARTS))
    words = [word for _, word, _, _ in lines]
    assert words == [word for _, word in seen_by(f"plc-{form}", PARTS)]
    assert [act for *_, act in lines] == [{"OK": "pass", "NOT OK": "eject"}[w] for w in words]
    confirmed = f'edged_result_confirmed_seconds_count{{station="plc-{form}"}} {PARTS}.0'
    assert confirmed in demo.metrics, "each `delivered` was heard"


def test_json_and_struct_say_the_same_of_the_same_part(demo: Demo) -> None:
    scores = [
        [float(score) for _, _, score, _ in demo.lines(form, PLC_LINE)]
        for form in ("json", "struct")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=2e-4)


def test_a_bench_has_the_answer_of_each_part_and_the_picture_of_a_reject(demo: Demo) -> None:
    found = demo.lines("inspect", INSPECT_LINE)
    shown = [line.strip() for line in demo.outputs["inspect"].stdout.splitlines()[1::2]]
    true = seen_by("rework", REWORKED)
    assert [word for _, word in found] == [word for _, word in true]
    for where, (picture, word) in zip(shown, true, strict=True):
        if word == "NOT OK" or where.endswith(".png"):  # of good parts a sample is kept
            assert np.array_equal(imaging.read(demo.folder / where), picture)
        else:
            assert where == "its picture was not kept"


def test_the_mes_has_every_part_that_was_triggered(demo: Demo) -> None:
    watched = {part: word for _, _, _, part, word in demo.lines("watch", WATCH_LINE)}
    triggered = {line[0]: line[1] for line in demo.lines("inspect", INSPECT_LINE)}
    for form in ("json", "struct"):
        triggered |= {part: word for part, word, _, _ in demo.lines(form, PLC_LINE)}
    assert watched == triggered
    assert len(watched) == 2 * PARTS + REWORKED


def test_an_mes_that_comes_again_goes_on_where_it_was(demo: Demo) -> None:
    lives = [demo.lines(f"{life} life", WATCH_LINE) for life in ("first", "second")]
    positions = [int(position) for life in lives for position, *_ in life]
    assert positions == list(range(1, 2 * SEEN + 1))


def test_an_mes_that_knows_another_archive_begins_at_the_beginning(demo: Demo) -> None:
    ((position, *_),) = demo.lines("other box", WATCH_LINE)
    assert position == "1"
    assert "the box counts anew" in demo.outputs["other box"].stderr


def test_boto3_trains_hosts_and_detects(demo: Demo) -> None:
    (before,) = demo.lines("api", re.compile("(no version is trained).*"))
    assert before
    seen = demo.lines("train", re.compile(r"DetectAnomalies (\w+)/.*: IsAnomalous (\w+),"))
    assert seen == [("normal", "False"), ("anomaly", "True")]
    states = [s for (s,) in demo.lines("train", re.compile("    ([A-Z_]+)$"))]
    assert states[0] == "UPDATE_COMPLETE", "the data set of the run before"
    life = ("TRAINING", "TRAINED", "HOSTED", "TRAINED")
    assert [state for state in states if state in life] == list(life)


def test_ctrl_c_ends_the_demo_with_its_report_in_which_every_part_is(demo: Demo) -> None:
    assert demo.process.returncode == 0, demo.table
    assert "Traceback" not in demo.table
    said = json.loads(demo.report.splitlines()[-1])
    assert said["inspections"] == said["mqtt_received"] == said["grpc_received"]
    assert said["no_verdict"] == 0
    assert said["inspections_per_second"].keys() == said["heatmaps"].keys() == CAMERAS.keys()
    for station in STATIONS:
        count = PARTS if station.trigger == "mqtt" else REWORKED
        assert re.search(rf"{station.name} +│ {count} +│", demo.table), demo.table


def test_the_structs_are_those_of_the_wire_in_every_language(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    plc = importlib.import_module("plc_struct")
    assert plc.RESULT_FORMAT == results.PACKED
    assert plc.TRIGGER_FORMAT == wire_plc._TRIGGER
    text = (EXAMPLES / "edged_types.st").read_text(encoding="utf-8")
    member = re.compile(r"^ +(\w+) *: ([\w .\[\]]+?)(?: := \d+)?; +\(\* +(\d+)\b", re.M)
    for name, fields in (("ST_EdgedTrigger", plc.TRIGGER), ("ST_EdgedResult", plc.RESULT)):
        block = text.partition(f"TYPE {name} :")[2].partition("END_STRUCT")[0]
        assert [(int(at), kind, called) for called, kind, at in member.findall(block)] == [
            (at, kind, called) for at, _, kind, called in fields
        ]
        letters = [letter for _, letter, _, _ in fields]
        before = ["".join(letters[:index]) for index in range(len(letters))]
        assert [struct.calcsize("<" + part) for part in before] == [at for at, *_ in fields]
        whole = "".join(letters)
        assert struct.calcsize("@" + whole) == struct.calcsize("<" + whole), "no gaps anywhere"


def test_the_dashboard_asks_for_what_there_is(demo: Demo) -> None:
    board = json.loads((EXAMPLES / "grafana" / "edged.json").read_text(encoding="utf-8"))
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids)) and board["title"] and board["schemaVersion"]
    labels = shown_metrics(demo.metrics)
    targets = [each for panel in board["panels"] for each in panel.get("targets", [])]
    assert len(targets) > 20
    for target in targets:
        names = set(re.findall(r"\bedged_\w+", target["expr"]))
        assert names and names <= labels.keys(), target["expr"]
        asked = set(re.findall(r"(\w+)=~?\"", target["expr"]))
        for group in re.findall(r"by \(([^)]*)\)", target["expr"]):
            asked |= set(group.split(", "))
        asked |= set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
        for name in names:
            assert asked <= {*labels[name], "instance"} or not labels[name], target


def shown_metrics(page: str) -> dict[str, set[str]]:
    """Series that the page has -> their labels; empty too for what has not happened yet."""
    ends = {"histogram": ("_bucket", "_count", "_sum")}
    labels: dict[str, set[str]] = {}
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", page, re.M):
        labels |= {name + end: set() for end in ends.get(kind, ("",))}
    for name, said in re.findall(r"^(\w+)(?:{(.*)})? ", page, re.M):
        labels.setdefault(name, set()).update(re.findall(r'(\w+)="', said))
    return labels
