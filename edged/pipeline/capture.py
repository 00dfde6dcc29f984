"""One thread per camera: pictures in, jobs to the model's batcher.

A lost camera is a reported state, never a crash: it is closed and opened again with a back-off
that doubles from 0.5 s to 10 s, with jitter, for as long as the daemon runs. It is up again with
its first picture: a device that opens and delivers nothing is still lost. An item that is no
picture is skipped, counted and named. A paced camera (replay) keeps at most WINDOW frames on
their way and waits for their answers, and for its model, so that none of them is ever shed.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable

from edged.core.errors import BadImage, Busy, EdgedError, WrongState
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
PAUSE = 0.05  # seconds until a paced frame tries again for its place
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
        patience: float = 0.0,
    ) -> None:
        """`offer` seats a job or raises; `next_sequence` numbers this camera's frames.

        patience: seconds that one `open` or `read` of the camera may rightly take.
        """
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
        self._patience = patience
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
                worker.beat(self._patience)
                try:
                    self._camera.open(worker.stop)
                    if self._read_all(worker):
                        return
                except EdgedError as error:  # the camera's, or no sequence number on a full disk
                    if worker.stop.is_set():
                        return
                    back_off = FIRST_BACK_OFF if self._up else back_off
                    self._up = False
                    self._observer.camera_state(self.name, False, str(error))
                    log.warning("camera %s: %s Trying again in %.1f s.", self.name, error, back_off)
                finally:
                    self._camera.close()
                worker.beat()
                worker.stop.wait(back_off * random.uniform(0.8, 1.2))
                back_off = min(LAST_BACK_OFF, back_off * 2)
        finally:
            self.ended.set()

    def _read_all(self, worker: Worker) -> bool:
        """Read until the source ends (True) or the stop flag is set (True); loss raises."""
        while not worker.stop.is_set():
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
                return True
            if not self._up:
                self._up = True
                self._observer.camera_state(self.name, True, "delivering")
            worker.beat()
            self._observer.frame_captured(self.name)
            self._submit(worker, self._frame(picture))
        return True

    def _frame(self, picture: Picture) -> Frame:
        picture.image.setflags(write=False)
        return Frame(
            self.name,
            self._next_sequence(self.name),
            picture.captured_ns,
            picture.captured_at,
            picture.image,
            name=picture.name,
            simulated=picture.simulated,
            truth=picture.truth,
        )

    def _submit(self, worker: Worker, frame: Frame) -> None:
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
            except (Busy, WrongState) as error:
                detail = str(error)
                if paced and not worker.stop.wait(PAUSE):
                    worker.beat()
                    continue
                reason = Reason.OVERLOAD if isinstance(error, Busy) else Reason.MODEL_MISSING
            except EdgedError as error:
                detail = str(error)
                reason = Reason.IMAGE_SIZE if isinstance(error, BadImage) else Reason.MODEL_MISSING
            if worker.stop.is_set():
                reason = Reason.SHUTDOWN
            timing = Timing(frame.captured_ns)
            return reply(Inspection(frame, None, NoVerdict(reason, detail), timing))

    def _answer_paced(self, inspection: Inspection) -> None:
        self._window.release()
        self._reply(inspection)
