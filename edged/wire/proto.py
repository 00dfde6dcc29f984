"""Values of core as protobuf messages, and a client's bitmap as an image. Pure functions.

    image_from_rgb          packed or padded RGB888 rows -> the BGR image that engines take
    detect_anomaly_result   Verdict -> what the Edge Agent answers
    inspection              Inspection -> a record of edged's own interface
    inspection_from_record  the record that wire.results.full wrote -> the same

Owns how these messages are filled. Must not do input or output, nor know a server.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import BadImage, MissingDependency
from edged.core.protocols import JournalEntry
from edged.core.types import Image, Inspection, NoVerdict, Reason, Verdict

try:
    from edged.wire.pb import edge_agent_pb2, results_pb2
except ImportError as error:
    raise MissingDependency("protobuf", "grpc", "The gRPC front door") from error

MIN_SIDE, MAX_SIDE = 64, 4096
MAX_PADDING = 4095
"""Bytes at the end of a row: rows may be aligned, at most to a page of memory."""

NO_PIXELS = "The bitmap holds no pixels: send byte_data or shared_memory_handle."

# The Edge Agent's own palette: background, then the classes of defect.
PALETTE = (
    "#FFFFFF", "#23A436", "#14A3B3", "#F76902", "#9380FF", "#BD10E0", "#467CE6", "#A09308",
    "#0094BD", "#CC7700", "#5856D6", "#D61CB0", "#007AFF", "#8A6E00", "#2CA02C",
)  # fmt: skip


def check_sides(width: int, height: int) -> None:
    """Raise BadImage unless both sides are within the Edge Agent's limits."""
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise BadImage(
            f"The bitmap is {width}x{height} pixels; "
            f"each side must be {MIN_SIDE} to {MAX_SIDE} pixels.",
            "bitmap.height" if MIN_SIDE <= width <= MAX_SIDE else "bitmap.width",
        )


def row_bytes(width: int, height: int, size: int) -> int:
    """Bytes from one row to the next, when `size` bytes hold the whole bitmap.

    Rows may be padded at their end, as GStreamer does. Raises BadImage.
    """
    check_sides(width, height)
    stride, rest = divmod(size, height)
    if rest or not 3 * width <= stride <= 3 * width + MAX_PADDING:
        raise BadImage(
            f"The bitmap has {size} bytes; {width}x{height} pixels of RGB888 are "
            f"{width * height * 3} bytes, or more if each row is padded at its end.",
            "bitmap.shared_memory_handle.size",
        )
    return stride


def image_from_rgb(width: int, height: int, pixels: bytes | memoryview, stride: int = 0) -> Image:
    """RGB888 rows as uint8 (height, width, 3) BGR, read-only: the same memory, seen backwards.

    Not C-contiguous; `imaging.resize_into` takes it as it is, and turns the colours where they are
    few. `pixels` must not change any more.
    stride: bytes from one row to the next; 0 = packed, and the length must fit exactly.
    Raises BadImage with a sentence.
    """
    check_sides(width, height)
    if not len(pixels):
        raise BadImage(NO_PIXELS, "bitmap.data")
    expected = height * (stride or 3 * width)
    if len(pixels) != expected:
        raise BadImage(
            f"The bitmap has {len(pixels)} bytes; {width}x{height} pixels of RGB888 are "
            f"{expected} bytes.",
            "bitmap.byte_data",
        )
    rows = np.frombuffer(pixels, np.uint8).reshape(height, -1)
    image = rows[:, : 3 * width].reshape(height, width, 3)[..., ::-1]
    image.setflags(write=False)
    return image


def mask_rgb(verdict: Verdict) -> npt.NDArray[np.uint8] | None:
    """The mask as RGB888, uint8 (H, W, 3), C-contiguous; None if the verdict has none.

    `anomalies` names the classes that have pixels, in the order of their indices: that is what
    gives a class its colour. Where the two do not fit together, the palette does.
    """
    mask = verdict.mask
    if mask is None:
        return None
    present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
    colours = [anomaly.color for anomaly in verdict.anomalies]
    if len(colours) != len(present):
        # A class of defect is never given the colour of the background.
        colours = [PALETTE[1 + (i - 1) % (len(PALETTE) - 1) if i else 0] for i in present]
    table = np.full((256, 3), 255, np.uint8)
    for index, colour in zip(present, colours, strict=True):
        table[index] = tuple(bytes.fromhex(colour.removeprefix("#")))
    return np.ascontiguousarray(table[mask])


def detect_anomaly_result(verdict: Verdict) -> edge_agent_pb2.DetectAnomalyResult:
    """The Edge Agent's answer, without the mask: where that goes is the caller's to say."""
    return edge_agent_pb2.DetectAnomalyResult(
        is_anomalous=verdict.is_anomalous,
        confidence=verdict.confidence,
        anomaly_score=verdict.score,
        anomaly_threshold=verdict.threshold,
        anomalies=[
            edge_agent_pb2.Anomaly(
                name=_text(anomaly.name),
                pixel_anomaly=edge_agent_pb2.PixelAnomaly(
                    total_percentage_area=anomaly.area, hex_color=anomaly.color
                ),
            )
            for anomaly in verdict.anomalies
        ],
    )


def inspection(record: Inspection, position: int = 0, run: str = "") -> results_pb2.Inspection:
    """The record of one part; it holds no pixels.

    position, run: its place in the stream, and what counted it.
    """
    frame, outcome, timing = record.frame, record.outcome, record.timing
    message = results_pb2.Inspection(
        position=position,
        run=run,
        id=record.id,
        camera=frame.station,
        station=frame.station,
        sequence=frame.sequence,
        name=_text(frame.name or ""),
        part=_text(frame.trigger.part) if frame.trigger else "",
        simulated=frame.simulated,
        timing=results_pb2.Timing(
            queue_seconds=timing.queue_seconds,
            infer_seconds=timing.infer_seconds,
            total_seconds=timing.total_seconds,
        ),
        engine=record.engine,
        late_of=record.late_of,
        ok=record.ok,
        code=record.code,
    )
    message.captured_at.FromDatetime(frame.captured_at)
    if record.model is not None:
        model = record.model
        message.model.CopyFrom(
            results_pb2.Model(name=model.name, version=model.version, sha256=model.sha256)
        )
    if frame.trigger is not None:
        trigger = frame.trigger
        message.trigger.CopyFrom(
            results_pb2.Trigger(
                part=_text(trigger.part), sequence=trigger.sequence, kind=trigger.kind
            )
        )
    if isinstance(outcome, NoVerdict):
        message.no_verdict.CopyFrom(
            results_pb2.NoVerdict(
                reason=outcome.reason.word, code=outcome.reason.code, detail=_text(outcome.detail)
            )
        )
    else:
        message.verdict.CopyFrom(_verdict(outcome))
    if frame.truth is not None:
        message.truth.is_anomalous = frame.truth.is_anomalous
        message.truth.defect = _text(frame.truth.defect or "")
    return message


def _verdict(verdict: Verdict) -> results_pb2.Verdict:
    return results_pb2.Verdict(
        is_anomalous=verdict.is_anomalous,
        confidence=verdict.confidence,
        score=verdict.score,
        threshold=verdict.threshold,
        anomalies=[
            results_pb2.Anomaly(name=_text(a.name), area=a.area, color=a.color)
            for a in verdict.anomalies
        ],
    )


def inspection_from_record(entry: JournalEntry, run: str = "") -> results_pb2.Inspection:
    """The same from the record that `wire.results.full` wrote, at its position in the journal.

    Records of older versions lack keys: what they say no word of stays empty, and `ok` and `code`
    are found from the rest. Raises ValueError for what is no such record.
    """
    record = entry.record
    try:
        message = _from_record(record)
    except (KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"the record at position {entry.position} is damaged") from error
    message.position, message.run, message.has_picture = entry.position, run, entry.picture
    return message


def _from_record(record: Mapping[str, Any]) -> results_pb2.Inspection:
    trigger = record.get("trigger") or {}
    station = record.get("station", record["camera"])
    image = record.get("image") or {}
    message = results_pb2.Inspection(
        id=record["id"],
        camera=station,
        station=station,
        sequence=record["seq"],
        name=_text(record.get("name", "")),
        part=_text(record.get("part", trigger.get("part", ""))),
        simulated=record["simulated"],
        timing=results_pb2.Timing(**_known(results_pb2.Timing, record.get("timing", {}))),
        engine=record.get("engine", ""),
        image_sha256=record.get("image_sha256", image.get("sha256", "")) or "",
        late_of=record.get("late_of", 0),
    )
    message.captured_at.FromDatetime(datetime.fromisoformat(record["captured_at"]))
    if record.get("model"):
        message.model.CopyFrom(results_pb2.Model(**_known(results_pb2.Model, record["model"])))
    if trigger:
        message.trigger.CopyFrom(
            results_pb2.Trigger(
                part=_text(trigger.get("part", "")),
                sequence=trigger.get("seq", 0),
                kind=trigger.get("kind", ""),
            )
        )
    if "truth" in record:
        message.truth.is_anomalous = record["truth"]["anomalous"]
        message.truth.defect = _text(record["truth"].get("defect") or "")
    code = _outcome_from(record, message)
    message.code = record.get("code", code)
    message.ok = record.get("ok", not code and not message.late_of) and _passed(message)
    return message


def _outcome_from(record: Mapping[str, Any], message: results_pb2.Inspection) -> int:
    """Fill in the outcome; the number of the reason why it counts for none, or 0."""
    if "reason" in record:
        word = record["reason"]
        code = next((reason.code for reason in Reason if reason.word == word), 0)
        message.no_verdict.CopyFrom(
            results_pb2.NoVerdict(reason=word, code=code, detail=_text(record.get("detail", "")))
        )
        return code
    result = record["DetectAnomalyResult"]
    message.verdict.CopyFrom(
        results_pb2.Verdict(
            is_anomalous=result["IsAnomalous"],
            confidence=result["Confidence"],
            score=record["score"],
            threshold=record["threshold"],
            anomalies=[
                results_pb2.Anomaly(
                    name=_text(a["Name"]),
                    area=a["PixelAnomaly"]["TotalPercentageArea"],
                    color=a["PixelAnomaly"]["Color"],
                )
                for a in result.get("Anomalies", ())
            ],
        )
    )
    return Reason.SIMULATED.code if message.simulated else 0


def _passed(message: results_pb2.Inspection) -> bool:
    return message.HasField("verdict") and not message.verdict.is_anomalous


def _known(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the message has fields for."""
    return {name: values[name] for name in kind.DESCRIPTOR.fields_by_name if name in values}


def _text(value: str) -> str:
    # File names may hold bytes that are no UTF-8; protobuf refuses them, a record must not be lost.
    return value.encode("utf-8", "replace").decode("utf-8")
