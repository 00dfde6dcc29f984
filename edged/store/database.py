"""The catalog's SQLite file: opening, migrations, transactions. Rows are catalog.py's.

WAL with synchronous=FULL: what a transaction has committed survives a power cut, and what it has
not leaves no trace. Two connections, each with a lock: writers queue on one; who is in no
transaction reads on the other, and waits for no writer.

Decision: a damaged catalog is not replaced, as the outbox is: in it lies what customers made. The
daemon says so and runs without the API.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edged.core.errors import ModelError
from edged.runtime import durable

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE projects (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL, created REAL NOT NULL,
        last_version INTEGER NOT NULL DEFAULT 0,
        UNIQUE (account, region, name)
    );
    CREATE TABLE datasets (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
        type TEXT NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL,
        created REAL NOT NULL, updated REAL NOT NULL,
        UNIQUE (project, type)
    );
    CREATE TABLE entries (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        dataset INTEGER NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
        source TEXT NOT NULL, line TEXT NOT NULL, class TEXT, created REAL NOT NULL,
        UNIQUE (dataset, source)
    );
    CREATE INDEX entries_in_order ON entries (dataset, position);
    CREATE TABLE pending (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        dataset INTEGER NOT NULL REFERENCES datasets (id) ON DELETE CASCADE,
        facts TEXT NOT NULL
    );
    CREATE TABLE models (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
        version INTEGER NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL,
        created REAL NOT NULL, facts TEXT NOT NULL,
        UNIQUE (project, version)
    );
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        project INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
        name TEXT NOT NULL, version INTEGER NOT NULL, status TEXT NOT NULL, message TEXT NOT NULL,
        created REAL NOT NULL, updated REAL NOT NULL, facts TEXT NOT NULL,
        UNIQUE (project, name)
    );
    CREATE TABLE tags (
        arn TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (arn, key)
    ) WITHOUT ROWID;
    CREATE TABLE tokens (
        account TEXT NOT NULL, region TEXT NOT NULL, operation TEXT NOT NULL, token TEXT NOT NULL,
        digest TEXT NOT NULL, answer TEXT NOT NULL, expires REAL NOT NULL,
        PRIMARY KEY (account, region, operation, token)
    ) WITHOUT ROWID;
    CREATE INDEX tokens_by_age ON tokens (expires);
    """,
)
"""Each brings the file one version on; none is ever changed once it was released."""


class Database:
    """One file. Any thread, after `open` and until `close`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._reading = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._owner: int | None = None
        self._undo: list[Callable[[], None]] = []
        self._then: list[Callable[[], None]] = []

    def open(self) -> None:
        """Open or make the file and bring it to this version. Raises ModelError."""
        try:
            durable.private(self._path)
            db = self._connect()
            try:
                self._prepare(db)
                self._reader = self._connect()
                self._reader.execute("PRAGMA query_only = ON")
            except BaseException:
                db.close()
                raise
            self._db = db
        except (OSError, sqlite3.Error) as error:
            raise ModelError(
                f"The catalog {self._path} cannot be opened ({error}): restore it from a backup, "
                "or move it away to begin with an empty one."
            ) from error

    def close(self) -> None:
        """Close the file; safe to call twice."""
        with self._lock, self._reading:
            for db in (self._db, self._reader):
                if db is not None:
                    db.close()
            self._db = self._reader = None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All of what is done inside, or nothing; inside another one, a part of that."""
        with self._lock:
            if self._owner is not None:
                yield
                return
            self._run("BEGIN IMMEDIATE", ())
            self._owner, self._undo, self._then = threading.get_ident(), [], []
            try:
                yield
                self._run("COMMIT", ())
            except BaseException:
                self._roll_back()
                raise
            finally:
                self._owner, then = None, self._then
        for each in then:
            each()

    def on_commit(self, then: Callable[[], None]) -> None:
        """Have something done once the present transaction is committed; now, outside of one."""
        if self._owner == threading.get_ident():
            self._then.append(then)
        else:
            then()

    def on_rollback(self, undo: Callable[[], None]) -> None:
        """Have something undone if the present transaction comes to nothing; inside one."""
        self._undo.append(undo)

    def _roll_back(self) -> None:
        try:
            if self._db is not None and self._db.in_transaction:
                self._run("ROLLBACK", ())
        finally:
            for undo in reversed(self._undo):
                undo()

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a query finds, or a statement returns."""
        return self._read(sql, values)

    def one(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row, if there is one."""
        return next(iter(self._read(sql, values)), None)

    def _read(self, sql: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        if self._owner != threading.get_ident() and sql.startswith("SELECT"):
            with self._reading:
                return self._on(self._reader, sql, values).fetchall()
        with self._lock:
            return self._run(sql, values).fetchall()

    def run(self, sql: str, *values: Any) -> int:
        """How many rows a statement changed."""
        with self._lock:
            return self._run(sql, values).rowcount

    def run_many(self, sql: str, rows: Iterator[Sequence[Any]]) -> None:
        """One statement for each of the rows; inside a transaction."""
        with self._lock:
            for row in rows:
                self._run(sql, row)

    def _run(self, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        return self._on(self._db, sql, values)

    def _on(self, db: sqlite3.Connection | None, sql: str, values: Sequence[Any]) -> sqlite3.Cursor:
        if db is None:
            raise ModelError(f"The catalog {self._path} is not open.")
        try:
            return db.execute(sql, values)
        except sqlite3.IntegrityError:
            raise
        except (sqlite3.Error, UnicodeEncodeError) as error:
            raise ModelError(f"The catalog {self._path} refuses ({error}).") from error

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        version = int(db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(MIGRATIONS):
            raise ModelError(
                f"The catalog {self._path} was written by a newer edged (form {version}, this one "
                f"knows {len(MIGRATIONS)}): install that version."
            )
        for number, script in enumerate(MIGRATIONS[version:], version + 1):
            db.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {number}; COMMIT;")
