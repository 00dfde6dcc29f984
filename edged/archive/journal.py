"""The archive's rows: every inspection of this box, in one SQLite file. Written by one thread.

WAL, synchronous=FULL: an inspection that was appended survives a power cut. Positions rise and are
never used twice, not after pruning (AUTOINCREMENT) and not after damage: a damaged file is moved
aside with its pictures, and a new one begins at the present Unix time in milliseconds, which is
above anything that 1,000 inspections a second from 1970 on could have used. It knows the pictures'
names and no files.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edged.archive.reader import JOURNAL, PICTURES
from edged.core.errors import SinkError
from edged.runtime import sqlite

log = logging.getLogger(__name__)

VERSION = 1
_MISSING = ("", "-wal", "-shm")
_SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS inspections (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, station TEXT NOT NULL, seq INTEGER NOT NULL, time REAL NOT NULL,
    evaluation INTEGER NOT NULL, record TEXT NOT NULL, picture TEXT, bytes INTEGER NOT NULL,
    UNIQUE (station, seq)
);
CREATE INDEX IF NOT EXISTS by_station ON inspections (station, position);
CREATE INDEX IF NOT EXISTS pictures_by_kind ON inspections (evaluation, position)
    WHERE picture IS NOT NULL;
CREATE INDEX IF NOT EXISTS pictures_by_age ON inspections (time) WHERE picture IS NOT NULL;
CREATE INDEX IF NOT EXISTS pictures_by_name ON inspections (picture) WHERE picture IS NOT NULL;
PRAGMA user_version = %d;
COMMIT;
"""


class JournalRow(NamedTuple):
    """One inspection to be appended. time: seconds since 1970; picture: its file, or None."""

    id: str
    station: str
    seq: int
    time: float
    evaluation: int
    record: str
    picture: str | None = None
    bytes: int = 0


class KeptPicture(NamedTuple):
    """A row's picture. bytes: of its file; both empty when the row has none."""

    position: int
    picture: str | None
    bytes: int


class JournalFile:
    """The rows. Opened on main, used by the archive's worker alone from then on.

    Every method but the constructor raises SinkError with a sentence when the disk refuses; nothing
    is half done then.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / JOURNAL
        self._subject = f"The archive {folder}"
        self._pictures = folder / PICTURES
        self._db: sqlite3.Connection | None = None
        self._wanted = False
        """Open, or to be opened again: what was damaged could not be replaced when it was tried."""
        self.rows = 0
        """Inspections in the file."""
        self.pictures = 0
        self.bytes = 0
        """Of all their pictures."""
        self.replaced = 0
        """Times that the file was damaged, and a new one took its place."""

    def open(self) -> None:
        """Open or make file and folders (0600, 0700); what is damaged is moved aside."""
        self._wanted = True
        try:
            self._pictures.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = not self._path.exists() or not self._path.stat().st_size
            if new and any(self._pictures.iterdir()):
                self._replace("its journal is missing")
            else:
                self._open()
        except sqlite.Damaged as damage:
            self._replace(str(damage))
        except OSError as error:
            raise SinkError(
                f"{self._subject} cannot be opened ({error.strerror}): make its "
                "folder writable for the user that runs edged."
            ) from error

    def append(self, rows: Sequence[JournalRow]) -> list[int]:
        """Add inspections in one transaction with one fsync; their positions.

        0 for one whose id, or station and number, is there already: it is not added.
        """
        if self._db is None and self._wanted:
            self.open()
        try:
            return self._append(rows)
        except sqlite.Damaged as damage:
            self._replace(str(damage))
            return self._append(rows)

    def forget_pictures(self, kept: Sequence[KeptPicture]) -> None:
        """Note that their pictures are gone."""
        marks = [(each.position,) for each in kept]
        with sqlite.transaction(self._db, self._subject) as db:
            db.executemany(
                "UPDATE inspections SET picture = NULL, bytes = 0 WHERE position = ?", marks
            )
        self._without(kept)

    def remove(self, kept: Sequence[KeptPicture]) -> None:
        """Forget whole inspections."""
        marks = [(each.position,) for each in kept]
        with sqlite.transaction(self._db, self._subject) as db:
            db.executemany("DELETE FROM inspections WHERE position = ?", marks)
        self.rows -= len(kept)
        self._without(kept)

    def oldest(self, limit: int) -> list[KeptPicture]:
        """The oldest inspections, with or without a picture."""
        return self._select("1 ORDER BY position LIMIT ?", limit)

    def oldest_pictures(self, evaluation: int, limit: int) -> list[KeptPicture]:
        """The oldest inspections of that evaluation that have a picture."""
        where = "picture IS NOT NULL AND evaluation = ? ORDER BY position LIMIT ?"
        return self._select(where, evaluation, limit)

    def pictures_before(self, moment: float, limit: int) -> list[KeptPicture]:
        """Inspections with a picture from before `moment`, the oldest first."""
        where = "picture IS NOT NULL AND time < ? ORDER BY time LIMIT ?"
        return self._select(where, moment, limit)

    def pictures_of(self, day: str) -> list[KeptPicture]:
        """Inspections whose picture is in that day's folder."""
        where = "picture IS NOT NULL AND picture >= ? AND picture < ?"
        return self._select(where, f"{day}/", f"{day}0")

    def days(self) -> list[str]:
        """Folders that pictures are in."""
        with self._reading() as db:
            found: list[str] = []
            last = ""
            while row := db.execute(
                "SELECT min(picture) FROM inspections WHERE picture IS NOT NULL AND picture >= ?",
                (last,),
            ).fetchone():
                if row[0] is None:
                    return found
                day = str(row[0]).partition("/")[0]
                found.append(day)
                last = f"{day}0"  # the character after the slash
        return found

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._wanted = False
        self._let_go()

    def _let_go(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _append(self, rows: Sequence[JournalRow]) -> list[int]:
        positions = []
        with sqlite.transaction(self._db, self._subject) as db:
            for row in rows:
                done = db.execute(
                    "INSERT INTO inspections (id, station, seq, time, evaluation, record, picture,"
                    " bytes) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    row,
                )
                positions.append(int(done.lastrowid or 0) if done.rowcount else 0)
        added = [row for row, position in zip(rows, positions, strict=True) if position]
        self.rows += len(added)
        self.pictures += sum(row.picture is not None for row in added)
        self.bytes += sum(row.bytes for row in added)
        return positions

    def _without(self, kept: Iterable[KeptPicture]) -> None:
        for each in kept:
            self.pictures -= each.picture is not None
            self.bytes -= each.bytes

    def _select(self, where: str, *values: object) -> list[KeptPicture]:
        with self._reading() as db:
            sql = f"SELECT position, picture, bytes FROM inspections WHERE {where}"
            return [KeptPicture(*row) for row in db.execute(sql, values)]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """For what only looks: a damaged file is left to the next append."""
        try:
            with sqlite.guarded(self._db, self._subject, "read") as db:
                yield db
        except sqlite.Damaged as damage:
            raise SinkError(f"{self._subject} is damaged ({damage}).") from damage

    def _open(self, first: int = 0) -> None:
        """first: new positions are above it."""
        self._db = sqlite.connect(self._path)
        try:
            with sqlite.guarded(self._db, self._subject, "opened") as db:
                self._prepare(db, first)
        except BaseException:
            self._let_go()
            raise

    def _prepare(self, db: sqlite3.Connection, first: int) -> None:
        sqlite.prepare(db, self._subject, VERSION, "give it another path")
        db.executescript(_SCHEMA % VERSION)
        if first:
            db.execute("INSERT INTO sqlite_sequence VALUES ('inspections', ?)", (first,))
        count = "SELECT count(*), coalesce(sum(bytes), 0) FROM inspections"
        (self.rows, _), (self.pictures, self.bytes) = (
            db.execute(sql).fetchone() for sql in (count, f"{count} WHERE picture IS NOT NULL")
        )

    def _replace(self, damage: str) -> None:
        """Move rows and pictures aside, kept for whoever can rescue them, and begin anew."""
        self._let_go()
        folder = self._path.parent
        aside = sqlite.unused(self._path, "damaged-")
        try:
            aside.mkdir(mode=0o700)
            parts = [self._path.with_name(JOURNAL + suffix) for suffix in _MISSING]
            for part in (*parts, self._pictures):
                if part.exists():
                    part.rename(aside / part.name)
            self._pictures.mkdir(mode=0o700)
            self._open(time.time_ns() // 1_000_000)
            self.replaced += 1
        except (OSError, sqlite.Damaged) as error:
            raise SinkError(
                f"{self._subject} is damaged ({damage}) and cannot be replaced ({error}): "
                "check its disk."
            ) from error
        log.error(
            "archive %s is damaged (%s): moved to %s, which no limit counts; going on with an "
            "empty one",
            folder,
            damage,
            aside,
        )
