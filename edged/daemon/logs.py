"""Log lines on standard error: JSON for machines, text for people.

Owns the root handler of the standard `logging`. Every room logs by
`logging.getLogger(__name__)` and adds facts with `extra={...}`. Credentials are struck out here,
last of all, so that no room can forget it: user and password inside a URL, and every value whose
key says that it is a secret. It must not open files or sockets: journald keeps what it is given.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any, Literal

Level = Literal["debug", "info", "warning", "error"]
Format = Literal["auto", "json", "text"]

HANDLER = "edged"
HIDDEN = "***"

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_SECRET_KEY = re.compile(r"pass(word|wd|phrase)?$|secret|token$|credential|private_?key", re.I)
_IN_URL = re.compile(r"(?<=://)[^\s/'\"]+(?=@)")  # up to the last @: a password may have one
_IN_TEXT = re.compile(
    r"(?P<key>\b\w*(?:password|passwd|passphrase|secret|token))(?P<is>['\"]?\s*[=:]\s*)"
    r"(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;)}\]]+)",
    re.I,
)
_PRIORITY = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def configure(level: Level, format: Format) -> None:
    """Send all logs to standard error; calling it again replaces the choice.

    `level` is for edged itself; libraries are heard from WARNING on. `auto` is text on a terminal
    and JSON otherwise. Under journald each line begins with its priority, `<4>`, which journald
    takes off again, so that `journalctl -p warning` works.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name(HANDLER)
    as_text = format == "text" or (format == "auto" and sys.stderr.isatty())
    formatter: logging.Formatter = TextFormatter() if as_text else JsonFormatter()
    handler.setFormatter(_Prioritised(formatter) if _to_journald() else formatter)
    root = logging.getLogger()
    for old in [h for h in root.handlers if h.get_name() == HANDLER]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("edged").setLevel(level.upper())
    logging.captureWarnings(True)
    # gRPC's core writes lines of its own form to standard error; what matters in them becomes an
    # exception. Whoever sets the variable sees them again.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class JsonFormatter(logging.Formatter):
    """One object a line: ts, level, logger, message, the extras, and exception if there is one.

    An extra never replaces one of these: it is then called `extra_<name>`.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The record as ASCII JSON without line breaks."""
        line: dict[str, Any] = {
            "ts": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        trace = _trace(self, record)
        if trace:
            line["exception"] = trace
        for key, value in _extras(record):
            line[f"extra_{key}" if key in line else key] = value
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """`2026-11-24T08:00:00.123Z WARNING edged.x: message key=value`, then any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; more than one line only for a traceback.

        Names of files and parts come from outside: a line break in one must not begin a record.
        """
        text = f"{_moment(record)} {record.levelname:<7} {record.name}: "
        text += redact(record.getMessage())
        for key, value in _extras(record):
            text += f" {key}={value}"
        text = "\\n".join(text.splitlines())
        trace = _trace(self, record)
        return f"{text}\n{trace}" if trace else text


class _Prioritised(logging.Formatter):
    """Gives each line journald's priority; a line without one would be stored as `info`."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        priority = next((p for level, p in _PRIORITY if record.levelno >= level), 7)
        lines = self._inner.format(record).splitlines() or [""]
        return "\n".join(f"<{priority}>{line}" for line in lines)


def redact(text: str) -> str:
    """The text without credentials: `rtsp://***@10.0.0.7/1`, `password=***`."""
    text = _IN_URL.sub(HIDDEN, text)
    return _IN_TEXT.sub(rf"\g<key>\g<is>{HIDDEN}", text)


def _hide(key: str, value: Any) -> Any:
    if _SECRET_KEY.search(key):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(k): _hide(str(k), v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_hide("", v) for v in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)  # NaN and infinity are not JSON
    return redact(str(value))


def _extras(record: logging.LogRecord) -> Iterator[tuple[str, Any]]:
    for key, value in vars(record).items():
        if key not in _OWN and not key.startswith("_"):
            yield key, _hide(key, value)


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    elif record.exc_text:
        parts.append(record.exc_text)
    if record.stack_info:
        parts.append(record.stack_info)
    return redact("\n".join(parts))


def _moment(record: logging.LogRecord) -> str:
    at = datetime.fromtimestamp(record.created, timezone.utc)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _to_journald() -> bool:
    """Whether standard error is journald's stream, and not a file or pipe put in its place."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        stat = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):  # closed, or replaced by something that is no file
        return False
    return (device, inode) == (str(stat.st_dev), str(stat.st_ino))
