"""What a program reads of an error: google.rpc.Status with details."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from edged.core.errors import Busy, EngineError, ShuttingDown
from edged.grpc.turns import MOST_WAITING
from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from tests.support.broker import wait_until
from tests.support.grpc_box import Box, ask, channel, refused


def details(error: grpc.RpcError) -> dict[type[Message], Message]:
    status = rpc_status.from_call(error)
    assert status is not None
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found: dict[type[Message], Message] = {}
    for kind in (
        error_details_pb2.ErrorInfo,
        error_details_pb2.RetryInfo,
        error_details_pb2.BadRequest,
    ):
        for packed in status.details:
            if packed.Is(kind.DESCRIPTOR):
                found[kind] = kind.FromString(packed.value)
    assert len(found) == len(status.details)
    return found


def failing(
    box: Box, stub: pb_grpc.EdgeAgentStub, error: Exception
) -> dict[type[Message], Message]:
    box.host.error = error
    with pytest.raises(grpc.RpcError) as caught:
        stub.DetectAnomalies(ask())
    return details(caught.value)


@pytest.mark.parametrize(
    ("error", "reason", "seconds"),
    [
        (Busy("Full."), "BUSY", 0.1),
        (ShuttingDown("Stopping."), "SHUTTING_DOWN", 5.0),
        (EngineError("Broken."), "ENGINE_ERROR", None),
        (KeyError("secret"), "UNEXPECTED", None),
    ],
)
def test_an_error_tells_its_class_and_when_to_try_again(
    box: Box, unix: pb_grpc.EdgeAgentStub, error: Exception, reason: str, seconds: float | None
) -> None:
    found = failing(box, unix, error)
    info = found.pop(error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == (reason, "edged")
    retry = found.pop(error_details_pb2.RetryInfo, None)
    assert (retry and retry.retry_delay.ToTimedelta().total_seconds()) == seconds
    assert found == {}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (pb.DetectAnomaliesRequest(), "model_component"),
        (pb.DetectAnomaliesRequest(model_component="screws"), "bitmap.width"),
        (
            pb.DetectAnomaliesRequest(
                model_component="screws", bitmap=pb.Bitmap(width=64, height=5000)
            ),
            "bitmap.height",
        ),
        (
            pb.DetectAnomaliesRequest(
                model_component="screws", bitmap=pb.Bitmap(width=64, height=64, byte_data=b"x")
            ),
            "bitmap.byte_data",
        ),
    ],
)
def test_a_field_that_is_to_blame_is_named(
    unix: pb_grpc.EdgeAgentStub, request_: pb.DetectAnomaliesRequest, field: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unix.DetectAnomalies(request_)
    bad = details(caught.value)[error_details_pb2.BadRequest]
    assert [violation.field for violation in bad.field_violations] == [field]


def test_a_long_sentence_of_odd_characters_does_not_break_the_answer(
    unix: pb_grpc.EdgeAgentStub,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unix.DescribeModel(pb.DescribeModelRequest(model_component="ü€😀" * 100_000))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert details(caught.value)


def test_detections_of_one_model_come_one_at_a_time_and_too_many_are_told_so(box: Box) -> None:
    box.host.hold = True
    with channel(box.targets["unix"]) as line:
        stub = pb_grpc.EdgeAgentStub(line)
        first = stub.DetectAnomalies.future(ask())
        assert box.host.detecting.wait(20)
        waiting = [stub.DetectAnomalies.future(ask()) for _ in range(MOST_WAITING)]
        # In the order of one connection: when this one is refused, those before it wait.
        with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "16 detections wait"):
            stub.DetectAnomalies(ask())
        assert len(box.host.held) == 1
        for number in range(MOST_WAITING + 1):
            assert wait_until(lambda n=number: len(box.host.held) == n + 1, 20)
            box.host.held[number].set_result(box.host.judge(box.host.images[number]))
        for call in (first, *waiting):
            assert call.result(20).HasField("detect_anomaly_result")


def test_a_model_that_is_busy_does_not_keep_another_waiting(box: Box) -> None:
    box.host.hold = True
    box.host.status["idle"] = box.host.status["screws"]
    with channel(box.targets["unix"]) as line:
        stub = pb_grpc.EdgeAgentStub(line)
        calls = [stub.DetectAnomalies.future(ask(model=name)) for name in ("screws", "idle")]
        assert wait_until(lambda: len(box.host.held) == 2, 20)
        for held in box.host.held:
            held.set_result(box.host.judge(box.host.images[0]))
        assert all(call.result(20) for call in calls)


def test_a_caller_that_leaves_keeps_its_turn_until_the_host_is_done(box: Box) -> None:
    box.host.hold = True
    with channel(box.targets["unix"]) as line:
        stub = pb_grpc.EdgeAgentStub(line)
        first = stub.DetectAnomalies.future(ask())
        assert box.host.detecting.wait(20)
        second = stub.DetectAnomalies.future(ask())
        first.cancel()
        box.observer.wait_for("DetectAnomalies", "CANCELLED")
        assert len(box.host.held) == 1
        box.host.held[0].set_result(box.host.judge(box.host.images[0]))
        assert wait_until(lambda: len(box.host.held) == 2, 20)
        box.host.held[1].set_result(box.host.judge(box.host.images[0]))
        assert second.result(20)
