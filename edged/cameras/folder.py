"""Pictures of a folder, as if a camera took them. Must not judge, retry or watch the folder."""

from __future__ import annotations

import os
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

from edged.cameras.schedule import FrameSchedule
from edged.core.errors import BadImage, CameraError
from edged.core.types import Image, Picture
from edged.wire import imaging


class FolderCamera:
    """Every picture below `path`, in the order of the relative paths compared as text.

    rate: pictures per second on a fixed schedule; 0 = as fast as they are consumed (`paced`).
    loop: start again after the last one, with the files that are there then.
    Opened, read and closed on one thread.
    """

    def __init__(self, path: Path, rate: float, loop: bool) -> None:
        self._path = path
        self._rate = rate
        self._loop = loop
        self._names: list[str] = []
        self._next = 0
        self._good = False
        self._pace: FrameSchedule | None = None

    @property
    def paced(self) -> bool:
        """True when every picture counts: no rate was given."""
        return self._rate == 0

    def open(self, stop: threading.Event) -> None:
        """List the folder. Raises CameraError if it is missing, unreadable or has no pictures."""
        self._names = self._list()
        self._next = 0
        self._good = False
        self._pace = FrameSchedule(self._rate, stop)

    def read(self) -> Picture | None:
        """The next picture when it is due; None after the last or when `stop` was set.

        Raises BadImage for a file that cannot be decoded or has gone, and CameraError when a
        looping folder is lost or a whole round of it had no readable picture.
        """
        if self._pace is None:
            raise CameraError(f"{self._path}: the camera is not open.")
        if self._next == len(self._names):
            if not self._loop:
                return None
            self._rewind()
        name = self._names[self._next]
        self._next += 1
        image: Image | None = None
        fault: BadImage | None = None
        try:
            image = imaging.read(self._path / name)
        except BadImage as error:  # it takes its slot, too: a folder of bad files must not spin
            fault = error
        if not self._pace.wait():
            return None
        if image is None:
            raise fault or BadImage(f"{name}: cannot be read.")
        self._good = True
        return Picture(image, time.monotonic_ns(), datetime.now(timezone.utc), name=name)

    def close(self) -> None:
        """Forget the listing."""
        self._pace = None
        self._names = []
        self._next = 0

    def _rewind(self) -> None:
        if not self._good:
            raise CameraError(
                f"{self._path}: none of its {len(self._names)} pictures can be read. "
                "Put readable JPEG or PNG files there."
            )
        self._names = self._list()
        self._next = 0
        self._good = False

    def _list(self) -> list[str]:
        if not self._path.is_dir():
            what = "is not a folder" if self._path.exists() else "does not exist"
            raise CameraError(f"{self._path}: {what}. Set the camera's path to a picture folder.")

        def unreadable(error: OSError) -> None:
            raise CameraError(
                f"{error.filename}: cannot be listed ({error.strerror}). Let edged's user read it."
            ) from error

        names = [
            (Path(folder) / file).relative_to(self._path).as_posix()
            for folder, _, files in os.walk(self._path, onerror=unreadable)
            for file in files
            if Path(file).suffix.lower() in imaging.SUFFIXES
        ]
        if not names:
            known = ", ".join(sorted(imaging.SUFFIXES))
            raise CameraError(f"{self._path}: holds no pictures ({known}), nor do its subfolders.")
        return sorted(names)
