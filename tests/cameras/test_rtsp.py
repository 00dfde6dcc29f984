"""Network cameras, against a real RTSP server that can be frozen, killed and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pytest

from edged.cameras.opencv import OpenCvCamera
from edged.core.errors import CameraError
from tests.support.fakes import PATIENCE, SPEC, FakeLoader, Line
from tests.support.rtsp_server import HEIGHT, WIDTH

PYTHON = "/usr/bin/python3"  # Debian's, which has GStreamer's bindings
PACKAGES = (
    "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-rtsp gstreamer1.0-plugins-base "
    "gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
)


def missing(why: str) -> NoReturn:
    """Skip the test, or fail it when EDGED_REQUIRE_ALL=1."""
    reason = f"no RTSP server here ({why}); Debian packages: {PACKAGES}"
    if os.environ.get("EDGED_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class RtspServer:
    """tests/support/rtsp_server.py in a process of its own; skips the test where it cannot run."""

    def __init__(self) -> None:
        self.port = 0
        self._process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        """Where the picture is."""
        return f"rtsp://127.0.0.1:{self.port}/part"

    def start(self) -> None:
        """Listen; on the same port again if it had one."""
        script = Path(__file__).parents[1] / "support" / "rtsp_server.py"
        command = [PYTHON, str(script), str(self.port)]
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True)
        except OSError as error:
            missing(str(error))
        self._process = process
        said = process.stdout.readline() if process.stdout else ""
        if not said:
            missing(process.communicate()[1].strip().rpartition("\n")[2])
        self.port = int(said)

    def freeze(self) -> None:
        """Stay connected and say nothing more."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Go on."""
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End at once, as by a pulled plug."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)


@pytest.fixture
def server() -> Iterator[RtspServer]:
    """A server that serves; it is gone afterwards, frozen or not."""
    server = RtspServer()
    server.start()
    yield server
    server.kill()


def camera(source: str) -> OpenCvCamera:
    return OpenCvCamera(source, "auto", WIDTH, HEIGHT, None, open_timeout=5.0, read_timeout=0.5)


def read_until_lost(lost: OpenCvCamera) -> str:
    """What the camera says at its end; a camera that never says it runs into the timeout."""
    with pytest.raises(CameraError) as said:
        while True:
            lost.read()
    return str(said.value)


def test_frames_of_a_network_camera_arrive_in_colour_and_in_order_of_time(
    server: RtspServer,
) -> None:
    live = camera(server.url)
    assert not live.paced
    live.open(threading.Event())
    pictures = [live.read() for _ in range(5)]
    live.close()
    stamps = []
    for picture in pictures:
        assert picture is not None
        assert picture.image.shape == (HEIGHT, WIDTH, 3)
        assert picture.image.dtype == np.uint8 and picture.image.flags.c_contiguous
        assert picture.image.reshape(-1, 3).std(axis=0).min() > 20  # the test picture's bars
        stamps.append(picture.captured_ns)
    assert stamps == sorted(set(stamps))


@pytest.mark.timeout(60)
@pytest.mark.parametrize("how", ["kill", "freeze"])
def test_a_network_camera_that_dies_or_falls_silent_is_lost_and_can_be_had_again(
    server: RtspServer, how: str
) -> None:
    live = camera(server.url)
    live.open(threading.Event())
    assert live.read() is not None
    getattr(server, how)()
    assert read_until_lost(live).startswith(f"{server.url}: stopped delivering. Check its power")
    live.close()
    server.start() if how == "kill" else server.thaw()
    live.open(threading.Event())
    assert live.read() is not None
    live.close()


@pytest.mark.timeout(20)  # OpenCV's own patience is 30 s
def test_a_silent_server_does_not_hold_an_open_for_ever(server: RtspServer) -> None:
    server.freeze()
    mute = OpenCvCamera(server.url, "auto", None, None, None, open_timeout=1.0, read_timeout=0.5)
    with pytest.raises(CameraError, match="cannot be opened"):
        mute.open(threading.Event())
    mute.close()


def test_a_network_camera_of_another_size_than_configured_says_both(server: RtspServer) -> None:
    wrong = OpenCvCamera(server.url, "auto", 640, 480, None, 5.0, 2.0)
    wrong.open(threading.Event())
    with pytest.raises(CameraError, match=f"{WIDTH}x{HEIGHT} pixels, the configuration says 640x"):
        wrong.read()
    wrong.close()


def test_a_killed_server_that_comes_back_is_captured_again_and_the_numbers_go_on(
    server: RtspServer,
) -> None:
    spec = replace(SPEC, image_size=(HEIGHT, WIDTH))
    with Line(FakeLoader(), read=lambda: spec) as line:
        line.start()
        capture = line.capture(camera(server.url))
        line.records.until(lambda: len(line.records.all) > 3)
        server.kill()
        line.ears.until(lambda: [up for up, _ in line.ears.states] >= [True, False])
        seen = line.ears.captured
        server.start()
        line.ears.until(lambda: line.ears.captured > seen + 3)
        capture.stop()
        assert capture.ended.wait(PATIENCE)
        states = [up for up, _ in line.ears.states]
        assert states[:2] == [True, False] and states[-1] is True
        assert states.count(True) == 2
        line.records.until(lambda: len(line.records.all) + len(line.ears.dropped) >= seen + 4)
        assert line.records.sequences == sorted(set(line.records.sequences))
        assert all(record.verdict for record in line.records.all)


def test_a_video_file_is_captured_whole_in_order(tmp_path: Path) -> None:
    path = tmp_path / "parts.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for level in range(0, 120, 10):
        writer.write(np.full((HEIGHT, WIDTH, 3), level, np.uint8))
    writer.release()
    spec = replace(SPEC, image_size=(HEIGHT, WIDTH))
    with Line(FakeLoader(), read=lambda: spec, queue=4) as line:
        line.start()
        assert line.capture(camera(str(path))).ended.wait(PATIENCE)
        line.records.until(lambda: len(line.records.all) == 12)
        assert line.ears.dropped == []
        levels = [float(record.frame.image.mean()) for record in line.records.all]
    assert levels == pytest.approx(range(0, 120, 10), abs=2)


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("nowhere/parts.avi", "nowhere/parts.avi: there is no such video file."),
        ("rtsp://nobody.invalid/part", "rtsp://nobody.invalid/part: cannot be opened. Check"),
        ("nonsense://x", "nonsense://x: cannot be opened. Check"),
        ("", ": there is no such video file."),
    ],
)
def test_an_address_that_leads_nowhere_is_a_sentence(source: str, sentence: str) -> None:
    lost = OpenCvCamera(source, "auto", None, None, None, 2.0, 1.0)
    with pytest.raises(CameraError) as said:
        lost.open(threading.Event())
    lost.close()
    assert str(said.value).startswith(sentence)


def test_a_file_that_is_no_video_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "text.mp4"
    path.write_text("no video", encoding="utf-8")
    lost = camera(str(path))
    with pytest.raises(CameraError, match="a video that ffmpeg can decode"):
        lost.open(threading.Event())
        lost.read()
    lost.close()
