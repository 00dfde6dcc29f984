"""The rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

import edged
from edged.core import errors, lifecycle, stations
from edged.core.observer import Observer
from edged.runtime.state import StateFolder

HOUSE = Path(edged.__file__).parent
SOURCES = sorted(p for p in HOUSE.rglob("*.py") if "pb" not in p.parts)

BLOCKED = ("cv2", "onnxruntime", "openvino", "tensorrt", "pycuda", "paho", "grpc", "amqtt")
HOMES = {
    "edged.cameras.opencv": "cv2",
    "edged.engines.onnxruntime": "onnxruntime",
    "edged.engines.openvino": "openvino",
    "edged.engines.cuda": "pycuda",
    "edged.engines.tensorrt": "pycuda",
    "edged.mqtt.connection": "paho",
    "edged.mqtt.topics": "paho",
    "edged.mqtt.sink": "paho",
    "edged.mqtt.sparkplug": "paho",
    "edged.tools.demo.listeners": "paho",
    "edged.tools.demo.broker": "amqtt",
}
GRPC = ("edged.grpc", "edged.wire.pb", "edged.tools.demo.listeners", "edged.tools.demo.run")

PROBE = """
import importlib, sys
blocked = {blocked!r}
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError("blocked: " + name, name=name)
sys.meta_path.insert(0, Blocker())
from edged.core.errors import MissingDependency
for name in {names!r}:
    try:
        importlib.import_module(name)
        print(name, "ok")
    except MissingDependency as error:
        print(name, "missing", "pip install 'edged[" in str(error))
    except ImportError as error:
        print(name, "broken", error)
"""


def module(path: Path) -> str:
    parts = path.relative_to(HOUSE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_files_have_at_most_400_lines_and_functions_at_most_60() -> None:
    long = []
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if text.count("\n") > 400:
            long.append(f"{path.name}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > 60:
                    long.append(f"{path.name}:{node.lineno} {node.name}: {lines} lines")
    assert long == []


def test_threads_are_made_in_one_place() -> None:
    makers = [p for p in SOURCES if "threading.Thread(" in p.read_text(encoding="utf-8")]
    assert [module(p) for p in makers] == ["edged.runtime.workers"]


def test_every_module_imports_without_the_heavy_libraries_or_names_the_extra() -> None:
    names = [module(p) for p in SOURCES]
    script = PROBE.format(blocked=BLOCKED, names=names)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    for line in done.stdout.splitlines():
        name, outcome, *rest = line.split(" ", 2)
        if name in HOMES or name.startswith(GRPC):
            assert (outcome, rest) == ("missing", ["True"]), line
        else:
            assert outcome == "ok", line


def test_help_pulls_in_no_heavy_library() -> None:
    script = (
        "import sys, edged.cli.main; edged.cli.main.parser().format_help();"
        "print([m for m in ('numpy', 'cv2', 'grpc', 'paho', 'onnxruntime', 'openvino', 'pydantic')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def leaves(kind: type[errors.EdgedError]) -> list[type[errors.EdgedError]]:
    return [leaf for sub in kind.__subclasses__() for leaf in [sub, *leaves(sub)]]


@pytest.mark.parametrize("leaf", leaves(errors.EdgedError), ids=lambda leaf: leaf.__name__)
def test_every_error_stands_in_the_tree_as_it_answers(leaf: type[errors.EdgedError]) -> None:
    if leaf.__module__ != errors.__name__:
        return
    line = next(
        row for row in (errors.__doc__ or "").splitlines() if f"+-- {leaf.__name__} " in row
    )
    assert line.split()[-3:] == [leaf.aws_code, str(leaf.http_status), leaf.grpc_code]


P = lifecycle.PackagingStatus
LIVES: list[tuple[Any, set[Any]]] = [
    (lifecycle.MODEL_LIFE, {lifecycle.ModelStatus.DELETING}),
    (lifecycle.DATASET_LIFE, {lifecycle.DatasetStatus.CREATE_FAILED}),
    (lifecycle.PACKAGING_LIFE, {P.SUCCEEDED, P.FAILED}),
    (stations.STATION_LIFE, set()),
]


@pytest.mark.parametrize(("life", "ends"), LIVES, ids=["model", "data set", "job", "station"])
def test_every_state_that_something_leads_to_has_a_way_on_or_is_an_end(
    life: dict[tuple[Enum, Enum], Enum], ends: set[Enum]
) -> None:
    assert set(life.values()) - {state for state, _ in life} == ends


def test_every_event_of_a_life_happens_somewhere() -> None:
    """A way that nothing ever takes would be a promise of the table alone."""
    tables = ("lifecycle.py", "stations.py")
    text = "\n".join(p.read_text(encoding="utf-8") for p in SOURCES if p.name not in tables)
    events = {event for life, _ in LIVES for _, event in life}
    spelled = {e: (f"{type(e).__name__}.{e.name}", f"_E.{e.name}") for e in events}
    assert [e for e, words in spelled.items() if not any(w in text for w in words)] == []


def test_a_status_is_written_out_in_the_tables_alone() -> None:
    """Whoever moves a status by hand, as a raw word, goes around `advance`."""
    words = {s.value for kind in (lifecycle.ModelStatus, lifecycle.DatasetStatus) for s in kind}
    found = []
    for path in SOURCES:
        if path.name == "lifecycle.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in words:
                found.append(f"{module(path)}:{node.lineno} {node.value}")
    assert found == []


def test_no_hook_is_dead() -> None:
    text = "\n".join(p.read_text(encoding="utf-8") for p in SOURCES)
    hooks = [name for name in vars(Observer) if not name.startswith("_")]
    assert [hook for hook in hooks if f"bserver.{hook}(" not in text] == []


def test_the_files_of_the_state_folder_are_named_in_one_place() -> None:
    state = StateFolder(Path())
    names = {str(getattr(state, name)) for name, of in vars(StateFolder).items() if _is_path(of)}
    # Words that mean something else, too: a section, a folder of a model, a command.
    names -= {"archive", "models", "buckets", "plans"}
    assert "outbox.sqlite" in names and "stations.json" in names
    found = []
    for path in SOURCES:
        if module(path) == StateFolder.__module__:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and node.value in names:
                found.append(f"{module(path)}:{node.lineno} {node.value}")
    assert found == []


def _is_path(member: object) -> bool:
    return isinstance(member, property)
