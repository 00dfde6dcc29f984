"""Pictures as bytes, files and arrays: the one home of cv2 besides the OpenCV camera.

Training and serving share `decode_for` and `resize_into`, so that a part looks the same to both.
Every image is uint8 (H, W, 3) BGR, C-contiguous. Functions are pure and safe on any thread.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.errors import BadImage, MissingDependency
from edged.core.types import Floats, Image

if TYPE_CHECKING:
    import cv2
else:
    try:
        import cv2
    except ImportError:  # the message must name the extra, not the module
        cv2 = None

# Every failure becomes an exception here or in the camera; OpenCV's own lines on standard error
# would only repeat it, and may show an RTSP password. Whoever sets the variable sees them again.
if cv2 is not None and "OPENCV_LOG_LEVEL" not in os.environ:
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_SIDE = 16384
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})

FILTERS = hasattr(cv2, "IMWRITE_PNG_FILTER")
"""Whether this OpenCV lets one choose (5 does, and 4.11 and newer)."""

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
# In entropy-coded data FF is followed by 00, a restart marker or a fill byte, else it is a marker.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A decoder that halves cuts frequencies off, which rings; averaging what is still twice too large
# takes most of that away.
_SPARE = 2


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture as it was decoded, perhaps at a smaller scale, and the size of its file.

    image: uint8 (h, w, 3) BGR, C-contiguous; shape: (height, width) of the whole picture, in
    pixels, never less than the image's.
    """

    image: Image
    shape: tuple[int, int]

    @classmethod
    def whole(cls, image: Image) -> Decoded:
        """Of an image that is at full size: uint8 (H, W, 3) BGR."""
        height, width = image.shape[:2]
        return cls(image, (height, width))


def _cv2() -> Any:
    if cv2 is None:
        raise MissingDependency("OpenCV (cv2)", "cpu", "Reading pictures")
    return cv2


def version() -> str:
    """Of the library that decodes and scales. Raises MissingDependency."""
    return str(_cv2().__version__)


def camera_backends() -> dict[str, str]:
    """What this OpenCV was built with, of what cameras need. Raises MissingDependency."""
    built = _cv2().getBuildInformation()
    found = {}
    for name, word in (("gstreamer", "GStreamer"), ("ffmpeg", "FFMPEG"), ("v4l2", "v4l/v4l2")):
        line = re.search(rf"^\s*{word}:\s*(.+)$", built, re.M)
        found[name] = line[1].strip() if line else "not told"
    return found


def decode(data: bytes | memoryview, name: str, checked: bool = False) -> Image:
    """Decode an encoded picture; `name` is what the error calls it. Raises BadImage.

    EXIF rotation is ignored: a camera beside a line does not turn, and trainer and server must
    agree. Grey and alpha become BGR. A file that ends too early is BadImage: decoders may fill
    what is missing with grey, which is no view of the part. checked: `measured` took it already.
    """
    return _decode(data, name, None, checked).image


def decode_for(data: bytes | memoryview, name: str, size: tuple[int, int]) -> Decoded:
    """Decode a picture that will be scaled to `size`, (height, width) in pixels, by `resize_into`.

    A JPEG much larger than that is decoded at a half, a quarter or an eighth of its scale, which
    takes a third of the time: the smallest of these with both sides at least twice those of
    `size`. Otherwise as `decode`, also in what raises BadImage.
    """
    return _decode(data, name, size)


def measured(data: bytes, name: str) -> tuple[int, int] | None:
    """(height, width) of a PNG or JPEG, undecoded; None of any other bytes.

    Raises BadImage for one that stops early.
    """
    jpeg = _check_structure(data, name)
    if jpeg is not None:
        return jpeg
    if data.startswith(_PNG) and len(data) >= 24:
        return _number(data, 20, 4), _number(data, 16, 4)
    return None


def _decode(
    data: bytes | memoryview, name: str, size: tuple[int, int] | None, checked: bool = False
) -> Decoded:
    if len(data) == 0:
        raise BadImage(f"{name}: the file is empty.")
    if len(data) > MAX_FILE_BYTES:
        raise BadImage(f"{name}: more than the {MAX_FILE_BYTES} bytes allowed.")
    shape = None if checked else _check_structure(data, name)
    reduction = 1 if shape is None or size is None else _reduction(shape, size)
    try:
        image = _cv2().imdecode(np.frombuffer(data, np.uint8), _flags(reduction))
    except cv2.error:  # header says more pixels than OpenCV allows, or is damaged
        image = None
    if image is None:
        raise BadImage(
            f"{name}: not a readable picture (damaged, or of a kind that is not known here)."
        )
    _check_size(image.shape[1], image.shape[0], name)
    found = Decoded.whole(np.ascontiguousarray(image))
    return found if shape is None or reduction == 1 else Decoded(found.image, shape)


def _reduction(shape: tuple[int, int], size: tuple[int, int]) -> int:
    """By what to divide a JPEG's sides, 1, 2, 4 or 8, so that they stay _SPARE times `size`."""
    for reduction in (8, 4, 2):
        reduced = (-(-side // reduction) for side in shape)  # rounded up, as the decoder does
        if all(have >= _SPARE * want for have, want in zip(reduced, size, strict=True)):
            return reduction
    return 1


def _flags(reduction: int) -> int:
    cv = _cv2()
    color = {
        1: cv.IMREAD_COLOR,
        2: cv.IMREAD_REDUCED_COLOR_2,
        4: cv.IMREAD_REDUCED_COLOR_4,
        8: cv.IMREAD_REDUCED_COLOR_8,
    }
    return int(color[reduction] | cv.IMREAD_IGNORE_ORIENTATION)


def _check_structure(data: bytes | memoryview, name: str) -> tuple[int, int] | None:
    """Refuse a JPEG or PNG that stops early or claims too many pixels, before it is decoded.

    The (height, width) of a JPEG, None of any other picture.
    """
    head, shape = bytes(data[:8]), None
    if head.startswith(_JPEG):
        shape = _jpeg_shape(data, name)
        complete = shape is not None
    elif head == _PNG:
        complete = _png_ends(data, name)
    else:
        return None
    if not complete:
        raise BadImage(f"{name}: the file is truncated ({len(data)} bytes and no end mark).")
    return shape


def _check_size(width: int, height: int, name: str) -> None:
    if max(width, height) > MAX_SIDE:
        raise BadImage(f"{name}: {width}x{height} pixels; {MAX_SIDE} a side are allowed.")


def _jpeg_shape(data: bytes | memoryview, name: str) -> tuple[int, int] | None:
    """The frame's (height, width), zeros without one; None unless an end follows the last scan.

    Embedded thumbnails do not count: they lie inside segments.
    """
    at, scanned, height, width = 2, False, 0, 0
    while True:
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            return None
        marker, at = data[found.start() + 1], found.end()
        if marker == 0xD9:
            return (height, width) if scanned else None
        if at + 2 > len(data):
            return None
        if marker in _JPEG_FRAMES and at + 7 <= len(data):
            height, width = _number(data, at + 3, 2), _number(data, at + 5, 2)
            _check_size(width, height, name)
        scanned = scanned or marker == 0xDA
        at += _number(data, at, 2)


def _png_ends(data: bytes | memoryview, name: str) -> bool:
    """Whether the chunks lead to IEND."""
    if len(data) >= 24:
        _check_size(_number(data, 16, 4), _number(data, 20, 4), name)
    at = len(_PNG)
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + _number(data, at, 4)
    return False


def _number(data: bytes | memoryview, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "big")


Opener: TypeAlias = Callable[[Path], bytes]
"""Gives a picture file's encoded bytes; raises BadImage."""


def content(path: Path) -> bytes:
    """The Opener of files that lie as they are."""
    try:
        if path.exists() and not path.is_file():
            raise BadImage(f"{path}: is not a file.")  # a pipe would block for ever
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror}).") from error


def read(path: Path, opener: Opener = content) -> Image:
    """Decode a picture file. Raises BadImage, also when the file cannot be read."""
    return decode(opener(path), str(path))


def read_for(path: Path, size: tuple[int, int], opener: Opener = content) -> Decoded:
    """Decode a picture file for (height, width) as `decode_for` does. Raises as `read` does."""
    return decode_for(opener(path), str(path), size)


def resize_into(image: Image, out: Image) -> None:
    """Scale uint8 (H, W, 3) into `out`, a uint8 (h, w, 3) row of the engine's buffer, in place.

    Area averaging when the picture shrinks (no aliasing), linear when it grows. An image may be
    RGB pixels seen backwards (`rgb[..., ::-1]`, rows perhaps padded): they are turned where they
    are few, after scaling, and the outcome is that of a BGR copy to the bit.
    """
    cv = _cv2()
    height, width = out.shape[:2]
    backwards = image.strides[2] < 0
    source = image[..., ::-1] if backwards else image
    if image.shape[:2] == (height, width):
        np.copyto(out, source)
    else:
        shrinks = image.shape[0] >= height and image.shape[1] >= width
        mode = cv.INTER_AREA if shrinks else cv.INTER_LINEAR
        cv.resize(source, (width, height), dst=out, interpolation=mode)
    if backwards:
        cv.cvtColor(out, cv.COLOR_RGB2BGR, dst=out)


def write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write uint8 (H, W, 3) BGR or (H, W) grey as PNG, whole or not at all."""
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(encoded_png(image))
    part.replace(path)


def encoded_png(image: npt.NDArray[np.uint8], drawn: bool = False) -> bytes:
    """uint8 (H, W, 3) BGR or (H, W) grey as the bytes of a PNG.

    drawn: of a few colours in large areas, which cost less without PNG's filters.
    """
    cv = _cv2()
    plain = [cv.IMWRITE_PNG_FILTER, cv.IMWRITE_PNG_FILTER_NONE] if drawn and FILTERS else []
    ok, data = cv.imencode(".png", image, plain)
    if not ok:
        raise BadImage("The picture cannot be encoded as PNG.")
    return bytes(data)


def encoded_jpeg(image: Image) -> bytes:
    """uint8 (H, W, 3) BGR as the bytes of a JPEG."""
    ok, data = _cv2().imencode(".jpg", image)
    if not ok:
        raise BadImage("The picture cannot be encoded as JPEG.")
    return bytes(data)


def enlarged(layer: Floats, height: int, width: int) -> Floats:
    """float32 (h, w) at (height, width), linear between the centres of its positions."""
    return np.asarray(_cv2().resize(layer, (width, height), interpolation=1), np.float32)


def mask_overlay(mask: npt.NDArray[np.uint8], colors: Sequence[str]) -> Image:
    """uint8 (H, W) of class indices from 1 as a BGR picture; background white."""
    table = np.full((256, 3), 255, np.uint8)
    for index, color in enumerate(colors, 1):
        table[index] = tuple(bytes.fromhex(color[1:])[::-1])
    picture = np.full((*mask.shape, 3), 255, np.uint8)
    across, down, width, height = _cv2().boundingRect(mask)  # the rest is white as it is
    if width and height:
        place = slice(down, down + height), slice(across, across + width)
        layers = _cv2().cvtColor(mask[place], _cv2().COLOR_GRAY2BGR)
        picture[place] = _cv2().LUT(layers, table[None])
    return picture


def heatmap_overlay(image: Image, heatmap: Floats) -> Image:
    """The picture with its anomaly map over it: clear below half the limit, red above it.

    heatmap: float32 (h, w), 1.0 = the pixel limit; never stretched per image, so that a good
    part does not glow.
    """
    cv = _cv2()
    height, width = image.shape[:2]
    heat = cv.resize(np.clip(heatmap, 0.0, 2.0), (width, height), interpolation=cv.INTER_CUBIC)
    level = np.clip(heat / 2.0, 0.0, 1.0)
    colours = cv.applyColorMap((level * 255).astype(np.uint8), cv.COLORMAP_JET)
    alpha = np.clip((heat - 0.5) * 1.2, 0.0, 0.6)[..., None]
    blended = image * (1.0 - alpha) + colours * alpha
    return np.ascontiguousarray(blended.astype(np.uint8))


def as_bgr(image: npt.NDArray[Any]) -> Image:
    """uint8 (H, W) or (H, W, 1, 3 or 4) as contiguous BGR. Raises BadImage."""
    if image.dtype != np.uint8:
        raise BadImage(f"a picture of {image.dtype} values; 8 bits a channel are needed.")
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.shape[2] not in (1, 3, 4):
        raise BadImage(f"an array of shape {image.shape} is no picture.")
    if image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[..., :3])


def warp(
    layer: npt.NDArray[Any], matrix: npt.NDArray[np.float64], width: int, height: int
) -> npt.NDArray[Any]:
    """Move uint8 or float32 (h, w[, C]) by the forward 2x3 `matrix`; linear, zero outside.

    Returns (height, width[, C]) of the same type.
    """
    return np.asarray(_cv2().warpAffine(layer, matrix, (width, height)))
