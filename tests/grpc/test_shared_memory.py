from __future__ import annotations

import os
from multiprocessing import shared_memory
from pathlib import Path

import grpc
import numpy as np
import pytest

from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from tests.support.grpc_box import Box, ask, channel, pixels, refused


@pytest.mark.parametrize("field", ["shared_memory_handle", "shared_memory_handle_v1"])
def test_a_mask_is_written_to_the_callers_shared_memory(
    box: Box, unix: pb_grpc.EdgeAgentStub, segment: shared_memory.SharedMemory, field: str
) -> None:
    box.host.mask = np.ones((64, 64), np.uint8)
    box.host.mask[0, 0] = 0
    handle = pb.SharedMemoryHandle(name=segment.name, size=12300, offset=5)
    params = pb.AnomalyMaskParams(**{field: handle})
    # Field 2 or 3 on the wire, as the two published versions of the interface have it.
    assert params.SerializeToString()[0] >> 3 == (2 if field == "shared_memory_handle" else 3)
    mask = unix.DetectAnomalies(ask(anomaly_mask_params=params)).detect_anomaly_result.anomaly_mask
    assert mask.WhichOneof("data") == "shared_memory_handle"
    assert (mask.shared_memory_handle.name, mask.shared_memory_handle.offset) == (segment.name, 5)
    assert mask.shared_memory_handle.size == 12288
    written = np.frombuffer(bytes(segment.buf[5 : 5 + 12288]), np.uint8).reshape(-1, 3)
    assert (written[0] == 255).all()
    assert (written[1:] == [0, 0, 255]).all()
    assert bytes(segment.buf[:5]) == bytes(5)
    assert bytes(segment.buf[5 + 12288 : 5 + 12300]) == bytes(12)


def test_a_mask_handle_that_is_too_small_is_refused_before_the_picture_is_judged(
    box: Box, unix: pb_grpc.EdgeAgentStub, segment: shared_memory.SharedMemory
) -> None:
    handle = pb.SharedMemoryHandle(name=segment.name, size=12287)
    params = pb.AnomalyMaskParams(shared_memory_handle=handle)
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "12288 bytes are needed"):
        unix.DetectAnomalies(ask(anomaly_mask_params=params))
    assert not box.host.images


def test_a_tcp_client_cannot_have_shared_memory_written(
    box: Box, segment: shared_memory.SharedMemory
) -> None:
    box.host.mask = np.ones((64, 64), np.uint8)
    params = pb.AnomalyMaskParams(
        shared_memory_handle=pb.SharedMemoryHandle(name=segment.name, size=12288)
    )
    with channel(box.targets["tcp"]) as opened:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "Unix socket"):
            pb_grpc.EdgeAgentStub(opened).DetectAnomalies(ask(anomaly_mask_params=params))
    assert not any(segment.buf)


def shared(name: str, size: int, offset: int = 0, width: int = 64) -> pb.DetectAnomaliesRequest:
    handle = pb.SharedMemoryHandle(name=name, size=size, offset=offset)
    bitmap = pb.Bitmap(width=width, height=64, shared_memory_handle=handle)
    return pb.DetectAnomaliesRequest(model_component="screws", bitmap=bitmap)


@pytest.mark.parametrize("slash", ["", "/"])
def test_pixels_are_read_from_shared_memory(
    box: Box,
    agent: pb_grpc.EdgeAgentStub,
    segment: shared_memory.SharedMemory,
    slash: str,
) -> None:
    rgb = pixels()
    segment.buf[3 : 3 + rgb.nbytes] = rgb.tobytes()
    agent.DetectAnomalies(shared(slash + segment.name, rgb.nbytes, 3))
    assert np.array_equal(box.host.images[0], rgb[..., ::-1])


def test_rows_that_gstreamer_padded_to_four_bytes_are_accepted(
    box: Box, unix: pb_grpc.EdgeAgentStub, segment: shared_memory.SharedMemory
) -> None:
    rgb = pixels(65, 64)
    padded = np.full((64, 196), 9, np.uint8)
    padded[:, :195] = rgb.reshape(64, 195)
    segment.buf[: padded.nbytes] = padded.tobytes()
    unix.DetectAnomalies(shared(segment.name, padded.nbytes, width=65))
    assert np.array_equal(box.host.images[0], rgb[..., ::-1])


def test_shared_memory_that_grew_is_seen_at_its_new_size(
    box: Box, unix: pb_grpc.EdgeAgentStub
) -> None:
    path = Path("/dev/shm") / f"edged-test-{os.getpid()}"
    try:
        path.write_bytes(pixels().tobytes())
        unix.DetectAnomalies(shared(path.name, 12288))
        path.write_bytes(bytes(12288) + pixels().tobytes())
        unix.DetectAnomalies(shared(path.name, 12288, 12288))
    finally:
        path.unlink()
    assert np.array_equal(box.host.images[0], box.host.images[1])


def test_handles_that_do_not_fit_are_invalid_arguments(
    box: Box, unix: pb_grpc.EdgeAgentStub, segment: shared_memory.SharedMemory
) -> None:
    for request, words in (
        (shared("no-such-object", 12288), "No such file"),
        (shared("../shm/" + segment.name, 12288), "a name is"),
        (shared("..", 12288), "a name is"),
        (shared("", 12288), "a name is"),
        (shared("a\0b", 12288), "a name is"),
        (shared(segment.name, 12288, segment.size), "beyond its end"),
        (shared(segment.name, 12288, 2**64 - 1), "beyond its end"),
        (shared(segment.name, 2**64 - 64), "12288 bytes"),
        (shared(segment.name, 12287), "12287 bytes"),
        (shared(segment.name, 0), "0 bytes"),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, words):
            unix.DetectAnomalies(request)
    assert not box.host.images


def test_links_and_pipes_in_shared_memory_are_refused(unix: pb_grpc.EdgeAgentStub) -> None:
    link, pipe = (Path("/dev/shm") / f"edged-test-{kind}-{os.getpid()}" for kind in ("l", "p"))
    link.symlink_to("/etc/passwd")
    os.mkfifo(pipe)
    try:
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "cannot be opened"):
            unix.DetectAnomalies(shared(link.name, 12288))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "no shared memory object"):
            unix.DetectAnomalies(shared(pipe.name, 12288))
    finally:
        link.unlink()
        pipe.unlink()


# --- models
