"""DetectAnomalies: a picture's bytes in, its verdict out.

The header's type is checked, and the bytes decide: real clients send a PNG as image/jpeg. A
picture's size must be the training's. Who waits here is one of the door's threads; a full queue is
an answer at once.
"""

from __future__ import annotations

import functools
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    NotFound,
    Resource,
    ShuttingDown,
    WrongState,
)
from edged.core.lifecycle import SERVING, ModelStatus
from edged.core.types import Verdict
from edged.rest.context import Call, Context, check_picture, model_of
from edged.rest.models import hosted_name, status_of
from edged.wire import imaging
from edged.wire.results import detect_anomaly_result

MEDIA_TYPES = ("image/jpeg", "image/png")
PATIENCE = 30.0
"""Seconds; the queue is short, so longer means that an engine hangs."""
ADVICE = {
    ModelStatus.TRAINING: "wait until it is trained, and start it",
    ModelStatus.TRAINING_FAILED: "DescribeModel says why; train another version",
    ModelStatus.STARTING_HOSTING: "wait until it is HOSTED",
    ModelStatus.HOSTING_FAILED: "DescribeModel says why; start it again when that is mended",
}


def detect(context: Context, call: Call) -> dict[str, Any]:
    """Judge one picture with a hosted model."""
    _check_media_type(str(call["ContentType"]))
    data: bytes = call["Body"]
    _, row = model_of(context, call)
    name = f"{row.project}/{row.version}"
    status, _ = status_of(context, row)
    if status not in SERVING:
        advice = ADVICE.get(status, "start it, and wait until it is HOSTED")
        raise WrongState(f"The model {name} is {status.value}: {advice}.", Resource("MODEL", name))
    height, width = shape = check_picture(context.quotas, data, "The image")
    live = context.hosting.hosted(hosted_name(row))
    spec = live.spec if live is not None else None
    if spec is not None and spec.image_size and spec.image_size != shape:
        want = "{1}x{0}".format(*spec.image_size)
        raise InvalidInput(
            f"The image has {width}x{height} pixels; the model {name} was trained on {want}."
        )
    image = imaging.decode(data, "The image", checked=True)
    try:
        inspection = context.hosting.detect(hosted_name(row), image).result(PATIENCE)
    except (NotFound, WrongState):  # it was stopped a moment ago
        raise WrongState(
            f"The model {name} is no longer hosted.", Resource("MODEL", name)
        ) from None
    except FutureTimeoutError:
        raise DeadlineExceeded(f"The image was not judged within {PATIENCE:g} s.") from None
    except CancelledError:
        raise ShuttingDown("edged is stopping.") from None
    verdict = inspection.outcome
    if not isinstance(verdict, Verdict):
        raise DeadlineExceeded("The image was not judged.")
    result = detect_anomaly_result(verdict)
    if verdict.mask is not None:
        classes = spec.classes if spec is not None else ()
        result["AnomalyMask"] = _drawn(verdict.mask, tuple(each.color for each in classes))
    return {"DetectAnomalyResult": result}


def _drawn(mask: npt.NDArray[np.uint8], colors: tuple[str, ...]) -> bytes:
    """The mask as PNG; most parts are good, and all their masks are one white picture."""
    if not mask.any():
        height, width = mask.shape
        return _blank(height, width)
    return imaging.encoded_png(imaging.mask_overlay(mask, colors), drawn=True)


@functools.lru_cache(maxsize=16)
def _blank(height: int, width: int) -> bytes:
    return imaging.encoded_png(np.full((height, width, 3), 255, np.uint8))


def _check_media_type(value: str) -> None:
    """Raise InvalidInput, in the service's own words, unless it is a picture's that is taken."""
    kind = value.partition(";")[0].strip().lower()
    if kind not in MEDIA_TYPES:
        raise InvalidInput(f"content-type must be one of the following. {', '.join(MEDIA_TYPES)}")
