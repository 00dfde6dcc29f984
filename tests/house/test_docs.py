"""README and docs/ against the code: what they name is there, and what they list is complete."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import struct
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_args

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

import edged
from edged.cli.main import parser
from edged.config import Config, Section
from edged.core import errors
from edged.core.errors import EdgedError
from edged.core.types import Reason
from edged.daemon.metrics import Metrics
from edged.grpc import admission, details
from edged.rest import protocol, sigv4
from edged.rest.operations import OPERATIONS
from edged.runtime.workers import Crew
from edged.wire import plc, results

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(edged.__file__).parent.parent
README, DOCS = ROOT / "README.md", ROOT / "docs"
OPERATING, PLC = DOCS / "operating.md", DOCS / "plc.md"
PAGES = [README, ROOT / "systemd" / "README.md", *sorted(DOCS.rglob("*.md"))]
USERS = [README, *(DOCS / f"{n}.md" for n in ("plc", "mes", "operating", "training"))]
USERS.append(DOCS / "lookout-api.md")
"""The pages of who configures; those of who develops may have code of other kinds."""
OTHERS = {"--system-site-packages"}
"""Flags of other programs."""
TYPES = {"B": "u8", "H": "u16", "I": "u32", "q": "i64", "f": "f32", "s": "bytes"}
MOST_LINES = 150

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"#{1,6} +(.+)")
# Of edged/ only files and folders: the rest of what begins so is a topic of MQTT.
PATH = re.compile(
    r"(?<![\w./<>-])(?:edged/[\w./-]*(?:\.pyi?|/(?![\w<{*-]))"
    r"|(?:\.ci|benchmarks|configs|docs|protos|systemd|tests)/(?:[\w./-]*[\w/])?"
    r"|(?:Makefile|LICENSE|pyproject\.toml|constraints\.txt|CHANGELOG\.md|README\.md)(?![\w.]))"
)
COMMAND = re.compile(r"(?<![\w./-])(?:/opt/edged/bin/)?edged ([a-z][a-z-]*(?= |$).*)")
METRIC = re.compile(r"\bedged_[a-z_]+[a-z]\b")


class Page(NamedTuple):
    """A page taken apart."""

    prose: str
    """Without blocks; each span of code is one letter."""
    spans: list[str]
    """Code within prose."""
    code: list[str]
    """The same, and the lines of blocks."""
    toml: list[str]
    """Blocks that say that they are TOML."""


def taken_apart(path: Path) -> Page:
    prose, code, toml = "", [], []
    fence = None
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fence = line.strip().removeprefix("```") if fence is None else None
            toml += [""] if fence == "toml" else []
        elif fence is not None or line.startswith("    "):
            code.append(line.strip())
            toml[-1:] = [toml[-1] + line + "\n"] if fence == "toml" else toml[-1:]
        else:
            prose += line + "\n"
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    return Page(re.sub(r"`[^`]+`", "x", prose), spans, spans + code, toml)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    found: list[str] = []
    fenced = False
    for line in path.read_text(encoding="utf-8").splitlines():
        fenced ^= line.startswith("```")
        heading = HEADING.fullmatch(line)
        if heading is None or fenced:
            continue
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return set(found)


def sections(annotation: Any) -> list[type[Section]]:
    """The kinds of section that a key of the whole configuration may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [each for part in get_args(annotation) for each in sections(part)]


def models() -> dict[str, dict[str, FieldInfo]]:
    """Title of a table -> its keys: of a section, or of what is special to one kind of camera."""
    found: dict[str, dict[str, FieldInfo]] = {"Top level": {}}
    for key, field in Config.model_fields.items():
        kinds = sections(field.annotation)
        if not kinds:
            found["Top level"][key] = field
            continue
        shared = set.intersection(*(set(kind.model_fields) for kind in kinds))
        found[key] = {k: v for k, v in kinds[0].model_fields.items() if k in shared}
        for kind in kinds if len(kinds) > 1 else ():
            own = {k: v for k, v in kind.model_fields.items() if k not in shared}
            found[f"{key}, kind {get_args(kind.model_fields['kind'].annotation)[0]}"] = own
    return found


def keys() -> dict[str, set[str]]:
    """Section -> all of its keys, whatever the kind."""
    found: dict[str, set[str]] = {}
    for title, fields in models().items():
        found.setdefault(title.partition(",")[0], set()).update(fields)
    return found


def tables() -> dict[str, dict[str, str]]:
    """Title -> key -> default, as docs/operating.md has it."""
    found: dict[str, dict[str, str]] = {}
    title = ""
    for line in OPERATING.read_text(encoding="utf-8").splitlines():
        heading = HEADING.fullmatch(line)
        title = re.sub(r"[`\[\]]", "", heading[1]) if heading else title
        row = re.match(r"\| `(\w+)` \| .*? \| (\S+) \| ", line)
        if row and title in models():
            found.setdefault(title, {})[row[1]] = row[2].strip("`")
    return found


def default(field: FieldInfo) -> str:
    """A default as the tables write it: as TOML does, or `none`, or `required`."""
    if field.is_required():
        return "required"
    value = field.default
    return "none" if value is None else json.dumps(str(value) if isinstance(value, Path) else value)


def unknown_words(command: str) -> list[str]:
    """What the command line does not know of `SUBCOMMAND --flag ...`."""
    current: argparse.ArgumentParser = parser()
    wrong = []
    for word in shlex.split(command, comments=True):
        deeper = [a for a in current._actions if isinstance(a, argparse._SubParsersAction)]
        if word.startswith("--"):
            wrong += [] if word.partition("=")[0] in current._option_string_actions else [word]
        elif deeper and word in deeper[0].choices:
            current = deeper[0].choices[word]
        elif current.prog == "edged":
            return [word]
    return wrong


def flags(of: argparse.ArgumentParser) -> set[str]:
    """Every flag of a command and of those below it."""
    below = [a for a in of._actions if isinstance(a, argparse._SubParsersAction)]
    deeper = [flags(each) for action in below for each in action.choices.values()]
    return set(of._option_string_actions).union(*deeper)


def metrics() -> set[str]:
    """Every metric under the name that a scrape shows."""
    suffix = {"counter": "_total", "info": "_info"}
    crew = Crew()
    return {m.name + suffix.get(m.type, "") for m in Metrics(crew).registry.collect()}


def test_every_link_resolves() -> None:
    broken = []
    for page in PAGES:
        for target in LINK.findall(taken_apart(page).prose):
            if "://" in target:
                continue
            file, _, anchor = target.partition("#")
            there = (page.parent / file).resolve() if file else page
            if not there.exists() or (anchor and anchor not in anchors(there)):
                broken.append(f"{shown(page)}: {target}")
    assert broken == []


def test_every_path_that_is_named_exists() -> None:
    missing = []
    for page in PAGES:
        for code in taken_apart(page).code:
            for path in PATH.findall(code):
                if not (ROOT / path).exists() and not (page.parent / path).exists():
                    missing.append(f"{shown(page)}: {path}")
    assert missing == []


def blocks() -> list[Any]:
    return [
        pytest.param(text, id=f"{page.stem}-{number}")
        for page in PAGES
        for number, text in enumerate(taken_apart(page).toml, 1)
    ]


@pytest.mark.parametrize("text", blocks())
def test_every_block_of_toml_is_a_configuration(text: str) -> None:
    for key, value in tomllib.loads(text).items():
        assert key in Config.model_fields
        try:
            TypeAdapter(Config.model_fields[key].annotation).validate_python(value)
        except ValidationError as error:
            pytest.fail(f"{key}: {error}")


def test_the_tables_have_every_key_of_the_configuration_and_no_other() -> None:
    written = {title: sorted(rows) for title, rows in tables().items()}
    assert written == {title: sorted(fields) for title, fields in models().items()}


def test_the_tables_have_the_defaults_of_the_configuration() -> None:
    for title, rows in tables().items():
        fields = models()[title]
        assert rows == {k: default(fields[k]) if k in fields else "no key" for k in rows}, title


def test_every_configuration_key_that_is_named_exists() -> None:
    known = keys()
    anywhere = set.union(*known.values())
    wrong = []
    for page in USERS:
        for code in taken_apart(page).spans:
            if found := re.fullmatch(r"\[{1,2}([a-z]+)\]{1,2}(?: (\w+))?", code):
                section, key = found.groups()
                good = section in known and (key is None or key in known[section])
            elif found := re.fullmatch(r"([a-z]+)\.((?!json)\w+)", code):
                good = found[1] not in known or found[2] in known[found[1]]
            elif found := re.fullmatch(r"([a-z]\w*) = .+", code):
                good = found[1] in anywhere or found[1] in known
            else:
                continue
            wrong += [] if good else [f"{shown(page)}: {code}"]
    assert wrong == []


def test_every_command_and_flag_exists() -> None:
    wrong = []
    for page in PAGES:
        for code in taken_apart(page).code:
            for command in COMMAND.findall(code):
                wrong += [f"{shown(page)}: {command}: {w}" for w in unknown_words(command)]
    for page in USERS:
        alone = {s.partition(" ")[0] for s in taken_apart(page).spans if s.startswith("--")}
        wrong += [f"{shown(page)}: {flag}" for flag in alone - flags(parser()) - OTHERS]
    assert wrong == []


def test_every_metric_that_is_named_exists() -> None:
    named = {(shown(p), n) for p in PAGES for n in METRIC.findall(p.read_text(encoding="utf-8"))}
    assert sorted(each for each in named if each[1] not in metrics()) == []


def test_every_metric_is_explained() -> None:
    rows = re.findall(r"^\| `(edged_\w+)` \|", OPERATING.read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(metrics())


def test_every_code_is_explained() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PLC.read_text(encoding="utf-8"), re.M)
    assert rows == [(str(reason.code), reason.word) for reason in Reason]


def test_the_struct_tables_are_the_bytes() -> None:
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \|", PLC.read_text(encoding="utf-8"), re.M)
    expected = []
    for form in (results.PACKED, plc._TRIGGER):
        fields = re.findall(r"\d*[a-zA-Z]", form)
        for number, field in enumerate(fields):
            offset, size = (struct.calcsize("<" + f) for f in ("".join(fields[:number]), field))
            expected.append((str(offset), str(size), TYPES[field[-1]]))
    assert rows == expected


def test_every_operation_of_the_api_is_listed() -> None:
    text = re.sub(r"\{\w+\}", "{}", (DOCS / "lookout-api.md").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| ([A-Z]\w+) \| ([A-Z]+) (\S+) \| (\d+) \|", text, re.M)
    paths = [(o.name, o.method, re.sub(r"\{\w+\}", "{}", o.path), str(o.code)) for o in OPERATIONS]
    assert sorted(rows) == sorted(paths)


def kinds(*rooms: ModuleType, of: type[EdgedError] = EdgedError) -> list[type[EdgedError]]:
    """The errors that these modules define."""
    below = [each for kind in of.__subclasses__() for each in (kind, *kinds(*rooms, of=kind))]
    return [kind for kind in below if kind.__module__ in {room.__name__ for room in rooms}]


def test_every_reason_of_a_grpc_error_is_explained() -> None:
    found = kinds(errors, admission)
    known = {details.reason(kind.__new__(kind)): kind.grpc_code for kind in found}
    known[details.UNEXPECTED] = "INTERNAL"
    text = (DOCS / "mes.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[A-Z_`, .]+) \| ([A-Z_]+) \|", text, re.M)
    said = {name: code for names, code in rows for name in re.findall(r"`(\w+)`", names)}
    assert said == {name: known.get(name) for name in said}
    # Those of the box itself may be left out, and no configuration is read by a call.
    outer = {name for name, code in known.items() if code != "INTERNAL"} - {"CONFIG_ERROR"}
    assert outer - set(said) == set()


def test_every_error_of_the_api_is_explained() -> None:
    found = {*kinds(errors, protocol, sigv4)} - {sigv4.Refused}  # which is only their common name
    text = (DOCS / "lookout-api.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z]\w+(?:, \w+)*) \| (\d+) \| ", text, re.M)
    said = {(name, int(code)) for names, code in rows for name in names.split(", ")}
    assert said == {(kind.aws_code, kind.http_status) for kind in found}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
