"""What every SQLite file of ours has in common: how it is opened and used, and what damage means.

Owns no file and no schema. A damaged file is kept for whoever can rescue it, under another name.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edged.core.errors import SinkError
from edged.runtime import durable

log = logging.getLogger(__name__)

BUSY_SECONDS = 5.0


class Damaged(Exception):
    """The file is no usable database any more."""


class NoSpace(SinkError):
    """The disk is full."""


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


@contextmanager
def guarded(db: sqlite3.Connection | None, subject: str, verb: str) -> Iterator[sqlite3.Connection]:
    """Use an open database; SQLite's errors become ours, and no transaction stays open.

    subject: as in `The outbox /var/lib/edged/outbox.sqlite`; verb: as in `read`. Raises Damaged,
    NoSpace, SinkError.
    """
    if db is None:
        raise SinkError(f"{subject} is not open.")
    try:
        yield db
    except sqlite3.Error as error:
        if is_damage(error):
            raise Damaged(str(error)) from error
        kind = NoSpace if _is_no_space(error) else SinkError
        raise kind(
            f"{subject} cannot be {verb} ({error}): check the free space and the health of its "
            "disk."
        ) from error
    finally:
        _end_transaction(db, subject)


@contextmanager
def transaction(db: sqlite3.Connection | None, subject: str) -> Iterator[sqlite3.Connection]:
    """The same for what is written: all of it is on the disk at the end, or nothing."""
    with guarded(db, subject, "written") as open_db:
        open_db.execute("BEGIN IMMEDIATE")
        yield open_db
        open_db.execute("COMMIT")


def prepare(db: sqlite3.Connection, subject: str, version: int, instead: str) -> int:
    """Make what is committed survive a power cut; the form that the file has, 0 = none yet.

    Raises SinkError for the form of a newer edged; instead: what else could be done.
    """
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = FULL")
    db.execute("PRAGMA journal_size_limit = 16777216")
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found > version:
        raise SinkError(
            f"{subject} was written by a newer edged (form {found}, this one knows {version}): "
            f"install that version, or {instead}."
        )
    return found


def _end_transaction(db: sqlite3.Connection, subject: str) -> None:
    """Let no transaction stay open; `subject` is for the log."""
    if db.in_transaction:
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error:
            log.warning("%s: a transaction was not rolled back", subject, exc_info=True)


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


def _is_no_space(error: sqlite3.Error) -> bool:
    # SQLite's shared memory reports a full disk as an input/output error.
    words = str(error)
    return "is full" in words or "disk I/O" in words
