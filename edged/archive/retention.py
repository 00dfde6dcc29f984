"""Which pictures are kept, and which go: the archive's rules. Knows rows and files, no queue.

    kept     all rejects and what was not judged; of the passes a share, chosen by the id
    go       by size and number: passes before rejects, the oldest first; by age: the oldest
    disk     under min_free_gb no pass is kept, and old ones go; under half of it no new picture
             is kept at all. A state ends a quarter above where it began, so that it does not flap.

A clock that jumps must not empty the archive: age removes pictures at most PACE times as fast as
they come of age in an archive that is full, however old they seem (of 90 days, a share of 1/22 a
day). Every turn is bounded, so that records never wait for long.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from edged.archive.journal import JournalFile, KeptPicture
from edged.archive.pictures import PictureFiles
from edged.config.archive import ArchiveConfig
from edged.core.observer import Observer
from edged.core.types import Inspection
from edged.wire.results import NOT_DECIDABLE, NOT_OK, OK

log = logging.getLogger(__name__)

TURN = 64
"""Pictures or rows that go in one turn."""
PACE = 4.0
DAY = 86400.0
ALL, REJECTS, NONE = 0, 1, 2
"""What the free disk lets in: passes and rejects, rejects, no picture."""
_ABOVE = 1.25
_SAID = {
    ALL: "pictures are kept again as configured",
    REJECTS: "pictures of good parts are not kept, and old ones go",
    NONE: "no new picture is kept; records go on",
}

Clock: TypeAlias = Callable[[], float]


def sampled(id: str, share: float) -> bool:
    """Whether a pass is in the sample: by its id alone, so the same always."""
    number = int.from_bytes(hashlib.sha256(id.encode()).digest()[:8], "big")
    return number < share * 2**64


def free_bytes(folder: Path) -> float:
    """Of the folder's disk, for whoever is not root. Raises OSError."""
    return float(shutil.disk_usage(folder).free)


class Retention:
    """The rules of one archive. `wants` on any thread, the rest on the archive's worker."""

    def __init__(
        self,
        config: ArchiveConfig,
        journal: JournalFile,
        files: PictureFiles,
        observer: Observer,
        free: Clock,
        clock: Clock = time.time,
        steady: Clock = time.monotonic,
    ) -> None:
        """free: bytes on the disk; clock: seconds since 1970; steady: seconds, never stepped."""
        self._config = config
        self._journal = journal
        self._files = files
        self._observer = observer
        self._free = free
        self._clock = clock
        self._steady = steady
        self._least = config.min_free_gb * 1e9
        self._by_age = 0.0
        self._since = steady()
        self.state = ALL

    def wants(self, inspection: Inspection) -> bool:
        """Whether the picture of an inspection shall be kept."""
        if inspection.frame.image.size == 0 or self.state == NONE:
            return False
        if not inspection.passed:
            return True
        return self.state == ALL and sampled(inspection.id, self._config.passes)

    def look(self) -> None:
        """Ask the disk how much is free, and say it when that changes something."""
        try:
            free = self._free()
        except OSError as error:
            log.warning("the archive's disk does not tell its free space (%s)", error)
            return
        state = self._next(free)
        if state != self.state:
            self.state = state
            level = logging.INFO if state == ALL else logging.WARNING
            log.log(level, "archive: %.2f GB free: %s", free / 1e9, _SAID[state])

    def turn(self) -> bool:
        """Let go of what the limits do not hold, some of it; True if there is more to do.

        Raises SinkError, OSError.
        """
        more = self._records()
        more = self._size() or more
        if self.state != ALL:
            more = self._go(self._journal.oldest_pictures(OK, TURN), "free") or more
        self._age()
        return more

    def _next(self, free: float) -> int:
        if free < self._least / 2 or (self.state == NONE and free < _ABOVE * self._least / 2):
            return NONE
        if free < self._least or (self.state != ALL and free < _ABOVE * self._least):
            return REJECTS
        return ALL

    def _records(self) -> bool:
        over = self._journal.rows - self._config.max_records
        if over <= 0:
            return False
        oldest = self._journal.oldest(min(over, TURN))
        self._unlink(oldest)
        self._journal.remove(oldest)
        self._tell(oldest, "records")
        return over > TURN

    def _size(self) -> bool:
        """Passes go first, then what was not judged, rejects last."""
        over = self._journal.bytes - self._config.max_gb * 1e9
        if over <= 0:
            return False
        for evaluation in (OK, NOT_DECIDABLE, NOT_OK):
            going = []
            for each in self._journal.oldest_pictures(evaluation, TURN):
                if over > 0:
                    going.append(each)
                    over -= each.bytes
            self._go(going, "size")
            if going:
                break
        return over > 0

    def _age(self) -> None:
        now = self._steady()
        share = PACE * (now - self._since) / (self._config.max_days * DAY)
        self._since = now
        most = max(1.0, self._journal.pictures * 0.01)
        self._by_age = min(most, self._by_age + self._journal.pictures * min(1.0, share))
        allowed = min(TURN, int(self._by_age))
        if allowed:
            before = self._clock() - self._config.max_days * DAY
            going = self._journal.pictures_before(before, allowed)
            self._by_age -= len(going)
            self._go(going, "age")

    def _go(self, kept: list[KeptPicture], policy: str) -> bool:
        if kept:
            self._unlink(kept)
            self._journal.forget_pictures(kept)
            self._tell(kept, policy)
        return len(kept) == TURN

    def _unlink(self, kept: list[KeptPicture]) -> None:
        # Files first: on a full disk the journal may need their space to note that they are gone.
        for each in kept:
            if each.picture is not None:
                self._files.remove(each.picture)

    def _tell(self, kept: list[KeptPicture], policy: str) -> None:
        for _ in kept:
            self._observer.archive_dropped(policy)


class Sweep:
    """After a kill: files without a row go, rows without their file say so. One day a step."""

    def __init__(self, journal: JournalFile, files: PictureFiles) -> None:
        self._journal = journal
        self._files = files
        self._days: list[str] | None = None

    @property
    def done(self) -> bool:
        """Whether every day was looked at."""
        return self._days == []

    def step(self) -> None:
        """Look at one more day, the newest first; while no file waits for its row.

        Raises SinkError, OSError.
        """
        if self._days is None:
            self._days = sorted(self._files.days() | set(self._journal.days()))
        if not self._days:
            return
        day = self._days[-1]
        files, rows = self._files.of(day), self._journal.pictures_of(day)
        lost = [row for row in rows if row.picture not in files]
        for name in files.keys() - {row.picture for row in rows}:
            log.info("archive: %s belongs to no record: removed", name)
            self._files.remove(name)
        if lost:
            log.warning("archive: %d pictures of %s are gone", len(lost), day)
            self._journal.forget_pictures(lost)
        self._days.pop()
