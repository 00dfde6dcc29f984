"""Encoded pictures at the scale that is needed: what is decoded, and what is said of the file."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from edged.cameras.simulation.parts import render
from edged.core.errors import BadImage
from edged.core.types import Image
from edged.wire import imaging


def noisy(height: int, width: int) -> Image:
    """A rendered part as a camera with a noisy sensor sees it."""
    image, _ = render("machined", 1, 0, width, height, 0.0)
    noise = np.random.default_rng(2).normal(0, 6, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def photographed(data: bytes, thumbnail: bytes) -> bytes:
    """The JPEG as a camera held upright writes it: turned by EXIF, with a small copy inside."""
    entry = struct.pack("<HHHIHHI", 1, 0x112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entry + thumbnail
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]


@pytest.mark.parametrize(
    ("size", "reduction"),
    [
        ((1200, 1600), 1),
        ((600, 800), 1),
        ((151, 200), 1),
        ((150, 201), 1),
        ((150, 200), 2),
        ((76, 100), 2),
        ((75, 101), 2),
        ((75, 100), 4),
        ((38, 50), 4),
        ((37, 51), 4),
        ((37, 50), 8),
        ((1, 1), 8),
    ],
)
def test_a_jpeg_is_reduced_as_far_as_both_sides_stay_twice_those_wanted(
    size: tuple[int, int], reduction: int
) -> None:
    found = imaging.decode_for(jpeg(noisy(600, 800)), "a.jpg", size)
    assert found.image.shape == (600 // reduction, 800 // reduction, 3)
    assert found.shape == (600, 800)
    assert found.image.flags.c_contiguous and found.image.dtype == np.uint8


def test_sides_that_do_not_divide_are_rounded_up_and_the_files_own_are_told() -> None:
    data = jpeg(noisy(601, 799))
    assert imaging.decode_for(data, "a.jpg", (38, 50)).image.shape == (76, 100, 3)
    assert imaging.decode_for(data, "a.jpg", (38, 50)).shape == (601, 799)


@pytest.mark.parametrize("kind", ["grey", "progressive", "restarts", "turned"])
def test_every_kind_of_jpeg_is_reduced_to_what_decoding_it_whole_shows(kind: str) -> None:
    image = noisy(480, 640)
    data = {
        "grey": jpeg(image[..., 1]),
        "progressive": jpeg(image, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restarts": jpeg(image, cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
        "turned": photographed(jpeg(image), jpeg(image[:60, :80])),
    }[kind]
    found, whole = imaging.decode_for(data, kind, (60, 80)), imaging.decode(data, kind)
    assert (found.image.shape, found.shape, whole.shape) == (
        (120, 160, 3),
        (480, 640),
        (480, 640, 3),
    )
    assert difference(found.image, whole, (60, 80)) < 1.0


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_a_picture_that_is_no_jpeg_is_decoded_at_full_size(suffix: str) -> None:
    image = noisy(240, 320)
    found = imaging.decode_for(cv2.imencode(suffix, image)[1].tobytes(), "a", (20, 30))
    assert np.array_equal(found.image, image)
    assert found.shape == (240, 320)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.999])
def test_a_large_jpeg_that_stops_early_is_refused_however_small_it_would_be_decoded(
    keep: float, tmp_path: Path
) -> None:
    data = jpeg(noisy(600, 800))
    (tmp_path / "cut.jpg").write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(BadImage, match=r"cut\.jpg: the file is truncated"):
        imaging.read_for(tmp_path / "cut.jpg", (37, 50))


def test_a_jpeg_with_a_side_too_long_is_refused_by_its_own_size_not_the_reduced_one() -> None:
    data = jpeg(np.zeros((16, imaging.MAX_SIDE + 1, 3), np.uint8))
    with pytest.raises(BadImage, match=f"{imaging.MAX_SIDE + 1}x16 pixels"):
        imaging.decode_for(data, "long.jpg", (1, 1))


def test_a_file_is_read_for_a_size_as_its_bytes_are_and_a_missing_one_is_named(
    tmp_path: Path,
) -> None:
    data = jpeg(noisy(480, 640))
    (tmp_path / "a.jpg").write_bytes(data)
    found = imaging.read_for(tmp_path / "a.jpg", (60, 80))
    assert found.shape == (480, 640)
    assert np.array_equal(found.image, imaging.decode_for(data, "a", (60, 80)).image)
    with pytest.raises(BadImage, match=r"gone\.jpg: cannot be read"):
        imaging.read_for(tmp_path / "gone.jpg", (60, 80))


def difference(reduced: Image, whole: Image, size: tuple[int, int]) -> float:
    """Mean absolute difference of two pictures scaled to `size`, in grey levels of 255."""
    scaled = [np.empty((*size, 3), np.uint8) for _ in range(2)]
    imaging.resize_into(reduced, scaled[0])
    imaging.resize_into(whole, scaled[1])
    return float(np.abs(scaled[0].astype(int) - scaled[1]).mean())


@pytest.mark.parametrize(
    ("size", "height"), [((704, 928), 1500), ((320, 448), 750), ((160, 224), 375)]
)
def test_twelve_megapixels_reduced_look_the_same_to_a_model_as_decoded_whole(
    twelve_megapixels: tuple[bytes, Image], size: tuple[int, int], height: int
) -> None:
    data, whole = twelve_megapixels
    found = imaging.decode_for(data, "a.jpg", size)
    assert found.image.shape[0] == height
    assert difference(found.image, whole, size) < 1.2  # by nearest pixels: 2.0 to 4.9


@pytest.fixture(scope="module")
def twelve_megapixels() -> tuple[bytes, Image]:
    data = jpeg(np.tile(noisy(750, 1000), (4, 4, 1)))  # rendering as much would take long
    return data, imaging.decode(data, "a.jpg")


@pytest.mark.parametrize("size", [(48, 64), (240, 320), (300, 500)])
def test_rgb_seen_backwards_is_scaled_as_its_bgr_copy_is(size: tuple[int, int]) -> None:
    padded = np.random.default_rng(2).integers(0, 256, (240, 963), dtype=np.uint8)
    backwards = padded[:, :960].reshape(240, 320, 3)[..., ::-1]
    seen, wanted = np.empty((*size, 3), np.uint8), np.empty((*size, 3), np.uint8)
    imaging.resize_into(backwards, seen)
    imaging.resize_into(np.ascontiguousarray(backwards), wanted)
    assert np.array_equal(seen, wanted)
