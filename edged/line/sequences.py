"""Numbers of frames that are never given twice, not even after a power cut.

A consumer tells a repeated delivery from a new part by (station, seq), so a number that came back
would hide a part. Owns one SQLite file that holds, per station, the first number nobody reserved;
blocks are reserved ahead, so the disk is touched once per block. A crash skips the rest of a
block (gaps are allowed, repeats are not). It must not know what the numbers are for.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from edged.core.errors import EdgedError
from edged.runtime import sqlite

log = logging.getLogger(__name__)

BLOCK = 1000
VERSION = 1


class Sequences:
    """Numbers from 1 for each station. `open` first; `next` on any thread; `close` at the end."""

    def __init__(self, path: Path, block: int = BLOCK, used: bool = False) -> None:
        """used: records of this box are there already, so a missing file is a lost one."""
        self._path = path
        self._block = block
        self._used = used
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None
        self._given: dict[str, int] = {}
        self._reserved: dict[str, int] = {}
        self._floor = 0

    def open(self) -> None:
        """Open or make the file (mode 0600). Raises EdgedError with a sentence.

        A damaged file is moved aside; one may have gone. Which numbers it had given is then
        unknown, so new ones start at the present Unix time in milliseconds: above anything that
        1,000 frames a second from 1970 on could have used.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._used and not self._path.exists():
                self._floor = time.time_ns() // 1_000_000
                log.error(
                    "sequence numbers %s are gone, but records are there: so that none repeats, "
                    "all stations go on from %d",
                    self._path,
                    self._floor + 1,
                )
            self._open()
        except sqlite3.DatabaseError as error:
            if not sqlite.is_damage(error):
                raise self._refused(error) from error
            self._replace(error)
        except OSError as error:
            raise self._refused(error) from error

    def next(self, station: str) -> int:
        """The next number of `station`, starting at 1. Raises EdgedError if the disk refuses.

        Any thread; takes microseconds, and one fsync in each block of numbers.
        """
        with self._lock:
            number = self._given.get(station, 0) + 1
            if number > self._reserved.get(station, 0):
                number = self._reserve(station)
            self._given[station] = number
            return number

    def close(self) -> None:
        """Give back what was reserved and not used, and close the file; safe to call twice."""
        with self._lock:
            db, self._db = self._db, None
            if db is None:
                return
            unused = [(given + 1, station) for station, given in self._given.items()]
            self._given.clear()
            self._reserved.clear()
            try:
                db.execute("BEGIN IMMEDIATE")
                db.executemany("UPDATE sequences SET free = ? WHERE camera = ?", unused)
                db.execute("COMMIT")
            except sqlite3.Error as error:
                log.warning("sequence numbers were not given back (%s): some are skipped", error)
            finally:
                db.close()

    def _reserve(self, station: str) -> int:
        if self._db is None:
            raise EdgedError(f"The sequence numbers in {self._path} are not open.")
        try:
            first = self._first_free(self._db, station)
            self._db.execute(
                "INSERT INTO sequences (camera, free) VALUES (?, ?)"
                " ON CONFLICT (camera) DO UPDATE SET free = excluded.free",
                (station, first + self._block),
            )
        except sqlite3.Error as error:
            raise self._refused(error) from error
        self._reserved[station] = first + self._block - 1
        return first

    def _first_free(self, db: sqlite3.Connection, station: str) -> int:
        row = db.execute("SELECT free FROM sequences WHERE camera = ?", (station,)).fetchone()
        return row[0] if row else self._floor + 1

    def _open(self) -> None:
        db = sqlite.connect(self._path)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(f"malformed: {problem}")
            found = db.execute("PRAGMA user_version").fetchone()[0]
            if found > VERSION:
                raise EdgedError(
                    f"The sequence numbers in {self._path} were written by a newer edged "
                    f"(form {found}, this one knows {VERSION}): install that version."
                )
            db.execute("BEGIN IMMEDIATE")
            db.execute(
                # The column has its name from when a station was a camera.
                "CREATE TABLE IF NOT EXISTS sequences"
                " (camera TEXT PRIMARY KEY, free INTEGER NOT NULL) WITHOUT ROWID"
            )
            # The floor holds for stations that come later, and after further restarts, too.
            db.execute("CREATE TABLE IF NOT EXISTS floor (number INTEGER NOT NULL)")
            if self._floor:
                db.execute("INSERT INTO floor (number) VALUES (?)", (self._floor,))
            db.execute(f"PRAGMA user_version = {VERSION}")
            db.execute("COMMIT")
            self._floor = db.execute("SELECT coalesce(max(number), 0) FROM floor").fetchone()[0]
        except BaseException:
            db.close()
            raise
        self._db = db

    def _replace(self, damage: sqlite3.Error) -> None:
        self._floor = time.time_ns() // 1_000_000
        try:
            aside = sqlite.set_aside(self._path)
            self._open()
        except (OSError, sqlite3.Error) as error:
            raise self._refused(error) from error
        log.error(
            "sequence numbers %s are damaged (%s): moved to %s; so that none repeats, all stations "
            "go on from %d",
            self._path,
            damage,
            aside,
            self._floor + 1,
        )

    def _refused(self, error: Exception) -> EdgedError:
        return EdgedError(
            f"The sequence numbers in {self._path} cannot be read or written ({error}): check "
            "that edged may write there, the free space and the health of the disk."
        )
