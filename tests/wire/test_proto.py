from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from edged.core.errors import BadImage
from edged.core.protocols import JournalEntry
from edged.core.types import (
    Anomaly,
    Frame,
    Inspection,
    ModelRef,
    NoVerdict,
    Reason,
    Timing,
    Trigger,
    Truth,
    Verdict,
)
from edged.wire import proto, results

AT = datetime(2026, 11, 24, 12, 30, 15, 250000, tzinfo=timezone.utc)


def frame(**changes: object) -> Frame:
    facts: dict[str, object] = {
        "station": "top",
        "sequence": 7,
        "captured_ns": 1_000_000_000,
        "captured_at": AT,
        "image": np.zeros((64, 64, 3), np.uint8),
    }
    return Frame(**{**facts, **changes})  # type: ignore[arg-type]


def rgb(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_bitmap_becomes_a_read_only_bgr_image_in_the_same_memory() -> None:
    pixels = rgb(70, 64)
    data = pixels.tobytes()
    image = proto.image_from_rgb(70, 64, data)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))
    assert image.shape == (64, 70, 3)
    assert image.dtype == np.uint8
    assert not image.flags.writeable
    assert np.array_equal(image, pixels[..., ::-1])


def test_padding_at_the_end_of_rows_is_left_out() -> None:
    pixels = rgb(65, 64)
    padded = np.full((64, 196), 255, np.uint8)
    padded[:, :195] = pixels.reshape(64, 195)
    stride = proto.row_bytes(65, 64, padded.nbytes)
    assert stride == 196
    image = proto.image_from_rgb(65, 64, memoryview(padded.tobytes()), stride)
    assert np.array_equal(image, pixels[..., ::-1])


@pytest.mark.parametrize("size", [64 * 64 * 3 - 1, 64 * 64 * 3 + 1, 0, 64 * (64 * 3 + 4096)])
def test_a_size_that_is_no_whole_number_of_plausible_rows_is_refused(size: int) -> None:
    with pytest.raises(BadImage, match="64x64 pixels of RGB888 are 12288 bytes"):
        proto.row_bytes(64, 64, size)


@pytest.mark.parametrize(
    ("width", "height"), [(63, 64), (64, 63), (4097, 64), (64, 4097), (0, 0), (-64, -64)]
)
def test_sides_outside_64_to_4096_are_refused(width: int, height: int) -> None:
    with pytest.raises(BadImage, match="64 to 4096"):
        proto.image_from_rgb(width, height, b"x" * max(0, width * height * 3))


@pytest.mark.parametrize("side", [64, 4096])
def test_the_limits_themselves_are_accepted(side: int) -> None:
    assert proto.image_from_rgb(side, 64, bytes(side * 64 * 3)).shape == (64, side, 3)


@pytest.mark.parametrize("count", [64 * 64 * 3 - 1, 64 * 64 * 3 + 1, 64 * 64, 1])
def test_a_wrong_number_of_bytes_is_refused_and_both_numbers_are_named(count: int) -> None:
    with pytest.raises(BadImage, match=f"has {count} bytes; 64x64 pixels of RGB888 are 12288"):
        proto.image_from_rgb(64, 64, bytes(count))


def test_an_empty_bitmap_is_refused() -> None:
    with pytest.raises(BadImage, match="no pixels"):
        proto.image_from_rgb(64, 64, b"")


def test_a_verdict_becomes_the_edge_agents_result() -> None:
    anomalies = (Anomaly("background", 0.75, "#FFFFFF"), Anomaly("crack", 0.25, "#23A436"))
    result = proto.detect_anomaly_result(Verdict(True, 0.875, 0.875, 0.5, anomalies))
    assert result.is_anomalous
    assert (result.confidence, result.anomaly_score, result.anomaly_threshold) == (
        0.875,
        0.875,
        0.5,
    )
    assert [a.name for a in result.anomalies] == ["background", "crack"]
    assert result.anomalies[1].pixel_anomaly.total_percentage_area == 0.25
    assert result.anomalies[1].pixel_anomaly.hex_color == "#23A436"
    assert not result.HasField("anomaly_mask")


def test_a_mask_takes_the_colours_of_the_classes_that_are_present() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[0, 0] = 3
    anomalies = (Anomaly("background", 0.9, "#FFFFFF"), Anomaly("dent", 0.1, "#010203"))
    pixels = proto.mask_rgb(Verdict(True, 0.9, 0.9, 0.5, anomalies, mask=mask))
    assert pixels is not None
    assert pixels.shape == (64, 64, 3)
    assert pixels.flags.c_contiguous
    assert pixels[0, 0].tolist() == [1, 2, 3]
    assert (pixels.reshape(-1, 3)[1:] == 255).all()


def test_a_mask_without_matching_anomalies_takes_the_palette_and_no_defect_is_white() -> None:
    mask = np.arange(256, dtype=np.uint8).repeat(16).reshape(64, 64)
    pixels = proto.mask_rgb(Verdict(True, 0.9, 0.9, 0.5, mask=mask))
    assert pixels is not None
    white = (pixels == 255).all(axis=2)
    assert np.array_equal(white, mask == 0)
    assert pixels[0, 16].tolist() == [0x23, 0xA4, 0x36]


def test_a_verdict_without_mask_has_none() -> None:
    assert proto.mask_rgb(Verdict(False, 0.9, 0.1, 0.5)) is None


def test_an_inspection_carries_the_whole_record() -> None:
    record = Inspection(
        frame(
            trigger=Trigger("P-1", 3, 0),
            name="a.png",
            simulated=True,
            truth=Truth(True, "scratch"),
        ),
        ModelRef("screws", "2", "ab" * 32),
        Verdict(True, 0.75, 0.75, 0.5, (Anomaly("scratch", 0.125, "#23A436"),)),
        Timing(1_000_000_000, 1_500_000_000, 2_000_000_000, 2_250_000_000, 3_000_000_000),
        id="f" * 32,
    )
    message = proto.inspection(record, 9, "life")
    assert (message.position, message.run, message.id) == (9, "life", "f" * 32)
    assert (message.camera, message.sequence, message.name, message.part) == (
        "top",
        7,
        "a.png",
        "P-1",
    )
    assert message.simulated
    assert message.captured_at.ToDatetime(tzinfo=timezone.utc) == AT
    assert (message.model.name, message.model.version) == ("screws", "2")
    assert message.WhichOneof("outcome") == "verdict"
    assert message.verdict.is_anomalous
    assert (message.verdict.score, message.verdict.threshold) == (0.75, 0.5)
    assert message.verdict.anomalies[0].area == 0.125
    assert message.timing.queue_seconds == 0.5
    assert message.timing.infer_seconds == 0.25
    assert message.timing.total_seconds == 2.0
    assert (message.truth.is_anomalous, message.truth.defect) == (True, "scratch")


def test_a_good_verdict_is_present_although_all_its_flags_are_the_default() -> None:
    record = Inspection(frame(), None, Verdict(False, 0.0, 0.0, 0.0), Timing(0))
    message = proto.inspection(record)
    assert message.WhichOneof("outcome") == "verdict"
    assert not message.HasField("model")
    assert not message.HasField("truth")


def test_a_part_that_was_not_judged_has_no_verdict() -> None:
    record = Inspection(frame(), None, NoVerdict(Reason.TIMEOUT, "too late"), Timing(0))
    message = proto.inspection(record)
    assert message.WhichOneof("outcome") == "no_verdict"
    assert (message.no_verdict.reason, message.no_verdict.code) == ("timeout", 3)
    assert message.no_verdict.detail == "too late"


def test_capture_time_of_another_zone_is_converted() -> None:
    zone = timezone(timedelta(hours=5))
    record = Inspection(
        frame(captured_at=AT.astimezone(zone)), None, NoVerdict(Reason.SHUTDOWN), Timing(0)
    )
    assert proto.inspection(record).captured_at.ToDatetime(tzinfo=timezone.utc) == AT


def test_a_file_name_that_is_no_utf_8_does_not_lose_the_record() -> None:
    record = Inspection(frame(name="bad-\udcff.png"), None, NoVerdict(Reason.OVERLOAD), Timing(0))
    assert proto.inspection(record).name == "bad-?.png"


def judged(**changes: object) -> Inspection:
    facts: dict[str, object] = {
        "frame": frame(
            trigger=Trigger("P-1", 3, 0, kind="grpc"), name="a.png", truth=Truth(True, "scratch")
        ),
        "model": ModelRef("screws", "2", "ab" * 32),
        "outcome": Verdict(True, 0.75, 0.75, 0.5, (Anomaly("scratch", 0.125, "#23A436"),)),
        "timing": Timing(1_000_000_000, 1_500_000_000, 2_000_000_000, 2_250_000_000, 3_000_000_000),
        "engine": "onnxruntime cpu fp32",
    }
    return Inspection(**{**facts, **changes})  # type: ignore[arg-type]


RECORDS = {
    "rejected": judged(),
    "good": judged(outcome=Verdict(False, 0.75, 0.25, 0.5)),
    "late": judged(outcome=Verdict(False, 0.75, 0.25, 0.5), late_of=7),
    "simulated": judged(frame=frame(simulated=True), outcome=Verdict(False, 0.75, 0.25, 0.5)),
    "not judged": judged(outcome=NoVerdict(Reason.CAMERA_LOST, "gone"), model=None, engine=""),
}
NEWER = ("station", "engine", "image_sha256", "trigger", "late_of", "ok", "code")


def newer(record: Inspection) -> dict[str, object]:
    """What `full` says, and what newer ones say beside it."""
    trigger = record.frame.trigger
    told = trigger and {"part": trigger.part, "seq": trigger.sequence, "kind": trigger.kind}
    return {
        **results.full(record),
        "station": record.frame.station,
        "engine": record.engine,
        "trigger": told,
        "late_of": record.late_of,
        "ok": record.ok,
        "code": record.code,
    }


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_of_the_journal_becomes_the_same_message(kind: str) -> None:
    record = RECORDS[kind]
    entry = JournalEntry(9, {**newer(record), "image_sha256": "cd" * 32}, picture=True)
    message = proto.inspection_from_record(entry)
    assert (message.position, message.run, message.has_picture) == (9, "", True)
    assert message.image_sha256 == "cd" * 32
    message.has_picture, message.image_sha256 = False, ""
    assert message == proto.inspection(record, 9)


@pytest.mark.parametrize("kind", ["rejected", "good", "simulated", "not judged"])
def test_a_record_without_the_newer_keys_says_what_can_be_found_from_the_rest(kind: str) -> None:
    record = RECORDS[kind]
    older = {key: value for key, value in newer(record).items() if key not in NEWER}
    message = proto.inspection_from_record(JournalEntry(9, older))
    assert (message.ok, message.code) == (record.ok, record.code)
    assert (message.camera, message.station, message.part) == (
        "top",
        "top",
        "P-1" if record.frame.trigger else "",
    )
    assert message.WhichOneof("outcome") == proto.inspection(record).WhichOneof("outcome")


@pytest.mark.parametrize("key", ["id", "camera", "seq", "captured_at", "score"])
def test_a_record_that_lacks_what_all_have_is_damaged(key: str) -> None:
    record = newer(RECORDS["good"])
    del record[key]
    record.pop("station")
    with pytest.raises(ValueError, match="position 9 is damaged"):
        proto.inspection_from_record(JournalEntry(9, record))


def test_a_record_that_claims_ok_for_an_anomaly_is_not_believed() -> None:
    record = {**newer(RECORDS["rejected"]), "ok": True}
    assert not proto.inspection_from_record(JournalEntry(9, record)).ok
