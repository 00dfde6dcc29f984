from __future__ import annotations

import logging
import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from edged.config import GrpcConfig
from edged.core.errors import Busy, ShuttingDown
from edged.core.lifecycle import ModelStatus
from edged.core.types import (
    NoVerdict,
    Reason,
)
from edged.grpc.server import Doors
from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from tests.support.grpc_box import Box, ask, channel, pixels, refused


def test_a_picture_is_judged_as_bgr(box: Box, agent: pb_grpc.EdgeAgentStub) -> None:
    rgb = np.zeros((64, 80, 3), np.uint8)
    rgb[..., 2] = 255
    result = agent.DetectAnomalies(ask(rgb)).detect_anomaly_result
    assert result.is_anomalous
    assert (result.confidence, result.anomaly_score, result.anomaly_threshold) == (1, 1, 0.5)
    assert not result.HasField("anomaly_mask")
    assert box.host.images[0].shape == (64, 80, 3)
    assert box.host.images[0][0, 0].tolist() == [255, 0, 0]
    box.observer.wait_for("DetectAnomalies", "OK")


def test_a_bitmap_beyond_grpcs_own_4_mib_is_judged(box: Box, agent: pb_grpc.EdgeAgentStub) -> None:
    rgb = pixels(2048, 1024)
    agent.DetectAnomalies(ask(rgb))
    assert np.array_equal(box.host.images[0], rgb[..., ::-1])


def test_a_message_beyond_the_configured_limit_is_refused(tmp_path: Path) -> None:
    box = Box(tmp_path)
    config = GrpcConfig(socket=box.socket, max_message_bytes=4 * 1024 * 1024)
    doors = Doors(config, box.host, box.results, box.crew, box.observer, box.deadline)
    doors.start()
    try:
        with channel(f"unix:{box.socket}") as opened, refused(grpc.StatusCode.RESOURCE_EXHAUSTED):
            pb_grpc.EdgeAgentStub(opened).DetectAnomalies(ask(pixels(2048, 1024)))
    finally:
        doors.close()


@pytest.mark.parametrize(
    ("bitmap", "words"),
    [
        (pb.Bitmap(width=64, height=64, byte_data=b"x" * 12287), "12287 bytes"),
        (pb.Bitmap(width=64, height=64, byte_data=b"x" * 12289), "12289 bytes"),
        (pb.Bitmap(width=63, height=64, byte_data=b"x" * 12096), "63x64"),
        (pb.Bitmap(width=-64, height=-64, byte_data=b"x" * 12288), "-64x-64"),
        (pb.Bitmap(width=5000, height=64, byte_data=b"x"), "5000x64"),
        (pb.Bitmap(width=4096, height=4096, byte_data=b"x"), "1 bytes"),
        (pb.Bitmap(width=64, height=64, byte_data=b""), "no pixels"),
        (pb.Bitmap(width=64, height=64), "no pixels"),
        (pb.Bitmap(), "0x0"),
    ],
)
def test_a_bitmap_that_is_no_picture_is_an_invalid_argument(
    box: Box, unix: pb_grpc.EdgeAgentStub, bitmap: pb.Bitmap, words: str
) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, words):
        unix.DetectAnomalies(pb.DetectAnomaliesRequest(model_component="screws", bitmap=bitmap))
    assert not box.host.images
    box.observer.wait_for("DetectAnomalies", "INVALID_ARGUMENT")


def test_bytes_that_are_no_message_are_an_invalid_argument(box: Box) -> None:
    with channel(box.targets["unix"]) as opened:
        call = opened.unary_unary("/AWS.LookoutVision.EdgeAgent/DetectAnomalies")
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "DetectAnomaliesRequest"):
            call(b"\xff\xff\xff")


def test_every_call_but_list_models_needs_a_model_component(unix: pb_grpc.EdgeAgentStub) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "model_component"):
        unix.DetectAnomalies(ask(model=""))
    for call, request in (
        (unix.StartModel, pb.StartModelRequest()),
        (unix.StopModel, pb.StopModelRequest()),
        (unix.DescribeModel, pb.DescribeModelRequest()),
    ):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "model_component"):
            call(request)


def test_an_unknown_model_is_not_found_by_any_call(unix: pb_grpc.EdgeAgentStub) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "nuts"):
        unix.DetectAnomalies(ask(model="nuts"))
    for call, request in (
        (unix.StartModel, pb.StartModelRequest(model_component="nuts")),
        (unix.StopModel, pb.StopModelRequest(model_component="nuts")),
        (unix.DescribeModel, pb.DescribeModelRequest(model_component="nuts")),
    ):
        with refused(grpc.StatusCode.NOT_FOUND, "nuts"):
            call(request)


def test_a_clients_huge_word_does_not_come_back_whole(unix: pb_grpc.EdgeAgentStub) -> None:
    with refused(grpc.StatusCode.NOT_FOUND):
        unix.DescribeModel(pb.DescribeModelRequest(model_component="n" * 1_000_000))


def test_a_model_that_does_not_run_is_a_failed_precondition(unix: pb_grpc.EdgeAgentStub) -> None:
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "TRAINED"):
        unix.DetectAnomalies(ask(model="idle"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Busy("The queue is full."), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (ShuttingDown("Stopping."), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_what_the_host_raises_reaches_the_client_as_its_code(
    box: Box, agent: pb_grpc.EdgeAgentStub, error: Exception, code: grpc.StatusCode
) -> None:
    box.host.error = error
    with refused(code, str(error)):
        agent.DetectAnomalies(ask())
    box.observer.wait_for("DetectAnomalies", code.name)


def test_what_the_future_raises_reaches_the_client_as_its_code(
    box: Box, unix: pb_grpc.EdgeAgentStub
) -> None:
    box.host.hold = True
    call = unix.DetectAnomalies.future(ask())
    assert box.host.detecting.wait(20)
    box.host.held[0].set_exception(Busy("Pushed out."))
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "Pushed out."):
        call.result()


def test_an_unexpected_error_is_logged_here_and_shows_the_client_nothing(
    box: Box, unix: pb_grpc.EdgeAgentStub, caplog: pytest.LogCaptureFixture
) -> None:
    box.host.error = KeyError("secret detail")
    with caplog.at_level(logging.ERROR), pytest.raises(grpc.RpcError) as caught:
        unix.DetectAnomalies(ask())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in caught.value.details()
    assert "Traceback" not in caught.value.details()
    assert "secret detail" in caplog.text
    assert "Traceback" in caplog.text


def test_a_picture_that_was_not_judged_is_never_an_answer(
    box: Box, unix: pb_grpc.EdgeAgentStub
) -> None:
    box.host.no_verdict = NoVerdict(Reason.ENGINE_FAILED, "gone")
    with refused(grpc.StatusCode.INTERNAL, "not judged", "engine_failed"):
        unix.DetectAnomalies(ask())


def test_the_clients_deadline_reaches_the_host(box: Box, unix: pb_grpc.EdgeAgentStub) -> None:
    unix.DetectAnomalies(ask())
    unix.DetectAnomalies(ask(), timeout=1000)
    assert box.host.deadlines[0] == 0
    # gRPC rounds a long timeout up to three digits on the wire: 1010 s here.
    assert 0 < box.host.deadlines[1] - time.monotonic_ns() <= 1010e9


def test_a_client_that_gives_up_does_not_cancel_the_hosts_future(
    box: Box, unix: pb_grpc.EdgeAgentStub
) -> None:
    box.host.hold = True
    call = unix.DetectAnomalies.future(ask())
    assert box.host.detecting.wait(20)
    call.cancel()
    box.observer.wait_for("DetectAnomalies", "CANCELLED")
    assert not box.host.held[0].cancelled()
    box.host.held[0].set_result(box.host.judge(box.host.images[0]))


def test_a_passed_deadline_ends_the_call(box: Box, unix: pb_grpc.EdgeAgentStub) -> None:
    box.host.hold = True
    with refused(grpc.StatusCode.DEADLINE_EXCEEDED):
        unix.DetectAnomalies(ask(), timeout=0.3)
    box.observer.wait_for("DetectAnomalies", "DEADLINE_EXCEEDED")


# --- masks and shared memory


def test_a_mask_comes_as_raw_rgb_of_the_pictures_size(
    box: Box, agent: pb_grpc.EdgeAgentStub
) -> None:
    box.host.mask = np.zeros((64, 80), np.uint8)
    box.host.mask[:32] = 1
    result = agent.DetectAnomalies(ask(pixels(80, 64))).detect_anomaly_result
    assert (result.anomaly_mask.width, result.anomaly_mask.height) == (80, 64)
    mask = np.frombuffer(result.anomaly_mask.byte_data, np.uint8).reshape(64, 80, 3)
    assert (mask[:32] == [0, 0, 255]).all()
    assert (mask[32:] == 255).all()
    assert [a.name for a in result.anomalies] == ["background", "dent"]


def test_models_are_listed_and_those_in_training_are_not(agent: pb_grpc.EdgeAgentStub) -> None:
    models = agent.ListModels(pb.ListModelsRequest()).models
    assert [(m.model_component, m.status) for m in models] == [
        ("idle", pb.STOPPED),
        ("screws", pb.RUNNING),
    ]
    assert models[0].lookout_vision_model_arn == ""
    assert models[1].lookout_vision_model_arn == (
        "arn:aws:lookoutvision:local:000000000000:model/screws/3"
    )
    assert models[1].status_message == "screws is HOSTED."


def test_a_model_in_training_is_not_described(unix: pb_grpc.EdgeAgentStub) -> None:
    with refused(grpc.StatusCode.NOT_FOUND):
        unix.DescribeModel(pb.DescribeModelRequest(model_component="young"))


def test_a_model_starts_runs_and_stops(box: Box, unix: pb_grpc.EdgeAgentStub) -> None:
    def described() -> int:
        request = pb.DescribeModelRequest(model_component="idle")
        return unix.DescribeModel(request).model_description.status

    start = pb.StartModelRequest(model_component="idle")
    stop = pb.StopModelRequest(model_component="idle")
    assert unix.StartModel(start).status == pb.STARTING
    assert described() == pb.STARTING
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        unix.StartModel(start)
    box.host.status["idle"] = ModelStatus.HOSTED
    assert described() == pb.RUNNING
    assert unix.StopModel(stop).status == pb.STOPPED
    assert described() == pb.STOPPED
    with refused(grpc.StatusCode.FAILED_PRECONDITION):
        unix.StopModel(stop)


def test_a_stop_that_waits_holds_up_no_other_call(box: Box, unix: pb_grpc.EdgeAgentStub) -> None:
    box.host.may_stop.clear()
    box.host.status["idle"] = ModelStatus.HOSTED
    call = unix.StopModel.future(pb.StopModelRequest(model_component="idle"))
    assert box.host.stopping.wait(20)
    unix.DetectAnomalies(ask(pixels(1024, 1024)))
    request = pb.DescribeModelRequest(model_component="idle")
    assert unix.DescribeModel(request).model_description.status == pb.STOPPING
    assert not call.done()
    box.host.may_stop.set()
    assert call.result(20).status == pb.STOPPED


# --- sockets, health, start and end
