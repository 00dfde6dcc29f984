"""One thread per camera: pictures in, to the station that the camera belongs to.

A lost camera is a reported state, never a crash: it is closed and opened again with a back-off
that doubles from 0.5 s to 10 s, with jitter, for as long as the daemon runs. It is up again with
its first picture: a device that opens and delivers nothing is still lost; only one that waits for
a trigger, its own or its station's, is up when it is open. An item that is no picture is skipped,
counted and named. What becomes of a picture is the station's to say.
"""

from __future__ import annotations

import logging
import random
import threading

from edged.core.errors import BadImage, EdgedError
from edged.core.observer import Observer
from edged.core.protocols import Camera
from edged.line.station import Station
from edged.runtime.workers import Crew, Deadline, Worker

log = logging.getLogger(__name__)

FIRST_BACK_OFF, LAST_BACK_OFF = 0.5, 10.0


class Capture:
    """Reads one camera until it ends or is stopped."""

    def __init__(
        self,
        name: str,
        camera: Camera,
        station: Station,
        crew: Crew,
        observer: Observer,
        patience: float = 0.0,
    ) -> None:
        """patience: seconds that one `open` or `read` of the camera may rightly take."""
        self.name = name
        self.ended = threading.Event()
        """Set when the camera has no more pictures, or capture was stopped."""
        self._camera = camera
        self._station = station
        self._crew = crew
        self._observer = observer
        self._patience = patience
        self._worker: Worker | None = None
        self._up = False

    def start(self) -> None:
        """Start the thread `capture-<name>`."""
        self._worker = self._crew.start(f"capture-{self.name}", self._run)

    def stop(self) -> None:
        """Ask the thread to end; returns at once."""
        if self._worker is not None:
            self._worker.stop.set()

    def join(self, deadline: Deadline) -> None:
        """Wait for the thread, but not for a driver that is stuck."""
        if self._worker is not None and not self._worker.join(deadline.remaining(3.0)):
            log.warning("camera %s is stuck in its driver; leaving it", self.name)

    def _run(self, worker: Worker) -> None:
        back_off = FIRST_BACK_OFF
        try:
            while not worker.stop.is_set():
                worker.beat(self._patience)
                try:
                    self._camera.open(worker.stop)
                    if self._station.waits(self._camera.paced):
                        self._turn(True, "open")
                    if self._read_all(worker):
                        return
                except EdgedError as error:  # the camera's, or no sequence number on a full disk
                    if worker.stop.is_set():
                        return
                    back_off = FIRST_BACK_OFF if self._up else back_off
                    self._turn(False, str(error))
                    log.warning("camera %s: %s Trying again in %.1f s.", self.name, error, back_off)
                finally:
                    self._camera.close()
                worker.beat()
                worker.stop.wait(back_off * random.uniform(0.8, 1.2))
                back_off = min(LAST_BACK_OFF, back_off * 2)
        finally:
            self.ended.set()

    def _turn(self, up: bool, detail: str) -> None:
        """The camera came up, or was lost (again: each try says why)."""
        if up and self._up:
            return
        self._up = up
        self._observer.camera_state(self.name, up, detail)
        self._station.camera(up, detail)

    def _read_all(self, worker: Worker) -> bool:
        """Read until the source ends (True) or the stop flag is set (True); loss raises."""
        paced = self._camera.paced
        while not worker.stop.is_set():
            if paced:
                self._station.await_turn(worker)
            worker.beat(self._patience)
            try:
                picture = self._camera.read()
            except BadImage as error:
                self._observer.frame_skipped(self.name, str(error).partition(":")[0], str(error))
                log.warning("camera %s skipped a picture: %s", self.name, error)
                continue
            if picture is None:
                if not worker.stop.is_set():
                    log.info("camera %s has no more pictures", self.name)
                    self._station.camera(False, "the camera has no more pictures")
                return True
            self._turn(True, "delivering")
            worker.beat()
            self._observer.frame_captured(self.name)
            self._station.picture(picture, worker, paced)
        return True
