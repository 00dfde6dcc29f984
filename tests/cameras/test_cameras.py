"""Sources of pictures: what they deliver, and what they say when they cannot."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edged.cameras.folder import FolderCamera
from edged.cameras.opencv import OpenCvCamera
from edged.cameras.simulation.camera import SimulatedCamera
from edged.cameras.simulation.defects import KINDS
from edged.cameras.simulation.parts import render
from edged.core.errors import BadImage, CameraError
from edged.wire import imaging


def pictures(folder: Path, *names: str) -> None:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        imaging.write_png(folder / name, np.full((8, 8, 3), number, np.uint8))


def test_a_folder_is_read_once_in_the_order_of_its_names(tmp_path: Path) -> None:
    pictures(tmp_path, "b.png", "a.png", "sub/c.png")
    camera = FolderCamera(tmp_path, 0, False)
    camera.open(threading.Event())
    names = []
    while (picture := camera.read()) is not None:
        names.append(picture.name)
    camera.close()
    assert names == ["a.png", "b.png", "sub/c.png"]
    assert camera.paced


def test_a_broken_picture_is_named_and_the_next_one_follows(tmp_path: Path) -> None:
    pictures(tmp_path, "a.png", "c.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "b.png").write_bytes(whole[: len(whole) // 2])
    camera = FolderCamera(tmp_path, 0, False)
    camera.open(threading.Event())
    assert camera.read() is not None
    with pytest.raises(BadImage, match=r"b\.png"):
        camera.read()
    picture = camera.read()
    assert picture is not None and picture.name == "c.png"
    camera.close()


def test_a_missing_folder_is_a_lost_camera(tmp_path: Path) -> None:
    camera = FolderCamera(tmp_path / "nowhere", 0, False)
    with pytest.raises(CameraError, match="nowhere"):
        camera.open(threading.Event())
    camera.close()


@pytest.mark.parametrize("part", ["machined", "printed"])
def test_a_rendered_frame_depends_on_part_seed_and_index_alone(part: str) -> None:
    first, truth = render(part, 3, 7, 160, 120, 1.0)
    render(part, 3, 8, 160, 120, 1.0)
    again, _ = render(part, 3, 7, 160, 120, 1.0)
    other, _ = render(part, 4, 7, 160, 120, 1.0)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert truth.is_anomalous and truth.defect in KINDS[part]


@pytest.mark.parametrize("part", ["machined", "printed"])
def test_every_kind_of_defect_occurs_and_has_a_mask(part: str) -> None:
    seen = set()
    for index in range(60):
        _, truth = render(part, 1, index, 320, 240, 1.0)
        assert truth.mask is not None and truth.mask.sum() > 20, (index, truth.defect)
        seen.add(truth.defect)
    assert seen == set(KINDS[part])


def test_a_simulated_camera_says_so_and_ends_after_its_count() -> None:
    camera = SimulatedCamera("machined", 1, 96, 64, 0, 0.0, 2)
    camera.open(threading.Event())
    first, second, end = camera.read(), camera.read(), camera.read()
    camera.close()
    assert first is not None and second is not None and end is None
    assert first.simulated and first.truth is not None and not first.truth.is_anomalous


def test_every_frame_of_a_video_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "video.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for level in range(5):
        writer.write(np.full((48, 64, 3), level * 40, np.uint8))
    writer.release()
    camera = OpenCvCamera(str(path), "auto", None, None, None, 5.0, 2.0)
    camera.open(threading.Event())
    count = 0
    while (picture := camera.read()) is not None:
        assert picture.image.shape == (48, 64, 3)
        count += 1
    camera.close()
    assert count == 5
    assert camera.paced


def test_a_stream_that_nobody_serves_is_a_lost_camera_and_hides_its_password() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"rtsp://user:secret@127.0.0.1:{port}/x"
    camera = OpenCvCamera(url, "auto", None, None, None, 1.0, 1.0)
    with pytest.raises(CameraError) as told:
        camera.open(threading.Event())
    camera.close()
    assert str(port) in str(told.value)
    assert "secret" not in str(told.value)


def test_a_device_that_is_not_there_is_a_lost_camera() -> None:
    camera = OpenCvCamera(99, "v4l2", None, None, None, 1.0, 1.0)
    with pytest.raises(CameraError, match="99"):
        camera.open(threading.Event())
    camera.close()


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_picture_is_refused(suffix: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8)
    data = cv2.imencode(suffix, noise)[1].tobytes()
    assert imaging.decode(data, "whole").shape == (64, 64, 3)
    with pytest.raises(BadImage, match="half"):
        imaging.decode(data[: len(data) // 2], "half")
