"""What every SQLite file of ours has in common: how it is opened, and what becomes of damage.

Owns no file and no schema. A damaged file is kept for whoever can rescue it, under another name.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

from edged.runtime import durable

log = logging.getLogger(__name__)

BUSY_SECONDS = 5.0


def connect(path: Path) -> sqlite3.Connection:
    """Open or make a file (mode 0600), for one thread at a time; transactions are the caller's.

    Raises OSError and sqlite3.Error.
    """
    durable.private(path)
    return sqlite3.connect(
        path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS
    )


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is no usable database any more."""
    words = str(error)  # by words, because Python 3.10 does not tell SQLite's error code
    return "malformed" in words or "not a database" in words


def end_transaction(db: sqlite3.Connection, what: str) -> None:
    """Let no transaction stay open; `what` is for the log."""
    if db.in_transaction:
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error:
            log.warning("a transaction of the %s was not rolled back", what, exc_info=True)


def unused(path: Path, stem: str) -> Path:
    """The first of `<stem>1`, `<stem>2`, ... beside `path` that is not there."""
    return next(
        candidate
        for number in range(1, 1_000_000)
        if not (candidate := path.with_name(f"{stem}{number}")).exists()
    )


def set_aside(path: Path) -> Path:
    """Give a closed, damaged file and what belongs to it another name, which is returned.

    Raises OSError.
    """
    aside = unused(path, f"{path.name}.damaged-")
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside
