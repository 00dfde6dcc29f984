"""Cameras through OpenCV: V4L2 devices, RTSP streams, video files. A home of cv2.

Owns the VideoCapture and the promise that no password leaves in a message. Must not reconnect
(capture closes and opens again) nor make a thread: the capture thread reads without a pause, so
that a stream's buffers stay empty. A read inside OpenCV cannot be interrupted, only bounded: on
RTSP it may last two to three times `read_timeout`, on V4L2 OpenCV's own 10 s.
"""

from __future__ import annotations

import os
import re
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal, TypeAlias

from edged.core.errors import BadImage, CameraError, MissingDependency
from edged.core.types import Picture
from edged.wire import imaging

# FFmpeg's own lines would stand among the log's, and may show a password as well.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

try:
    import cv2
except ImportError as error:
    raise MissingDependency("OpenCV (cv2)", "cpu", "A camera of kind opencv") from error

Backend: TypeAlias = Literal["auto", "v4l2", "ffmpeg", "gstreamer"]

_SECRET = re.compile(
    r"([\w-]*(?:pass|pwd|pw|token|secret|key|auth)[\w-]*\s*=\s*)(\"[^\"]*\"|[^&\s!\"]+)", re.I
)


LATENCIES = {"device": 0.1, "stream": 0.5, "file": 0.0}


def without_secrets(source: str | int) -> str:
    """The source as it may be shown: no user, password or token of a URL or pipeline."""
    # Up to the last @ of the word: a password typed unescaped may itself hold @, : or /.
    text = re.sub(r"://\S*@", "://***@", str(source))
    return _SECRET.sub(r"\1***", text)


class OpenCvCamera:
    """One device, stream or file. Opened, read and closed on one thread.

    source: device number, `/dev/video0`, `rtsp://...`, a video file, or (backend gstreamer) a
        pipeline that ends in appsink.
    width, height: the size every picture must have; a V4L2 device is asked for it.
    fps: asked of a V4L2 device, which may choose the nearest it can.
    open_timeout, read_timeout: seconds, for streams.
    latency: seconds from exposure to delivery at most, None = LATENCIES; a picture counts as taken
        so much before it came, so that one of the part before is not taken for this one's.
    """

    def __init__(
        self,
        source: str | int,
        backend: Backend,
        width: int | None,
        height: int | None,
        fps: float | None,
        open_timeout: float,
        read_timeout: float,
        latency: float | None = None,
    ) -> None:
        numbered = isinstance(source, str) and source.isdecimal()
        self._source = int(source) if numbered else source
        self._kind = _resolve(self._source) if backend == "auto" else backend
        self._width = width
        self._height = height
        self._fps = fps
        self._open_timeout = open_timeout
        self._read_timeout = read_timeout
        self._shown = without_secrets(source)
        kind = "device" if self._kind == "v4l2" else "file" if self.paced else "stream"
        self._latency = LATENCIES[kind] if latency is None else latency
        self._capture: cv2.VideoCapture | None = None
        self._stop: threading.Event | None = None
        self._seen = 0

    @property
    def paced(self) -> bool:
        """True for a video file, where every picture counts."""
        return self._kind == "ffmpeg" and "://" not in str(self._source)

    def open(self, stop: threading.Event) -> None:
        """Connect, for at most about `open_timeout`. Raises CameraError with the likely cure."""
        self.close()
        if self.paced and not Path(str(self._source)).is_file():
            raise CameraError(f"{self._shown}: there is no such video file.")
        api = {"v4l2": cv2.CAP_V4L2, "ffmpeg": cv2.CAP_FFMPEG, "gstreamer": cv2.CAP_GSTREAMER}
        backend = api[self._kind]
        if not cv2.videoio_registry.hasBackend(backend):
            raise CameraError(
                f"{self._shown}: this OpenCV ({cv2.__version__}) was built without {self._kind}. "
                "Wheels from PyPI have ffmpeg and v4l2 only; gstreamer needs JetPack's OpenCV."
            )
        try:
            capture = cv2.VideoCapture(self._source, backend, self._parameters())
        except cv2.error as error:
            raise CameraError(f"{self._shown}: OpenCV refuses it ({error.err}).") from None
        if not capture.isOpened():
            capture.release()
            raise CameraError(f"{self._shown}: cannot be opened. {self._cure()}")
        if self._kind == "v4l2":
            self._configure(capture)
        self._capture = capture
        self._stop = stop
        self._seen = 0

    def read(self) -> Picture | None:
        """The next picture, stamped with its exposure; None when a file ends or `stop` is set.

        Raises CameraError when a live source delivers nothing within its time (the capture is
        dead then: close and open again) or delivers another size than was asked for.
        """
        if self._capture is None or self._stop is None:
            raise CameraError(f"{self._shown}: the camera is not open.")
        if self._stop.is_set():
            return None
        try:
            grabbed = self._capture.grab()
            captured_ns = time.monotonic_ns() - int(self._latency * 1e9)
            captured_at = datetime.now(timezone.utc) - timedelta(seconds=self._latency)
            ok, image = self._capture.retrieve() if grabbed else (False, None)
        except cv2.error as error:
            reason = str(error).strip().splitlines()[0]
            raise CameraError(f"{self._shown}: the driver failed ({reason}).") from error
        if not ok or image is None:
            if self.paced and self._seen:
                return None
            what = "no picture in it can be decoded" if self.paced else "stopped delivering"
            raise CameraError(f"{self._shown}: {what}. {self._cure()}")
        self._seen += 1
        try:
            picture = imaging.as_bgr(image)
        except BadImage as error:
            raise CameraError(f"{self._shown}: delivers {error}") from None
        self._check_size(picture.shape[1], picture.shape[0])
        return Picture(picture, captured_ns, captured_at)

    def close(self) -> None:
        """Release the device. On the thread that reads: OpenCV must not lose it during a read."""
        capture, self._capture = self._capture, None
        if capture is not None:
            capture.release()

    def _parameters(self) -> list[int]:
        # Set later they are ignored, and without them a stalled stream blocks for 90 s.
        if self._kind == "v4l2" or self.paced:
            return []
        return [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            max(1, round(self._open_timeout * 1000)),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            max(1, round(self._read_timeout * 1000)),
        ]

    def _configure(self, capture: cv2.VideoCapture) -> None:
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # the freshest picture, not a queue of old ones
        if self._width is not None:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._width)
        if self._height is not None:
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._height)
        if self._fps is not None:
            capture.set(cv2.CAP_PROP_FPS, self._fps)

    def _check_size(self, width: int, height: int) -> None:
        wanted = (self._width or width, self._height or height)
        if wanted != (width, height):
            raise CameraError(
                f"{self._shown}: delivers {width}x{height} pixels, the configuration says "
                f"{wanted[0]}x{wanted[1]}. Change one of the two: a model judges one size."
            )

    def _cure(self) -> str:
        if self._kind == "v4l2":
            return "Is it plugged in, unused by others, and edged's user in the group video?"
        if self._kind == "gstreamer":
            return "Try the pipeline with gst-launch-1.0; it must end in appsink."
        if self.paced:
            return "Is it a video that ffmpeg can decode?"
        return "Check its power, network, address, user and password."


def _resolve(source: str | int) -> Literal["v4l2", "ffmpeg"]:
    device = isinstance(source, int) or source.startswith("/dev/")
    return "v4l2" if device else "ffmpeg"
