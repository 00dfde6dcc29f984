from __future__ import annotations

import random

import numpy as np
import pytest
from google.protobuf.message import DecodeError

from edged.grpc import framing
from edged.wire.pb import edge_agent_pb2 as pb

PIXELS = np.random.default_rng(1).integers(0, 256, framing.LEAST_BYTES, dtype=np.uint8).tobytes()


def request(**bitmap: object) -> pb.DetectAnomaliesRequest:
    facts = {"width": 70_000, "height": -1, "byte_data": PIXELS, **bitmap}
    handle = pb.SharedMemoryHandle(name="m", size=5)
    return pb.DetectAnomaliesRequest(
        model_component="screws",
        bitmap=pb.Bitmap(**facts),  # type: ignore[arg-type]
        anomaly_mask_params=pb.AnomalyMaskParams(shared_memory_handle_v1=handle),
    )


def whole(found: framing.Detection) -> pb.DetectAnomaliesRequest:
    if found.pixels is not None:
        assert not found.request.bitmap.HasField("byte_data")
        found.request.bitmap.byte_data = bytes(found.pixels)
    return found.request


def test_pixels_stay_in_the_message_and_the_rest_is_as_protobuf_reads_it() -> None:
    data = request().SerializeToString()
    found = framing.read(data)
    assert found.pixels is not None
    assert found.pixels.obj is data
    assert whole(found) == request()


@pytest.mark.parametrize(
    "data",
    [
        request().SerializeToString() * 2,
        request().SerializeToString() + b"\x20\x01",
        request(byte_data=None).SerializeToString() + bytes(0),
        request().SerializeToString() + pb.DetectAnomaliesRequest(
            bitmap=pb.Bitmap(width=3)
        ).SerializeToString(),
    ],
    ids=["twice", "unknown field", "no pixels", "merged"],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_protobuf(data: bytes) -> None:
    found = framing.read(data)
    assert found.pixels is None
    assert whole(found) == pb.DetectAnomaliesRequest.FromString(data)


def test_damaged_messages_are_read_or_refused_as_by_protobuf() -> None:
    dice, good, read = random.Random(3), request().SerializeToString(), 0
    for _ in range(3000):
        copy = bytearray(good)
        for _ in range(dice.randrange(1, 4)):  # where fields begin and end, not in the pixels
            copy[dice.choice((*range(30), *range(len(good) - 20, len(good))))] = dice.randrange(256)
        data = bytes(copy)
        try:
            wanted = pb.DetectAnomaliesRequest.FromString(data)
        except DecodeError:
            with pytest.raises(DecodeError):
                framing.read(data)
            continue
        assert whole(framing.read(data)) == wanted
        read += 1
    assert 100 < read < 2900
