"""Log lines as a machine and as a person read them."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from edged.daemon import logs

LINE_BREAKS = "first\nsecond\r\nthird\u2028fourth"


class Screen:
    """What was written to standard error since the last look."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        return self._capture.readouterr().err

    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def screen(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    """Standard error; afterwards the logging of the process is as it was."""
    root, own = logging.getLogger(), logging.getLogger("edged")
    levels = root.level, own.level
    monkeypatch.setenv("GRPC_VERBOSITY", "NONE")
    yield Screen(capsys)
    logging.captureWarnings(False)
    for handler in [h for h in root.handlers if h.get_name() == logs.HANDLER]:
        root.removeHandler(handler)
    root.setLevel(levels[0])
    own.setLevel(levels[1])


def fail(words: str) -> None:
    raise ValueError(words)


def log_a_failure(words: str = "a fault\nof two lines") -> None:
    try:
        fail(words)
    except ValueError:
        logging.getLogger("edged.room").exception("it failed")


def test_json_is_one_object_a_line_also_for_a_message_with_line_breaks(
    screen: Screen,
) -> None:
    logs.configure("info", "json")
    log = logging.getLogger("edged.room")
    log.info("part %s", LINE_BREAKS, extra={"camera": "cam1", "seq": 7, "names": ("a", "b\n")})
    log.warning("next")
    first, second = screen.objects()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("ts"))
    assert first == {
        "level": "info",
        "logger": "edged.room",
        "message": f"part {LINE_BREAKS}",
        "camera": "cam1",
        "seq": 7,
        "names": ["a", "b\n"],
    }
    assert (second["level"], second["message"]) == ("warning", "next")


def test_text_is_one_line_a_record_also_for_a_message_with_line_breaks(
    screen: Screen,
) -> None:
    logs.configure("info", "text")
    log = logging.getLogger("edged.room")
    log.warning("part %s", LINE_BREAKS, extra={"camera": "cam\n1"})
    log.info("next")
    first, second = screen.text().splitlines()
    moment, _, rest = first.partition(" ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", moment)
    words = r"first\nsecond\nthird\nfourth"
    assert rest == rf"WARNING edged.room: part {words} camera=cam\n1"
    assert second.endswith(" INFO    edged.room: next")


def test_an_exception_stays_whole_in_its_record(screen: Screen) -> None:
    logs.configure("info", "json")
    log_a_failure()
    (line,) = screen.objects()
    assert line["message"] == "it failed"
    assert line["exception"].startswith("Traceback (most recent call last):\n")
    assert line["exception"].endswith("ValueError: a fault\nof two lines")
    assert ", in fail\n" in line["exception"]


def test_an_exception_follows_its_line_of_text(screen: Screen) -> None:
    logs.configure("info", "text")
    log_a_failure()
    lines = screen.text().splitlines()
    assert lines[0].endswith(" ERROR   edged.room: it failed")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-2:] == ["ValueError: a fault", "of two lines"]


def test_an_extra_never_replaces_what_every_line_has(screen: Screen) -> None:
    logs.configure("info", "json")
    extra = {"level": 9, "ts": "never", "logger": "x", "exception": "none"}
    logging.getLogger("edged.room").info("hello", extra=extra)
    (line,) = screen.objects()
    assert (line["level"], line["logger"], line["message"]) == ("info", "edged.room", "hello")
    assert (line["extra_level"], line["extra_ts"], line["extra_logger"]) == (9, "never", "x")


def test_what_is_no_json_is_written_as_words(screen: Screen) -> None:
    logs.configure("info", "json")
    extra = {"rate": float("nan"), "most": float("inf"), "error": ValueError("odd"), "raw": b"\xff"}
    logging.getLogger("edged.room").info("hello", extra=extra)
    (line,) = screen.objects()
    assert (line["rate"], line["most"], line["error"]) == ("nan", "inf", "odd")
    assert line["raw"] == repr(b"\xff")


@pytest.mark.parametrize("format", ["json", "text"])
@pytest.mark.parametrize(
    "told",
    [
        "rtsp://admin:hunter2@10.0.0.7/1 is lost",
        "rtsp://admin:p@hunter2@10.0.0.7/1 is lost",
        "mqtt password=hunter2, user plc",
        "{'broker_password': 'hunter2', 'port': 1}",
        'api_token: "hunter2 hunter2"',
    ],
)
def test_no_credential_is_logged(format: logs.Format, told: str, screen: Screen) -> None:
    logs.configure("info", format)
    log = logging.getLogger("edged.room")
    log.info("%s", told)
    log.info("extras", extra={"password": "hunter2", "source": told, "more": {"secret": "hunter2"}})
    log_a_failure(told)
    written = screen.text()
    assert "hunter2" not in written
    assert written.count(logs.HIDDEN) >= 5


def test_what_is_no_credential_is_logged_as_it_is(screen: Screen) -> None:
    logs.configure("info", "json")
    told = "http://10.0.0.7/a@b mailto:x@y, 3 tokens kept, password_file is /etc/p"
    logging.getLogger("edged.room").info(told)
    assert screen.objects()[0]["message"] == told


def test_the_level_is_for_edged_and_libraries_are_heard_from_warning_on(
    screen: Screen,
) -> None:
    logs.configure("debug", "json")
    for name in ("edged.room", "library"):
        logging.getLogger(name).debug("%s whispers", name)
        logging.getLogger(name).warning("%s warns", name)
    said = [line["message"] for line in screen.objects()]
    assert said == ["edged.room whispers", "edged.room warns", "library warns"]


def test_a_second_choice_replaces_the_first(screen: Screen) -> None:
    logs.configure("info", "text")
    logs.configure("warning", "json")
    logging.getLogger("edged.room").info("not wanted any more")
    logging.getLogger("edged.room").warning("once")
    assert [line["message"] for line in screen.objects()] == ["once"]


SPEAK = """
import logging, os, sys, warnings
from edged.daemon import logs
if sys.argv[1] == "journal":
    seen = os.fstat(2)
    os.environ["JOURNAL_STREAM"] = f"{seen.st_dev}:{seen.st_ino}"
logs.configure("debug", sys.argv[2])
log = logging.getLogger("edged.room")
for level in ("debug", "info", "warning", "error", "critical"):
    log.log(getattr(logging, level.upper()), level)
try:
    1 / 0
except ZeroDivisionError:
    log.exception("failed")
warnings.warn("an old way")
"""


def speak(where: str, format: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SPEAK, where, format],
        capture_output=True,
        text=True,
        check=True,
        env={"JOURNAL_STREAM": "1:1"},
    )
    return done.stderr.splitlines()


def test_every_line_to_journald_begins_with_its_priority() -> None:
    lines = speak("journal", "auto")
    assert [line[:3] for line in lines] == ["<7>", "<6>", "<4>", "<3>", "<2>", "<3>", "<4>"]
    assert [json.loads(line[3:])["level"] for line in lines[:3]] == ["debug", "info", "warning"]
    assert "ZeroDivisionError" in json.loads(lines[5][3:])["exception"]
    text = speak("journal", "text")
    assert [line[:3] for line in text[5:-1]] == ["<3>"] * (len(text) - 6), "all of a traceback"
    assert "ZeroDivisionError" in text[-2]


def test_a_pipe_that_is_not_journald_gets_json_and_the_warnings_of_libraries() -> None:
    lines = speak("pipe", "auto")
    levels = [json.loads(line)["level"] for line in lines]
    assert levels == ["debug", "info", "warning", "error", "critical", "error", "warning"]
    assert "UserWarning: an old way" in json.loads(lines[-1])["message"]
