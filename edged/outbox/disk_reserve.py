"""A little disk space held back for the moment when there is none.

Owns one file of zeros beside the outbox. On a full disk SQLite can neither forget a row (that is
written to its log first) nor empty the log (new pages have no place in the main file): nothing
would ever get less again. Giving this file up lets both happen.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

SIZE = 8 << 20
"""Bytes: twice what SQLite's log usually holds before it is emptied."""
_PLENTY = 4  # times SIZE must be free before it is taken


class Reserve:
    """The file. One thread at a time; nothing here raises: without it, things are as before."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size
        self._held = False

    @property
    def held(self) -> bool:
        """The space is there to be given up."""
        return self._held

    def hold(self) -> None:
        """Take the space if there is plenty."""
        try:
            if self._path.exists():
                self._held = True
                return
            if shutil.disk_usage(self._path.parent).free < _PLENTY * self._size:
                return
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._size)
                self._held = True
            finally:
                os.close(descriptor)
        except OSError:
            self.release()

    def release(self) -> bool:
        """Give the space up; whether there was any."""
        self._held = False
        try:
            self._path.unlink()
        except OSError:
            return False
        return True
