"""The archive read: `core.protocols.Journal` over its folder, whoever writes it.

    FOLDER/journal.sqlite           one row for each inspection
    FOLDER/pictures/DAY/ID.png      the pictures that are kept

Owns that layout and the reading. It writes nothing, so a second process may read while the daemon
writes (WAL): what it sees is what was durable when it looked.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Any

from edged.core.errors import NotFound, SinkError
from edged.core.names import INSPECTION_ID
from edged.core.protocols import JournalEntry

JOURNAL, PICTURES = "journal.sqlite", "pictures"
MEDIA_TYPE = "image/png"
"""Of an inspection that can be in an archive; it is part of a file's name."""
_ROW = "SELECT position, record, picture FROM inspections WHERE "
_MOST_SHOWN = 60


class ArchiveReader:
    """Implements core.protocols.Journal. Any thread; opened by its first question."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def since(
        self, position: int, limit: int, stations: Collection[str] = (), until: int | None = None
    ) -> list[JournalEntry]:
        """The next entries after `position`, in order. Raises SinkError if the disk refuses."""
        most = 2**63 - 1 if until is None else until
        within = "position > ? AND position <= ? ORDER BY position LIMIT ?"
        if not stations:
            return self._entries(_ROW + within, position, most, limit)
        found: list[JournalEntry] = []
        for station in sorted(set(stations)):  # each by its index, however rare its parts are
            found += self._entries(
                f"{_ROW}station = ? AND {within}", station, position, most, limit
            )
        return sorted(found, key=lambda entry: entry.position)[:limit]

    def find(self, id: str) -> JournalEntry:
        """One inspection. Raises NotFound, SinkError."""
        found = self._entries(f"{_ROW}id = ?", id) if INSPECTION_ID.fullmatch(id) else []
        if not found:
            raise NotFound(
                f"No inspection {id[:_MOST_SHOWN]!r} is in the archive {self._folder}: give the id "
                "of a record; old ones go when the archive is full."
            )
        return found[0]

    def picture(self, id: str) -> tuple[bytes, str]:
        """The PNG as it was written. Raises NotFound, SinkError."""
        self.find(id)
        row = self._rows("SELECT picture FROM inspections WHERE id = ?", id)
        gone = NotFound(
            f"The picture of inspection {id} is not kept: of good parts a sample is (archive.passes"
            "), and old ones go when the archive is full."
        )
        if not row or row[0][0] is None:
            raise gone
        try:
            return (self._folder / PICTURES / row[0][0]).read_bytes(), MEDIA_TYPE
        except FileNotFoundError:  # it went since the look
            raise gone from None
        except OSError as error:
            raise SinkError(
                f"The picture of inspection {id} cannot be read ({error.strerror}): check the disk."
            ) from error

    def close(self) -> None:
        """Close the file; safe to call twice, and the next question opens it again."""
        with self._lock:
            db, self._db = self._db, None
            if db is not None:
                db.close()

    def _entries(self, sql: str, *values: object) -> list[JournalEntry]:
        return [
            JournalEntry(int(position), _record(record), picture is not None)
            for position, record, picture in self._rows(sql, *values)
        ]

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock:
            try:
                if self._db is None:
                    self._db = self._open()
                return self._db.execute(sql, values).fetchall()
            except sqlite3.Error as error:
                raise SinkError(
                    f"The archive {self._folder} cannot be read ({error}): check that it is there, "
                    "and that this user may read and write its folder."
                ) from error

    def _open(self) -> sqlite3.Connection:
        path = (self._folder / JOURNAL).resolve()
        return sqlite3.connect(
            f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )


def _record(text: str) -> dict[str, Any]:
    """A damaged one is empty: its position is a gap, and nobody's way past it ends."""
    try:
        record = json.loads(text)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}
