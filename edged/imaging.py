"""Pictures as bytes, files and arrays: the one home of cv2 besides the OpenCV camera.

Training and serving share `decode` and `resize_into`, so that a part looks the same to both.
Every image is uint8 (H, W, 3) BGR, C-contiguous. Functions are pure and safe on any thread.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

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

MAX_FILE_BYTES = 64 * 1024 * 1024
MAX_SIDE = 16384
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})


def _cv2() -> Any:
    if cv2 is None:
        raise MissingDependency("OpenCV (cv2)", "cpu", "Reading pictures")
    return cv2


def decode(data: bytes | memoryview, name: str) -> Image:
    """Decode an encoded picture; `name` is what the error calls it. Raises BadImage.

    EXIF rotation is ignored: a camera beside a line does not turn, and trainer and server must
    agree. Grey and alpha become BGR.
    """
    if len(data) == 0:
        raise BadImage(f"{name}: the file is empty.")
    if len(data) > MAX_FILE_BYTES:
        raise BadImage(f"{name}: {len(data)} bytes are more than the {MAX_FILE_BYTES} allowed.")
    flags = _cv2().IMREAD_COLOR | _cv2().IMREAD_IGNORE_ORIENTATION
    try:
        image = _cv2().imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:  # header says more pixels than OpenCV allows, or is damaged
        image = None
    if image is None:
        raise BadImage(f"{name}: not a readable picture (damaged, or not JPEG or PNG).")
    if max(image.shape[:2]) > MAX_SIDE:
        height, width = image.shape[:2]
        raise BadImage(f"{name}: {width}x{height} pixels; {MAX_SIDE} a side are allowed.")
    return np.ascontiguousarray(image)


def read(path: Path) -> Image:
    """Decode a picture file. Raises BadImage, also when the file cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror}).") from error
    return decode(data, str(path))


def resize_into(image: Image, out: Image) -> None:
    """Scale uint8 (H, W, 3) into `out`, a uint8 (h, w, 3) row of the engine's buffer, in place.

    Area averaging when the picture shrinks (no aliasing), linear when it grows.
    """
    height, width = out.shape[:2]
    if image.shape[:2] == (height, width):
        np.copyto(out, image)
        return
    shrinks = image.shape[0] >= height and image.shape[1] >= width
    mode = _cv2().INTER_AREA if shrinks else _cv2().INTER_LINEAR
    _cv2().resize(image, (width, height), dst=out, interpolation=mode)


def write_png(path: Path, image: npt.NDArray[np.uint8]) -> None:
    """Write uint8 (H, W, 3) BGR or (H, W) grey as PNG, whole or not at all."""
    ok, data = _cv2().imencode(".png", image)
    if not ok:
        raise BadImage(f"{path}: the picture cannot be encoded as PNG.")
    part = path.with_suffix(path.suffix + ".part")
    part.write_bytes(data.tobytes())
    part.replace(path)


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
    alpha = np.clip((level - 0.2) * 2.0, 0.0, 0.6)[..., None]
    blended = image * (1.0 - alpha) + colours * alpha
    return np.ascontiguousarray(blended.astype(np.uint8))
