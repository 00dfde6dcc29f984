"""FAKE camera that a test stops and loses at will."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

from edged.core.errors import CameraError
from edged.core.types import Picture
from tests.support.fakes import picture


class StepCamera:
    """FAKE camera of 500 pictures a second that stalls, and is lost, when it is told to."""

    paced = False

    def __init__(self) -> None:
        self._shutter = threading.Lock()
        self._going = threading.Event()
        self._going.set()
        self._lost = False
        self._stop = threading.Event()

    def stall(self) -> None:
        """Take no picture any more once this has returned."""
        with self._shutter:
            self._going.clear()

    def resume(self) -> None:
        """Deliver again."""
        self._going.set()

    def lose(self) -> None:
        """Fail at the next read, and at each open from then on."""
        self._lost = True

    def open(self, stop: threading.Event) -> None:
        """Ready at once, unless it is lost."""
        if self._lost:
            raise CameraError("The fake camera is unplugged.")
        self._stop = stop

    def read(self) -> Picture | None:
        """The next picture."""
        while not self._stop.wait(0.002):
            if self._lost:
                raise CameraError("The fake camera is unplugged.")
            with self._shutter:
                if self._going.is_set():
                    return Picture(picture(), time.monotonic_ns(), datetime.now(timezone.utc))
        return None

    def close(self) -> None:
        """Nothing to let go of."""
