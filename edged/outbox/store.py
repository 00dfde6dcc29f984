"""Records that wait on disk for a far end that is away: the home of SQLite in the sinks.

Owns one SQLite file (WAL, synchronous=FULL: a record that was appended survives a power cut) and
the order of the records in it. It knows neither MQTT nor threads: one thread at a time uses it.
A damaged file is moved aside, logged and replaced; it must never keep the daemon from starting.

A record ages by `Uptime`, never by wall time: setting the clock drops nothing.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from edged.core.errors import SinkError
from edged.outbox.bounds import POLICIES, Bounds
from edged.outbox.disk_reserve import SIZE, Reserve
from edged.outbox.records import Appended, Confirmed, OutboxRow, Record, runs
from edged.outbox.uptime import Saved, Uptime
from edged.runtime import sqlite

log = logging.getLogger(__name__)

VERSION = 2
_SHRINK_PAGES = 2048  # an empty file with this much slack is worth rewriting at start
_SAVE_SECONDS = 60.0
_RENEWAL = (
    "ALTER TABLE outbox ADD COLUMN number INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE outbox ADD COLUMN born REAL NOT NULL DEFAULT 0",
)
"""Form 1 to 2, whatever its length at once. Its records age from then on: nothing told when."""
_TABLES = (
    "CREATE TABLE IF NOT EXISTS outbox (seq INTEGER PRIMARY KEY, topic TEXT NOT NULL,"
    " payload BLOB NOT NULL, number INTEGER NOT NULL DEFAULT 0, born REAL NOT NULL DEFAULT 0)",
    "CREATE INDEX IF NOT EXISTS numbered ON outbox (topic, number) WHERE number > 0",
    "CREATE TABLE IF NOT EXISTS uptime (one INTEGER PRIMARY KEY CHECK (one = 1),"
    " boot TEXT NOT NULL, before REAL NOT NULL, seen REAL NOT NULL)",
)
_SIZE = "length(topic) + length(payload)"  # topics are ASCII; neither is read from disk for it


class Outbox:
    """Store-and-forward queue on disk, kept within `bounds`.

    Numbers (`seq`) rise by one for each record while the object lives. Every method but the
    constructor raises SinkError with a sentence when the disk refuses; nothing is half done then.
    """

    def __init__(
        self,
        path: Path,
        bounds: Bounds | None = None,
        uptime: Uptime | None = None,
        reserve: int = SIZE,
    ) -> None:
        self._path = path
        self._subject = f"The outbox {path}"
        self._bounds = bounds or Bounds()
        self._uptime = uptime or Uptime()
        self._reserve = Reserve(path.with_name(path.name + ".reserve"), reserve)
        self._db: sqlite3.Connection | None = None
        self._count = 0
        self._size = 0
        self._last = 0
        self._floor = 0
        self._full = False
        self._save_at = 0.0

    @property
    def count(self) -> int:
        """Records on disk."""
        return self._count

    @property
    def size(self) -> int:
        """Bytes of their topics and payloads."""
        return self._size

    @property
    def last(self) -> int:
        """The number given last; 0 before the first."""
        return self._last

    @property
    def floor(self) -> int:
        """Records up to this number were dropped by a bound and are not to be sent any more."""
        return self._floor

    @property
    def bounds(self) -> Bounds:
        """What it is kept within."""
        return self._bounds

    @property
    def full(self) -> bool:
        """At a bound, and kept there by refusing. Any thread."""
        return self._full

    def full_with(self, waiting: int) -> bool:
        """Full, or it will be with so many records that are on their way. Any thread."""
        return self._full or self._bounds.full(self._count + waiting, self._size, False)

    def open(self) -> None:
        """Open or make the file (mode 0600); a damaged one is moved aside and a new one made."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._open()
            except sqlite.NoSpace:
                if not self._reserve.release():
                    raise
                self._open()
        except sqlite.Damaged as damage:
            self._replace(str(damage))
        except OSError as error:
            raise SinkError(
                f"{self._subject} cannot be opened ({error.strerror}): "
                "make its folder writable for the user that runs edged."
            ) from error
        self._reserve.hold()

    def append(
        self,
        batch: Sequence[Record],
        done: Iterable[int] = (),
        confirmed: Iterable[Confirmed] = (),
    ) -> Appended:
        """Store records, forget `done` and `confirmed`, in one transaction with one fsync.

        When this returns, the records survive a power cut. On a full disk nothing can be stored;
        forgetting goes on with space held back for it.
        """
        done, confirmed = list(done), list(confirmed)
        try:
            try:
                appended = self._append(batch, done, confirmed)
            except sqlite.NoSpace:
                if batch or not self._reserve.release():
                    raise
                appended = self._append(batch, done, confirmed)
        except sqlite.Damaged as damage:
            self._replace(str(damage))
            return self._append(batch, [], [])
        if not self._reserve.held:
            self._reserve.hold()
        return appended

    def acknowledge(self, seqs: Iterable[int], confirmed: Iterable[Confirmed] = ()) -> Appended:
        """Forget these records; numbers that are not there are ignored."""
        return self.append((), seqs, confirmed)

    def oldest_age(self) -> float:
        """Age of the oldest record in seconds; 0 when there is none."""
        if not self._count:
            return 0.0
        try:
            with sqlite.guarded(self._db, self._subject, "read") as db:
                born = db.execute("SELECT born FROM outbox ORDER BY seq LIMIT 1").fetchone()
        except sqlite.Damaged as damage:
            self._replace(str(damage))
            return 0.0
        return max(0.0, self._uptime.now() - born[0]) if born else 0.0

    def pending(self, after_seq: int, limit: int) -> list[OutboxRow]:
        """The next `limit` records after `after_seq`, in order."""
        return self._select("seq > ? ORDER BY seq LIMIT ?", (after_seq, limit))

    def first(self, topic: str, from_seq: int) -> OutboxRow | None:
        """The first record of `topic` at or after `from_seq`; quick if it is near `from_seq`."""
        found = self._select("seq >= ? AND topic = ? ORDER BY seq LIMIT 1", (from_seq, topic))
        return found[0] if found else None

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def _append(
        self, batch: Sequence[Record], done: list[int], confirmed: list[Confirmed]
    ) -> Appended:
        seqs = range(self._last + 1, self._last + 1 + len(batch))
        now = self._uptime.now()
        count = self._count + len(batch)
        size = self._size + sum(len(r.topic) + len(r.payload) for r in batch)
        known = 0
        with sqlite.transaction(self._db, self._subject) as db:
            for start, end in runs(done):
                gone, freed = _remove(db, "seq BETWEEN ? AND ?", (start, end))
                count, size = count - gone, size - freed
            for one in confirmed:
                where = "topic = ? AND number > 0 AND number <= ?"
                gone, freed = _remove(db, where, one)
                count, size, known = count - gone, size - freed, known + gone
            if batch:
                rows = [(seq, *r, now) for seq, r in zip(seqs, batch, strict=True)]
                db.executemany(
                    "INSERT INTO outbox (seq, topic, payload, number, born) VALUES (?, ?, ?, ?, ?)",
                    rows,
                )
            dropped, freed, floor = self._drop_oldest(db, count, size, now)
            count, size = count - sum(dropped.values()), size - freed
            if count and now >= self._save_at:
                db.execute("UPDATE uptime SET seen = ?", (now,))
                self._save_at = now + _SAVE_SECONDS
        self._count, self._size = count, size
        self._last += len(batch)
        self._floor = max(self._floor, floor)
        self._full = self._bounds.refuse and self._bounds.full(count, size, self._full)
        return Appended(seqs, dropped, known)

    def _drop_oldest(
        self, db: sqlite3.Connection, count: int, size: int, now: float
    ) -> tuple[dict[str, int], int, int]:
        """Let go of what is beyond the bounds: by policy, bytes, and the last number."""
        dropped, freed, floor = dict.fromkeys(POLICIES, 0), 0, 0
        bounds = self._bounds
        if bounds.refuse or (bounds.seconds is None and not bounds.exceeded(count, size)):
            return dropped, freed, floor
        too_old = float("-inf") if bounds.seconds is None else now - bounds.seconds
        oldest = db.execute(f"SELECT seq, {_SIZE}, born FROM outbox ORDER BY seq")
        for seq, length, born in oldest:
            if born < too_old:
                policy = "age"
            elif count > bounds.rows:
                policy = "rows"
            elif size - freed > bounds.size:
                policy = "bytes"
            else:
                break
            dropped[policy] += 1
            count, freed, floor = count - 1, freed + length, seq
        oldest.close()
        if floor:
            db.execute("DELETE FROM outbox WHERE seq <= ?", (floor,))
        return dropped, freed, floor

    def _select(self, where: str, values: tuple[object, ...]) -> list[OutboxRow]:
        try:
            with sqlite.guarded(self._db, self._subject, "read") as db:
                statement = f"SELECT seq, topic, payload, number FROM outbox WHERE {where}"
                return [OutboxRow(*row) for row in db.execute(statement, values)]
        except sqlite.Damaged as damage:
            self._replace(str(damage))
            return []

    def _open(self) -> None:
        # Opened on main, used by the sink's worker alone from then on.
        self._db = sqlite.connect(self._path)
        try:
            with sqlite.guarded(self._db, self._subject, "opened") as db:
                self._prepare(db)
        except BaseException:
            self.close()
            raise

    def _prepare(self, db: sqlite3.Connection) -> None:
        found = sqlite.prepare(db, self._subject, VERSION, "move the file away")
        problem = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if problem != "ok":
            raise sqlite.Damaged(problem)
        db.execute("BEGIN IMMEDIATE")
        for statement in (*(_RENEWAL if found == 1 else ()), *_TABLES):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {VERSION}")
        self._resume(db)
        db.execute("COMMIT")
        totals = f"SELECT count(*), coalesce(sum({_SIZE}), 0), coalesce(max(seq), 0) FROM outbox"
        self._count, self._size, last = db.execute(totals).fetchone()
        self._full = self._bounds.refuse and self._bounds.full(self._count, self._size, False)
        # Numbers never fall while the object lives: a late answer must not hit another record.
        self._last = max(self._last, last)
        slack = db.execute("PRAGMA freelist_count").fetchone()[0]
        if self._count == 0 and slack > _SHRINK_PAGES:
            db.execute("VACUUM")

    def _resume(self, db: sqlite3.Connection) -> None:
        """Take up the count of time where the file has it."""
        row = db.execute("SELECT boot, before, seen FROM uptime").fetchone()
        newest = db.execute("SELECT born FROM outbox ORDER BY seq DESC LIMIT 1").fetchone()
        saved, seen = (Saved(row[0], row[1]), row[2]) if row else (None, 0.0)
        seen = max(seen, newest[0] if newest else 0.0)
        saved = self._uptime.resume(saved, seen)
        db.execute("INSERT OR REPLACE INTO uptime VALUES (1, ?, ?, ?)", (*saved, seen))

    def _replace(self, damage: str) -> None:
        """Move the damaged file aside, kept for whoever can rescue it, and make a new one."""
        self.close()
        try:
            aside = sqlite.set_aside(self._path)
            self._count = 0
            self._open()
        except (OSError, sqlite.Damaged) as error:
            raise SinkError(
                f"{self._subject} is damaged ({damage}) and cannot be replaced ({error}): "
                "check its disk."
            ) from error
        log.error(
            "outbox %s is damaged (%s): moved to %s, records in it were not delivered; "
            "going on with an empty one",
            self._path,
            damage,
            aside,
        )


def _remove(db: sqlite3.Connection, where: str, values: tuple[object, ...]) -> tuple[int, int]:
    """Delete; how many records, and their bytes."""
    totals = f"SELECT count(*), coalesce(sum({_SIZE}), 0) FROM outbox WHERE {where}"
    count, size = db.execute(totals, values).fetchone()
    if count:
        db.execute(f"DELETE FROM outbox WHERE {where}", values)
    return int(count), int(size)
