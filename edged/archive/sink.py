"""The archive: every inspection on disk, with some of their pictures. A Sink and a Journal.

    accept (unit threads)      the record is built, the picture held by reference
    worker `archive`           hash, PNG, file, then the rows in one transaction, then subscribers

Owns the queue between the two and its worker. A record is not given up for a picture: when too much
waits the picture goes, counted, and the record says so. A disk that refuses is said once; records
wait in bounded memory until it takes them, and beyond that are counted as dropped. It must not
judge, and it never makes a unit wait.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from edged.archive.journal import JournalFile, JournalRow
from edged.archive.pictures import PictureFiles, digest, name_of
from edged.archive.reader import ArchiveReader
from edged.archive.retention import Clock, Retention, Sweep, free_bytes
from edged.config.archive import ArchiveConfig
from edged.core.errors import BadImage, SinkError
from edged.core.names import INSPECTION_ID
from edged.core.observer import Observer
from edged.core.protocols import JournalEntry
from edged.core.types import Image, Inspection
from edged.runtime.workers import Crew, Deadline, Worker
from edged.wire import results

log = logging.getLogger(__name__)

HELD = 256 * 2**20
"""Bytes of images that may wait for their hash; beyond it a record goes without."""
TO_KEEP = 128 * 2**20
"""Of these, of images that shall be kept; beyond it they are hashed only."""
RECORDS = 20_000
"""Records that may wait, about 2 KB each."""
BATCH = 64
PREPARE_SECONDS = 0.1
"""After so long a batch is written, however small: subscribers wait for it."""
RETRY_SECONDS = 2.0
IDLE_SECONDS = 1.0
PATIENCE = 60.0
CLOSE_SECONDS = 10.0

Subscriber: TypeAlias = Callable[[Sequence[JournalEntry]], None]


@dataclass(slots=True)
class _Item:
    """One inspection on its way. image: until it is hashed and perhaps kept."""

    record: dict[str, Any]
    moment: float
    evaluation: int
    image: Image | None
    keep: bool
    left_out: str = ""


class Archive:
    """Implements core.protocols.Sink and Journal. `start` and `close` on main, the rest anywhere.

    Its folder is laid out as reader.py says.
    """

    name = "archive"

    def __init__(
        self,
        config: ArchiveConfig,
        folder: Path,
        crew: Crew,
        observer: Observer,
        deadline: Deadline,
        free: Clock | None = None,
    ) -> None:
        """folder: where, unless the configuration says. free: bytes on the disk, for tests."""
        self.folder = config.path or folder
        self._crew = crew
        self._observer = observer
        self._deadline = deadline
        self._journal = JournalFile(self.folder)
        self._files = PictureFiles(self.folder)
        self._reader = ArchiveReader(self.folder)
        ask = free or (lambda: free_bytes(self.folder))
        self._retention = Retention(config, self._journal, self._files, observer, ask)
        self._sweep = Sweep(self._journal, self._files)
        self._changed = threading.Condition()
        self._waiting: deque[_Item] = deque()
        self._held = 0
        self._to_keep = 0
        self._full = False
        self._subscribers: tuple[Subscriber, ...] = ()
        self._worker: Worker | None = None
        # From here on: the worker's own.
        self._rows: list[tuple[JournalRow, dict[str, Any]]] = []
        self._refused = ""
        self._tidied = 0.0

    def start(self) -> None:
        """Open or make the archive. Raises SinkError if it cannot be used."""
        self._journal.open()
        self._retention.look()
        self._worker = self._crew.start(self.name, self._run)

    def accept(self, inspection: Inspection) -> None:
        """Take one record; microseconds, whatever the disk does."""
        image: Image | None = inspection.frame.image
        if image is None or image.size == 0:
            image = None
        item = _Item(
            results.full(inspection),
            inspection.frame.captured_at.timestamp(),
            results.evaluation(inspection),
            image,
            self._retention.wants(inspection)
            and INSPECTION_ID.fullmatch(inspection.id) is not None,
        )
        with self._changed:
            if len(self._waiting) >= RECORDS:
                full, self._full = self._full, True
            else:
                self._seat(item)
                self._waiting.append(item)
                self._changed.notify_all()
                if not item.left_out:
                    return
                full = True
        self._observer.archive_dropped(item.left_out or "record")
        if not full:
            log.error("archive: %d records wait for the disk; new ones are lost", RECORDS)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Hear of new entries, in order, once they are durable; the answer ends it.

        Called on the archive's worker: must be quick, and must not raise.
        """
        with self._changed:
            self._subscribers = (*self._subscribers, callback)

        def end() -> None:
            with self._changed:
                self._subscribers = tuple(s for s in self._subscribers if s is not callback)

        return end

    def since(
        self, position: int, limit: int, stations: Collection[str] = (), until: int | None = None
    ) -> list[JournalEntry]:
        """The next entries after `position`, in order. Raises SinkError if the disk refuses."""
        return self._reader.since(position, limit, stations, until)

    def find(self, id: str) -> JournalEntry:
        """One inspection. Raises NotFound, SinkError."""
        return self._reader.find(id)

    def picture(self, id: str) -> tuple[bytes, str]:
        """Its PNG. Raises NotFound, SinkError."""
        return self._reader.picture(id)

    def close(self) -> None:
        """Put everything accepted on disk, as far as the deadline lets it; safe to call twice."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        worker.stop.set()
        with self._changed:
            self._changed.notify_all()
        if not worker.join(self._deadline.remaining(CLOSE_SECONDS)):
            log.error("archive: the worker is stuck in the disk; leaving it")
            return
        self._reader.close()
        self._journal.close()

    def _seat(self, item: _Item) -> None:
        """Count what an item holds, or let its image go. Under the lock."""
        if item.image is None:
            item.keep = False
            return
        size = item.image.nbytes
        if self._held + size > HELD:
            item.image, item.keep, item.left_out = None, False, "image"
            return
        self._held += size
        if item.keep and self._to_keep + size > TO_KEEP:
            item.keep, item.left_out = False, "picture"
        elif item.keep:
            self._to_keep += size

    def _run(self, worker: Worker) -> None:
        while True:
            worker.beat(PATIENCE)
            stopping = worker.stop.is_set()
            self._prepare()
            if self._rows and not self._commit(stopping):
                if stopping:
                    return self._give_up()
                worker.stop.wait(RETRY_SECONDS)
            more = self._tidy(stopping)
            with self._changed:
                if self._waiting or self._rows:
                    continue
                if stopping:
                    return
                if not more and not worker.stop.is_set():
                    self._changed.wait(IDLE_SECONDS)

    def _prepare(self) -> None:
        """Make rows of what waits, as much as a batch takes; nothing while the disk refuses."""
        until = time.monotonic() + PREPARE_SECONDS
        while len(self._rows) < BATCH and time.monotonic() < until:
            with self._changed:
                if not self._waiting:
                    return
                item = self._waiting[0]
            row = self._row(item)
            self._rows.append((row, item.record))
            with self._changed:
                self._waiting.popleft()
                if item.image is not None:
                    self._held -= item.image.nbytes
                    self._to_keep -= item.image.nbytes if item.keep else 0

    def _row(self, item: _Item) -> JournalRow:
        """Hash the image, and keep the picture if it shall be."""
        record, image, name, size = item.record, item.image, None, 0
        left_out = item.left_out
        if image is not None:
            height, width = image.shape[:2]
            record["image"] = {"sha256": digest(image), "height": height, "width": width}
        if image is not None and item.keep:
            name = name_of(str(record["id"]), item.moment)
            try:
                size = self._files.write(name, image)
            except (OSError, BadImage) as error:
                self._observer.archive_dropped("disk")
                self._say(str(error))
                name, left_out = None, "disk"
        if left_out:
            record.setdefault("image", {})["left_out"] = left_out
        text = results.dumps(record).decode()
        station, number = str(record["station"]), int(record["seq"])
        return JournalRow(
            str(record["id"]), station, number, item.moment, item.evaluation, text, name, size
        )

    def _commit(self, last: bool) -> bool:
        """Make the rows durable and tell of them; whether that went well."""
        rows, replaced = [row for row, _ in self._rows], self._journal.replaced
        try:
            self._files.settle(row.picture for row in rows if row.picture is not None)
            positions = self._journal.append(rows)
        except (SinkError, OSError) as error:
            self._say(str(error))
            return False
        if self._journal.replaced != replaced:  # what the reader has open was moved aside
            self._reader.close()
            self._sweep = Sweep(self._journal, self._files)
        if self._refused and not any("left_out" in r.get("image", {}) for _, r in self._rows):
            log.info("archive: the disk takes records again")
            self._refused, self._full = "", False
        entries = []
        for position, (row, record) in zip(positions, self._rows, strict=True):
            if position:
                entries.append(JournalEntry(position, record, row.picture is not None))
            else:
                log.error("archive: inspection %s is there already; it is not added", row.id)
                self._observer.archive_dropped("duplicate")
        self._rows = []
        for tell in self._subscribers if entries else ():
            try:
                tell(entries)
            except Exception:
                log.exception("archive: a subscriber failed")
        return True

    def _tidy(self, stopping: bool) -> bool:
        """Keep to the limits, each second and after each batch; True if there is more to do."""
        now, more = time.monotonic(), False
        if stopping or self._rows:
            return False
        if now - self._tidied >= IDLE_SECONDS:
            self._retention.look()
            self._tidied = now
        try:
            more = self._retention.turn()
            if not self._sweep.done:
                self._sweep.step()
                more = more or not self._sweep.done
        except (SinkError, OSError) as error:
            self._say(str(error))
            more = False
        journal = self._journal
        self._observer.archive_kept(journal.pictures, journal.bytes, self._retention.state)
        return more

    def _say(self, why: str) -> None:
        """A disk that refuses is said once, until it takes something again."""
        level = logging.DEBUG if self._refused else logging.ERROR
        log.log(level, "archive: %s Trying again every %g s.", why, RETRY_SECONDS)
        self._refused = why

    def _give_up(self) -> None:
        """At the end, with a disk that refuses: what was accepted is lost, and counted."""
        with self._changed:
            lost = len(self._rows) + len(self._waiting)
            self._waiting.clear()
        for _ in range(lost):
            self._observer.archive_dropped("record")
        for row, _ in self._rows:
            if row.picture is not None:
                with suppress(OSError):
                    self._files.remove(row.picture)
        log.error("archive: %d records are lost: %s", lost, self._refused)
