"""The audit log: one line of JSON for each request, whatever became of it.

Owns the file and its rotation. Holds no secret, no body and no query: who, what, when, from where,
and the outcome.
"""

from __future__ import annotations

import json
import logging.handlers
import os
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from edged.rest.chain import Done

LARGEST = 32 * 1024 * 1024
KEPT = 8
"""Files of LARGEST bytes; older ones go."""


class AuditLog:
    """A file that grows by lines. `write` on any thread, inside the `with` of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handler: logging.handlers.RotatingFileHandler | None = None

    def __enter__(self) -> AuditLog:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.close(descriptor)
        self._handler = logging.handlers.RotatingFileHandler(
            self._path, maxBytes=LARGEST, backupCount=KEPT, encoding="utf-8"
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            self._handler.close()

    def write(self, done: Done) -> None:
        """Append one line."""
        if self._handler is None:
            return
        facts = asdict(done)
        facts["at"] = datetime.fromtimestamp(done.at, timezone.utc).isoformat()
        facts["seconds"] = round(done.seconds, 4)
        line = json.dumps(facts, ensure_ascii=True)
        self._handler.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))
