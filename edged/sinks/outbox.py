"""Records that wait on disk for a far end that is away: the home of SQLite in the sinks.

Owns one SQLite file (WAL, synchronous=FULL: a record that was appended survives a power cut) and
the order of the records in it. It knows neither MQTT nor threads: one thread at a time uses it.
A damaged file is moved aside, logged and replaced; it must never keep the daemon from starting.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edged.core.errors import SinkError

log = logging.getLogger(__name__)

VERSION = 1
_SHRINK_PAGES = 2048  # an empty file with this much slack is worth rewriting at start


class Row(NamedTuple):
    """One record: `seq` orders it, `topic` says where it goes."""

    seq: int
    topic: str
    payload: bytes


class Appended(NamedTuple):
    """What an append did: the new records' numbers, and how many of the oldest had to go."""

    seqs: range
    dropped: int


class _DamagedError(Exception):
    """The file is no usable database any more."""


class Outbox:
    """Store-and-forward queue on disk, at most `max_rows` long.

    Numbers (`seq`) rise by one for each record while the object lives. Every method but the
    constructor raises SinkError with a sentence when the disk refuses; nothing is half done then.
    """

    def __init__(self, path: Path, max_rows: int = 1_000_000) -> None:
        self._path = path
        self._max_rows = max_rows
        self._db: sqlite3.Connection | None = None
        self._count = 0
        self._last = 0

    @property
    def count(self) -> int:
        """Records on disk."""
        return self._count

    @property
    def last(self) -> int:
        """The number given last; 0 before the first."""
        return self._last

    def open(self) -> None:
        """Open or make the file (mode 0600); a damaged one is moved aside and a new one made."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except _DamagedError as damage:
            self._replace(str(damage))
        except OSError as error:
            raise SinkError(
                f"The outbox {self._path} cannot be opened ({error.strerror}): "
                "make its folder writable for the user that runs edged."
            ) from error

    def append(self, batch: Sequence[tuple[str, bytes]], done: Iterable[int] = ()) -> Appended:
        """Store (topic, payload) pairs and forget `done`, in one transaction with one fsync.

        When this returns, the records survive a power cut.
        """
        done = list(done)
        try:
            return self._append(batch, done)
        except _DamagedError as damage:
            self._replace(str(damage))
            return self._append(batch, [])

    def acknowledge(self, seqs: Iterable[int]) -> None:
        """Forget these records; numbers that are not there are ignored."""
        self.append((), seqs)

    def pending(self, after_seq: int, limit: int) -> list[Row]:
        """The next `limit` records after `after_seq`, in order."""
        return self._select("seq > ? ORDER BY seq LIMIT ?", (after_seq, limit))

    def first(self, topic: str, from_seq: int) -> Row | None:
        """The first record of `topic` at or after `from_seq`; quick if it is near `from_seq`."""
        found = self._select("seq >= ? AND topic = ? ORDER BY seq LIMIT 1", (from_seq, topic))
        return found[0] if found else None

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _append(self, batch: Sequence[tuple[str, bytes]], done: list[int]) -> Appended:
        seqs = range(self._last + 1, self._last + 1 + len(batch))
        with self._transaction() as db:
            removed = 0
            if done:
                statement = "DELETE FROM outbox WHERE seq = ?"
                removed = db.executemany(statement, [(seq,) for seq in done]).rowcount
            if batch:
                rows = [(seq, *pair) for seq, pair in zip(seqs, batch, strict=True)]
                db.executemany("INSERT INTO outbox (seq, topic, payload) VALUES (?, ?, ?)", rows)
            over = max(0, self._count - removed + len(batch) - self._max_rows)
            if over:
                oldest = "SELECT seq FROM outbox ORDER BY seq LIMIT ?"
                db.execute(f"DELETE FROM outbox WHERE seq IN ({oldest})", (over,))
        self._count += len(batch) - removed - over
        self._last += len(batch)
        return Appended(seqs, over)

    def _select(self, where: str, values: tuple[object, ...]) -> list[Row]:
        try:
            with self._errors("read") as db:
                statement = f"SELECT seq, topic, payload FROM outbox WHERE {where}"
                return [Row(*row) for row in db.execute(statement, values)]
        except _DamagedError as damage:
            self._replace(str(damage))
            return []

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._errors("written") as db:
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    @contextmanager
    def _errors(self, verb: str) -> Iterator[sqlite3.Connection]:
        """The open database; SQLite's errors become ours, and no transaction stays open."""
        db = self._db
        if db is None:
            raise SinkError(f"The outbox {self._path} is not open.")
        try:
            yield db
        except sqlite3.Error as error:
            if _is_damage(error):
                raise _DamagedError(str(error)) from error
            raise SinkError(
                f"The outbox {self._path} cannot be {verb} ({error}): "
                "check the free space and the health of its disk."
            ) from error
        finally:
            _end_transaction(db)

    def _open(self) -> None:
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.fchmod(descriptor, 0o600)
        os.close(descriptor)
        # Opened on main, used by the sink's worker alone from then on.
        self._db = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=5.0
        )
        try:
            with self._errors("opened") as db:
                self._prepare(db)
        except BaseException:
            self.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 16777216")
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise _DamagedError(problem)
        found = db.execute("PRAGMA user_version").fetchone()[0]
        if found > VERSION:
            raise SinkError(
                f"The outbox {self._path} was written by a newer edged (form {found}, this one "
                f"knows {VERSION}): install that version, or move the file away."
            )
        db.execute("BEGIN IMMEDIATE")
        db.execute(
            "CREATE TABLE IF NOT EXISTS outbox"
            " (seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)"
        )
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
        count, last = db.execute("SELECT count(*), coalesce(max(seq), 0) FROM outbox").fetchone()
        self._count = count
        # Numbers never fall while the object lives: a late answer must not hit another record.
        self._last = max(self._last, last)
        slack = db.execute("PRAGMA freelist_count").fetchone()[0]
        if count == 0 and slack > _SHRINK_PAGES:
            db.execute("VACUUM")

    def _replace(self, damage: str) -> None:
        """Move the damaged file aside, kept for whoever can rescue it, and make a new one."""
        self.close()
        aside = next(
            candidate
            for number in range(1, 1_000_000)
            if not (
                candidate := self._path.with_name(f"{self._path.name}.damaged-{number}")
            ).exists()
        )
        try:
            for suffix in ("-wal", "-shm", ""):
                part = self._path.with_name(self._path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            self._count = 0
            self._open()
        except (OSError, _DamagedError) as error:
            raise SinkError(
                f"The outbox {self._path} is damaged ({damage}) and cannot be replaced ({error}): "
                "check its disk."
            ) from error
        log.error(
            "outbox %s is damaged (%s): moved to %s, records in it were not delivered; "
            "going on with an empty one",
            self._path,
            damage,
            aside,
        )


def _end_transaction(db: sqlite3.Connection) -> None:
    if db.in_transaction:
        try:
            db.execute("ROLLBACK")
        except sqlite3.Error:
            log.warning("a transaction of the outbox could not be rolled back", exc_info=True)


def _is_damage(error: sqlite3.Error) -> bool:
    # By words, because Python 3.10 does not tell SQLite's error code.
    words = str(error)
    return "malformed" in words or "not a database" in words
