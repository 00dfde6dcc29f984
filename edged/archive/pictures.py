"""The archive's picture files: one PNG for each, in a folder for each day, whole or not at all.

Lossless, so that a verdict can be given again; OpenCV's own settings (run lengths, one filter) are
the fastest measured: 20 ms for 1280x720, level 1 of deflate takes 30 to 50 ms for about the same
bytes. Owns names, files and their durability; which of them are kept is retention.py's.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path

from edged.archive.reader import PICTURES
from edged.core.types import Image
from edged.runtime.durable import sync
from edged.wire import imaging

log = logging.getLogger(__name__)

PART = ".part"


def digest(image: Image) -> str:
    """The sha256 of an image's pixels: its rows of BGR bytes, whatever file they come from."""
    return hashlib.sha256(image.data).hexdigest()


def name_of(id: str, moment: float) -> str:
    """Where a picture lies under the pictures: `2026-11-26/ID.png`, by the day in UTC."""
    return f"{datetime.fromtimestamp(moment, timezone.utc):%Y-%m-%d}/{id}.png"


class PictureFiles:
    """All of them, under one folder. The archive's worker only."""

    def __init__(self, folder: Path) -> None:
        self._root = folder / PICTURES

    def write(self, name: str, image: Image) -> int:
        """Encode and keep a picture, synchronised; its bytes. Raises OSError, BadImage."""
        data = imaging.encoded_png(image)
        path = self._root / name
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_name(path.name + PART)
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        except OSError:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise
        return len(data)

    def settle(self, names: Iterable[str]) -> None:
        """Return when the folders of new pictures are on the disk. Raises OSError."""
        days = {name.partition("/")[0] for name in names}
        for day in days:
            sync(self._root / day)
        if days:
            sync(self._root)

    def remove(self, name: str) -> None:
        """Remove one, and its day's folder with the last. Raises OSError."""
        path = self._root / name
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others are in it
            path.parent.rmdir()

    def days(self) -> set[str]:
        """The days that have a folder. Raises OSError."""
        return {each.name for each in self._root.iterdir() if each.is_dir()}

    def of(self, day: str) -> dict[str, int]:
        """The files of a day with their bytes, by name. Raises OSError."""
        found: dict[str, int] = {}
        with suppress(FileNotFoundError), os.scandir(self._root / day) as files:
            for file in files:
                found[f"{day}/{file.name}"] = file.stat(follow_symlinks=False).st_size
        return found
