"""The floor plan: what stands at the top, who knows whom, and that each room's guide is true."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edged
from edged.config import Config

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HOUSE = Path(edged.__file__).parent
ROOT = Path(__file__).parents[2]
GENERATED = HOUSE / "wire" / "pb"
ROOMS = sorted(
    p.parent for p in HOUSE.rglob("__init__.py") if GENERATED not in (p.parent, *p.parents)
)
NAMED = re.compile(r"\b(__main__|[a-z][a-z0-9_]*)(\.py|/)")
NO_MIRROR = {"support": "what helps the tests", "house": "the rules of the house as a whole"}


def name(room: Path) -> str:
    return ".".join(room.relative_to(HOUSE.parent).parts)


def guide(room: Path) -> str:
    return ast.get_docstring(ast.parse((room / "__init__.py").read_text(encoding="utf-8"))) or ""


def contents(room: Path) -> set[str]:
    files = {p.name for p in room.glob("*.py")} - {"__init__.py"}
    return files | {f"{p.name}/" for p in room.iterdir() if (p / "__init__.py").exists()}


def imports(file: Path) -> set[Path]:
    """The folders of edged that a file imports from, under TYPE_CHECKING as well."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for dotted in names:
            parts = dotted.split(".")
            while parts[0] == "edged" and len(parts) > 1:
                place = HOUSE.joinpath(*parts[1:])
                if place.is_dir() or place.with_suffix(".py").exists():
                    found.add(place if place.is_dir() else place.parent)
                    break
                parts.pop()
    return found


@pytest.mark.parametrize("room", [r for r in ROOMS if r != HOUSE], ids=name)
def test_a_room_s_guide_names_everything_in_it_and_nothing_else(room: Path) -> None:
    text = guide(room)
    first = {f"{m[1]}{m[2]}" for line in text.splitlines() if (m := NAMED.match(line.strip()))}
    assert contents(room) <= first, "not named"
    own = {word for word in first if not (HOUSE / word).exists()}
    assert own <= contents(room), "not there"


def test_at_most_twenty_things_stand_at_the_top() -> None:
    seen = [p.name for p in HOUSE.iterdir() if p.name != "__pycache__"]
    assert len(seen) <= 20, sorted(seen)


def test_there_are_at_most_eight_floors_and_every_room_is_on_one() -> None:
    whole = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    floors = next(c for c in whole["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    assert len(floors["layers"]) <= 8
    assert floors["exhaustive"]
    on_floors = {room.strip() for layer in floors["layers"] for room in layer.split("|")}
    assert on_floors == {room.name for room in ROOMS if room.parent == HOUSE}


def test_no_two_folders_import_each_other() -> None:
    arrows = set()
    for room in ROOMS:
        for file in room.glob("*.py"):
            arrows |= {(room, other) for other in imports(file) if other != room}
    assert [(name(a), name(b)) for a, b in arrows if (b, a) in arrows] == []


def test_every_section_of_the_configuration_is_a_room_s_or_a_file_of_the_daemon_s() -> None:
    homes = {
        "models": "hosting", "cameras": "cameras", "stations": "line", "quotas": "rest",
        "sparkplug": "mqtt/sparkplug.py", "metrics": "daemon/metrics.py", "log": "daemon/logs.py",
    }  # fmt: skip
    plain = {"state_dir", "stop_seconds"}
    for section in Config.model_fields.keys() - plain:
        assert (HOUSE / homes.get(section, section)).exists(), section


def test_no_test_file_lies_outside_the_mirror() -> None:
    astray = []
    tests = ROOT / "tests"
    for file in tests.rglob("test_*.py"):
        place = file.parent.relative_to(tests)
        if place.parts[:1] != ("house",) and not (HOUSE / place / "__init__.py").exists():
            astray.append(str(file))
        assert file.parent != tests, f"{file} lies in the hall"
    assert astray == []
    top = {p.name for p in tests.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert top - NO_MIRROR.keys() <= {room.name for room in ROOMS}


def test_every_command_starts_from_the_package_and_from_the_file() -> None:
    """A folder called like a library, as grpc, must not come before it on the path."""
    words = [sys.executable, "-m", "edged.cli", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert done.stdout.startswith("edged ")
    script = (
        "import grpc, onnx, edged.grpc, edged.training.onnx; print(grpc.__file__, onnx.__file__)"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert str(HOUSE) not in done.stdout


COUNTED = ROOT / "docs" / "decisions" / "0003-counted.md"
ROUTE = re.compile(
    r"^\*\*(?P<name>[^*]+)\*\*, before: (?P<before>.*?)\.\nAfter: (?P<after>.*?)\.$", re.M | re.S
)


def routes() -> dict[str, tuple[list[str], list[str]]]:
    """Of each route the files before and after, as the page lists them."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    first: list[str] = []
    for match in ROUTE.finditer(COUNTED.read_text(encoding="utf-8")):
        before = [word.strip() for word in match["before"].replace("\n", " ").split(",")]
        if before[0] == "the first eleven of the above":
            before[:1] = first[:11]
        first = first or before
        after = re.findall(r"`(edged/[a-z_/0-9]+\.py)`", match["after"])
        found[match["name"]] = before, after
    return found


def test_the_routes_are_as_long_as_the_page_counts_them_and_their_files_are_there() -> None:
    table = re.findall(
        r"^\| ([\w ]+) \| (\d+) \| (\d+) \|$", COUNTED.read_text(encoding="utf-8"), re.M
    )
    said = {name.lower(): (int(before), int(after)) for name, before, after in table}
    for name, (before, after) in routes().items():
        assert said[name.lower()] == (len(set(before)), len(set(after))), name
        assert [file for file in after if not (ROOT / file).is_file()] == []
    assert len(routes()) == 5


def test_three_routes_are_at_least_a_third_shorter() -> None:
    for name in ("Trigger to ack", "StartModel", "CreateModel"):
        before, after = routes()[name]
        assert 3 * len(after) <= 2 * len(before), name


def test_a_frame_s_way_is_one_sitting_of_at_most_sixteen_files_that_are_opened_where_it_says() -> (
    None
):
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    way = page.partition("## A frame's way")[2].partition("\n## ")[0]
    opened = re.findall(r"`(edged/[a-z_/]+\.py)`, `([A-Za-z_.]+)`", way)
    assert len({file for file, _ in opened}) == 16 == len(set(re.findall(r"`(edged/[^`]+)`", way)))
    for file, function in opened:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert f"def {function.rpartition('.')[2]}(" in text, f"{file} has no {function}"


MENTION = re.compile(r"(?<![\w/.-])((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)\b")


def test_every_file_that_a_comment_or_docstring_names_is_there() -> None:
    """Beside the file that names it, in edged, or in the repository."""
    astray = []
    for file in sorted(HOUSE.rglob("*.py")):
        if GENERATED in file.parents:
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            for mention in MENTION.findall(line):
                places = (file.parent, file.parent.parent, HOUSE, ROOT)
                if not any((place / mention).is_file() for place in places):
                    astray.append(f"{file.relative_to(ROOT)}:{number} {mention}")
    assert astray == []
