"""Clients as the published samples are, built from their own versions of the interface.

The image client's proto has the mask's handle in field 3. The GStreamer plug-in's has no masks at
all; it keeps one segment, which it lets grow, with rows padded to four bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tests.support.grpc_box import Box, channel, pixels

PACKAGE = "AWS.LookoutVision"
TYPES = {"s": 9, "i": 5, "u": 4, "b": 12, "B": 8, "f": 2}
BITMAP = {
    "width": "i1",
    "height": "i2",
    "byte_data": "b3",
    "shared_memory_handle": "SharedMemoryHandle4",
}
COMMON: dict[str, dict[str, str]] = {
    "SharedMemoryHandle": {"name": "s1", "size": "u2", "offset": "u3"},
    "Bitmap": BITMAP,
    "DetectAnomaliesResponse": {"detect_anomaly_result": "DetectAnomalyResult1"},
    "StartModelRequest": {"model_component": "s1"},
    "StartModelResponse": {"status": "i1"},
    "DescribeModelRequest": {"model_component": "s1"},
    "ModelDescription": {"model_component": "s1", "lookout_vision_model_arn": "s2", "status": "i3"},
    "DescribeModelResponse": {"model_description": "ModelDescription1"},
}
IMAGE_CLIENT: dict[str, dict[str, str]] = {
    **COMMON,
    "AnomalyMaskParams": {"shared_memory_handle": "SharedMemoryHandle3"},
    "DetectAnomaliesRequest": {
        "model_component": "s1", "bitmap": "Bitmap2", "anomaly_mask_params": "AnomalyMaskParams3"
    },
    "DetectAnomalyResult": {"is_anomalous": "B1", "confidence": "f2", "anomaly_mask": "Bitmap3"},
}  # fmt: skip
GSTREAMER: dict[str, dict[str, str]] = {
    **COMMON,
    "DetectAnomaliesRequest": {"model_component": "s1", "bitmap": "Bitmap2"},
    "DetectAnomalyResult": {"is_anomalous": "B1", "confidence": "f2"},
}


def interface(name: str, messages: dict[str, dict[str, str]]) -> dict[str, Any]:
    """Message classes by name, in a pool of their own."""
    file = descriptor_pb2.FileDescriptorProto(name=f"{name}.proto", package=PACKAGE)
    file.syntax = "proto3"
    for message, fields in messages.items():
        made = file.message_type.add(name=message)
        for field, kind in fields.items():
            word, number = kind.rstrip("0123456789"), int(kind[-1])
            added = made.field.add(name=field, number=number, label=1)
            if word in TYPES:
                added.type = TYPES[word]
            else:
                added.type, added.type_name = 11, f".{PACKAGE}.{word}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        message: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.{message}"))
        for message in messages
    }


class Client:
    """Calls the Edge Agent with messages of one interface."""

    def __init__(self, line: grpc.Channel, name: str, messages: dict[str, dict[str, str]]) -> None:
        self.types = interface(name, messages)
        self._line = line

    def call(self, method: str, **fields: Any) -> Any:
        request = self.types[f"{method}Request"](**fields)
        return self._line.unary_unary(
            f"/{PACKAGE}.EdgeAgent/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self.types[f"{method}Response"].FromString,
        )(request, timeout=20)


@contextmanager
def segment(name: str, size: int) -> Iterator[int]:
    """A segment as shm_open(name, O_CREAT | O_RDWR, 0666) makes it: its open file."""
    path = Path("/dev/shm") / name
    file = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        os.ftruncate(file, size)
        yield file
    finally:
        os.close(file)
        path.unlink()


@pytest.fixture
def line(box: Box) -> Iterator[grpc.Channel]:
    with channel(box.targets["unix"]) as opened:
        yield opened


def test_the_image_client_gets_its_mask_in_the_segment_that_field_3_names(
    box: Box, line: grpc.Channel
) -> None:
    box.host.mask = np.ones((64, 64), np.uint8)
    box.host.mask[0, 0] = 0
    client = Client(line, "image_client", IMAGE_CLIENT)
    name = f"edged-sample-mask-{os.getpid()}"
    with segment(name, 64 * 64 * 3) as file:
        answer = client.call(
            "DetectAnomalies",
            model_component="screws",
            bitmap={"width": 64, "height": 64, "byte_data": pixels().tobytes()},
            anomaly_mask_params={"shared_memory_handle": {"name": f"/{name}", "size": 12288}},
        )
        written = np.frombuffer(os.pread(file, 12288, 0), np.uint8).reshape(64, 64, 3)
    mask = answer.detect_anomaly_result.anomaly_mask
    assert (mask.width, mask.height, mask.shared_memory_handle.name) == (64, 64, f"/{name}")
    assert (written[0, 0] == 255).all()
    assert (written[1:] == [0, 0, 255]).all()


def test_the_plug_in_starts_its_model_and_sends_padded_frames_in_a_segment_that_grows(
    box: Box, line: grpc.Channel
) -> None:
    client = Client(line, "plug_in", GSTREAMER)
    # A model that runs already: the plug-in says so and goes on.
    with pytest.raises(grpc.RpcError) as caught:
        client.call("StartModel", model_component="screws")
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    described = client.call("DescribeModel", model_component="screws").model_description
    assert (described.model_component, described.status) == ("screws", 2)
    name = f"gstreamer-lookoutvision-bitmap-{os.getpid()}"
    with segment(name, 1920 * 1920 * 3) as file:
        for width, height in ((641, 480), (64, 64), (2049, 2000)):
            stride = (3 * width + 3) // 4 * 4
            rgb = pixels(width, height)
            rows = np.full((height, stride), 7, np.uint8)
            rows[:, : 3 * width] = rgb.reshape(height, -1)
            os.ftruncate(file, max(1920 * 1920 * 3, rows.nbytes))
            os.pwrite(file, rows.tobytes(), 0)
            handle = {"name": f"/{name}", "size": rows.nbytes, "offset": 0}
            bitmap = {"width": width, "height": height, "shared_memory_handle": handle}
            answer = client.call("DetectAnomalies", model_component="screws", bitmap=bitmap)
            assert answer.detect_anomaly_result.confidence > 0.4
            assert np.array_equal(box.host.images[-1], rgb[..., ::-1])
