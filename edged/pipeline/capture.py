"""One thread per camera: pictures in, jobs to the model's batcher.

A lost camera is a reported state, never a crash: it is closed and opened again with a back-off
that doubles from 0.5 s to 10 s, with jitter, for as long as the daemon runs. It is up again with
its first picture: a device that opens and delivers nothing is still lost. An item that is no
picture is skipped, counted and named. A paced camera (replay) keeps at most WINDOW frames on
their way and waits for their answers, so that none of them is ever shed.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from edged.core.errors import BadImage, Busy, CameraError, EdgedError
from edged.core.observer import Observer
from edged.core.protocols import Camera
from edged.core.types import (
    Frame,
    Inspection,
    Job,
    NoVerdict,
    Picture,
    Reason,
    Reply,
    Timing,
)
from edged.core.workers import Crew, Deadline, Worker
from edged.pipeline.publish import Publisher

log = logging.getLogger(__name__)

WINDOW = 4
FIRST_BACK_OFF, LAST_BACK_OFF = 0.5, 10.0


class Capture:
    """Reads one camera until it ends or is stopped."""

    def __init__(
        self,
        name: str,
        camera: Camera,
        offer: Callable[[Job], None],
        publisher: Publisher,
        next_sequence: Callable[[str], int],
        crew: Crew,
        observer: Observer,
    ) -> None:
        """`offer` seats a job or raises; `next_sequence` numbers this camera's frames."""
        self.name = name
        self.ended = threading.Event()
        """Set when the camera has no more pictures, or capture was stopped."""
        self._camera = camera
        self._offer = offer
        self._publisher = publisher
        self._reply: Reply = publisher.publish
        self._next_sequence = next_sequence
        self._crew = crew
        self._observer = observer
        self._window = threading.Semaphore(WINDOW)
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
            log.warning("camera %s is stuck in its driver; leaving it behind", self.name)

    def _run(self, worker: Worker) -> None:
        back_off = FIRST_BACK_OFF
        try:
            while not worker.stop.is_set():
                worker.beat()
                try:
                    self._camera.open(worker.stop)
                    if self._read_all(worker):
                        return
                except CameraError as error:
                    back_off = FIRST_BACK_OFF if self._up else back_off
                    self._up = False
                    self._observer.camera_state(self.name, False, str(error))
                    log.warning("camera %s: %s Trying again in %.1f s.", self.name, error, back_off)
                finally:
                    self._camera.close()
                worker.stop.wait(back_off * random.uniform(0.8, 1.2))
                back_off = min(LAST_BACK_OFF, back_off * 2)
        finally:
            self.ended.set()

    def _read_all(self, worker: Worker) -> bool:
        """Read until the source ends (True) or the stop flag is set (True); loss raises."""
        while not worker.stop.is_set():
            worker.beat()
            try:
                picture = self._camera.read()
            except BadImage as error:
                self._observer.frame_skipped(self.name, str(error).partition(":")[0], str(error))
                log.warning("camera %s skipped a picture: %s", self.name, error)
                continue
            if picture is None:
                if not worker.stop.is_set():
                    log.info("camera %s has no more pictures", self.name)
                return True
            if not self._up:
                self._up = True
                self._observer.camera_state(self.name, True, "delivering")
            self._observer.frame_captured(self.name)
            self._submit(worker, picture)
        return True

    def _submit(self, worker: Worker, picture: Picture) -> None:
        picture.image.setflags(write=False)
        frame = Frame(
            self.name,
            self._next_sequence(self.name),
            picture.captured_ns,
            picture.captured_at,
            picture.image,
            name=picture.name,
            simulated=picture.simulated,
            truth=picture.truth,
        )
        self._publisher.expect(frame)
        paced = self._camera.paced
        if paced:
            while not self._window.acquire(timeout=1.0):
                worker.beat()
        reply = self._answer_paced if paced else self._reply
        job = Job(frame, reply, sheddable=not paced)
        while True:
            try:
                return self._offer(job)
            except Busy as error:
                detail = str(error)
                if paced and not worker.stop.wait(0.05):
                    worker.beat()
                    continue
                reason = Reason.SHUTDOWN if paced else Reason.OVERLOAD
            except EdgedError as error:
                reason = Reason.SHUTDOWN if worker.stop.is_set() else Reason.MODEL_MISSING
                detail = str(error)
                if isinstance(error, BadImage):
                    reason = Reason.IMAGE_SIZE
            timing = Timing(frame.captured_ns)
            return reply(Inspection(frame, None, NoVerdict(reason, detail), timing))

    def _answer_paced(self, inspection: Inspection) -> None:
        self._window.release()
        self._reply(inspection)
