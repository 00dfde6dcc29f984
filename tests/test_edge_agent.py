from __future__ import annotations

import logging
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timezone
from multiprocessing import shared_memory
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edged.agent.results import ResultsStream
from edged.agent.server import Doors
from edged.config import GrpcConfig
from edged.core.errors import Busy, ConfigError, NotFound, ShuttingDown, WrongState
from edged.core.lifecycle import Event, ModelStatus, advance
from edged.core.observer import Observer
from edged.core.protocols import HostedModel
from edged.core.types import (
    Anomaly,
    Frame,
    Image,
    Inspection,
    ModelRef,
    ModelSpec,
    NoVerdict,
    Reason,
    Timing,
    Verdict,
)
from edged.core.workers import Crew, Deadline
from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from edged.wire.pb import results_pb2, results_pb2_grpc

SPEC = ModelSpec(ModelRef("screws", "3", "ab" * 32), 64, 64, 0.5)


class StandInHost:
    """A ModelHost without engines: it keeps states by the table and answers by a fixed rule.

    The real host needs a trained model and a runtime. The score is the mean of the blue channel.
    """

    def __init__(self) -> None:
        self.status = {"screws": ModelStatus.HOSTED, "idle": ModelStatus.TRAINED}
        self.status["young"] = ModelStatus.TRAINING
        self.images: list[Image] = []
        self.deadlines: list[int] = []
        self.error: Exception | None = None
        self.mask: np.ndarray | None = None
        self.no_verdict: NoVerdict | None = None
        self.held: list[Future[Inspection]] = []
        self.hold = False
        self.detecting = threading.Event()
        self.may_stop = threading.Event()
        self.may_stop.set()
        self.stopping = threading.Event()

    def start(self, name: str) -> ModelStatus:
        self._known(name)
        self.status[name] = advance(self.status[name], Event.START)
        return self.status[name]

    def stop(self, name: str) -> ModelStatus:
        self._known(name)
        self.status[name] = advance(self.status[name], Event.STOP)
        self.stopping.set()
        assert self.may_stop.wait(20)
        self.status[name] = advance(self.status[name], Event.STOPPED)
        return self.status[name]

    def models(self) -> list[HostedModel]:
        return [
            HostedModel(n, s, f"{n} is {s.value}.", SPEC if n == "screws" else None)
            for n, s in sorted(self.status.items())
        ]

    def detect(self, name: str, image: Image, deadline_ns: int = 0) -> Future[Inspection]:
        self._known(name)
        if self.error is not None:
            raise self.error
        if self.status[name] is not ModelStatus.HOSTED:
            raise WrongState(f"{name} is {self.status[name].value}: start it first.")
        self.images.append(image)
        self.deadlines.append(deadline_ns)
        future: Future[Inspection] = Future()
        if self.hold:
            self.held.append(future)
        else:
            future.set_result(self.judge(image))
        self.detecting.set()
        return future

    def judge(self, image: Image) -> Inspection:
        score = float(image[..., 0].mean()) / 255
        anomalies = (
            ()
            if self.mask is None
            else (
                Anomaly("background", 0.5, "#FFFFFF"),
                Anomaly("dent", 0.5, "#0000FF"),
            )
        )
        verdict = Verdict(
            score >= 0.5, max(score, 1 - score), score, 0.5, anomalies, mask=self.mask
        )
        frame = Frame("request", 1, 1, datetime.now(timezone.utc), image)
        return Inspection(frame, SPEC.ref, self.no_verdict or verdict, Timing(1))

    def _known(self, name: str) -> None:
        if name not in self.status:
            raise NotFound(f"No model is called {name!r}.")


class Listener(Observer):
    """Remembers what the doors said about calls."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.changed = threading.Condition()

    def request_done(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        with self.changed:
            self.done.append((method, code))
            self.changed.notify_all()

    def wait_for(self, method: str, code: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: (method, code) in self.done, 20), self.done


class Box:
    """Doors with all they need, on a socket in `folder` and on a free TCP port."""

    def __init__(self, folder: Path, listen: str | None = "127.0.0.1:0") -> None:
        self.socket = folder / "run" / "edged.sock"
        self.host = StandInHost()
        self.observer = Listener()
        self.results = ResultsStream(64)
        self.crew = Crew()
        self.deadline = Deadline()
        config = GrpcConfig(socket=self.socket, listen=listen)
        self.doors = Doors(config, self.host, self.results, self.crew, self.observer, self.deadline)

    @property
    def targets(self) -> dict[str, str]:
        assert self.doors.address is not None
        return {"unix": f"unix:{self.socket}", "tcp": self.doors.address}


@contextmanager
def channel(target: str) -> Iterator[grpc.Channel]:
    lifted = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target, options=lifted) as opened:
        yield opened


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    made.doors.start()
    yield made
    made.doors.close()


@pytest.fixture(params=["unix", "tcp"])
def agent(box: Box, request: pytest.FixtureRequest) -> Iterator[pb_grpc.EdgeAgentStub]:
    with channel(box.targets[request.param]) as opened:
        yield pb_grpc.EdgeAgentStub(opened)


@pytest.fixture
def unix(box: Box) -> Iterator[pb_grpc.EdgeAgentStub]:
    with channel(box.targets["unix"]) as opened:
        yield pb_grpc.EdgeAgentStub(opened)


@pytest.fixture
def segment() -> Iterator[shared_memory.SharedMemory]:
    made = shared_memory.SharedMemory(create=True, size=64 * 300 + 4096)
    yield made
    made.close()
    made.unlink()


def pixels(width: int = 64, height: int = 64) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ask(
    rgb: np.ndarray | None = None, model: str = "screws", **more: object
) -> pb.DetectAnomaliesRequest:
    rgb = pixels() if rgb is None else rgb
    bitmap = pb.Bitmap(width=rgb.shape[1], height=rgb.shape[0], byte_data=rgb.tobytes())
    return pb.DetectAnomaliesRequest(model_component=model, bitmap=bitmap, **more)  # type: ignore[arg-type]


@contextmanager
def refused(code: grpc.StatusCode, *words: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    details = caught.value.details()
    assert caught.value.code() is code, details
    assert "Traceback" not in details
    for word in words:
        assert word in details


# --- pictures


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


def health_of(target: str, service: str = "") -> int:
    with channel(target) as opened:
        stub = health_pb2_grpc.HealthStub(opened)
        return stub.Check(health_pb2.HealthCheckRequest(service=service)).status


def test_health_says_serving_only_when_told_so(box: Box) -> None:
    status = health_pb2.HealthCheckResponse
    names = ("", "AWS.LookoutVision.EdgeAgent", "edged.v1.Inspections")
    for name in names:
        assert health_of(box.targets["tcp"], name) == status.NOT_SERVING
    box.doors.set_serving(True)
    for name in names:
        assert health_of(box.targets["unix"], name) == status.SERVING
    box.doors.set_serving(False)
    assert health_of(box.targets["unix"]) == status.NOT_SERVING


def test_whoever_watches_the_health_hears_of_the_stop_and_does_not_delay_it(box: Box) -> None:
    box.doors.set_serving(True)
    with channel(box.targets["unix"]) as opened:
        call = health_pb2_grpc.HealthStub(opened).Watch(health_pb2.HealthCheckRequest())
        assert next(call).status == health_pb2.HealthCheckResponse.SERVING
        box.doors.close()
        assert next(call).status == health_pb2.HealthCheckResponse.NOT_SERVING


def test_only_owner_and_group_may_use_the_socket(box: Box) -> None:
    assert stat.S_IMODE(box.socket.stat().st_mode) == 0o660


def test_the_socket_is_gone_after_the_end_and_the_doors_open_again(tmp_path: Path) -> None:
    for _ in range(2):
        box = Box(tmp_path)
        box.doors.start()
        assert health_of(box.targets["unix"]) == health_pb2.HealthCheckResponse.NOT_SERVING
        box.doors.close()
        box.doors.close()
        assert not box.socket.exists()
        assert box.crew.ages() == {}


def test_a_socket_path_with_odd_characters_is_bound_as_written(tmp_path: Path) -> None:
    config = GrpcConfig(socket=tmp_path / "a b%41#.sock")
    box = Box(tmp_path)
    doors = Doors(config, box.host, box.results, box.crew, box.observer, box.deadline)
    doors.start()
    try:
        assert config.socket is not None
        assert config.socket.is_socket()
    finally:
        doors.close()


def test_a_stale_socket_file_is_replaced(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.socket.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(box.socket))
    assert box.socket.is_socket()
    box.doors.start()
    try:
        assert health_of(box.targets["unix"]) == health_pb2.HealthCheckResponse.NOT_SERVING
    finally:
        box.doors.close()


def test_the_socket_of_another_daemon_is_left_alone(box: Box, tmp_path: Path) -> None:
    second = Box(tmp_path)
    with pytest.raises(WrongState, match="in use by another process"):
        second.doors.start()
    assert second.crew.ages() == {}
    assert health_of(box.targets["unix"]) == health_pb2.HealthCheckResponse.NOT_SERVING


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.socket.parent.mkdir()
    box.socket.write_text("precious")
    with pytest.raises(WrongState, match="is no socket"):
        box.doors.start()
    assert box.socket.read_text() == "precious"


def test_a_socket_path_that_is_too_long_is_named(tmp_path: Path) -> None:
    box = Box(tmp_path / ("x" * 110))
    with pytest.raises(ConfigError, match="107 bytes"):
        box.doors.start()


def test_a_socket_in_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ConfigError, match=r"edged\.sock cannot be used"):
        Box(tmp_path).doors.start()


def test_a_taken_port_is_named_at_start(box: Box, tmp_path: Path) -> None:
    assert box.doors.address is not None
    second = Box(tmp_path / "second", box.doors.address)
    with pytest.raises(WrongState, match=f"{box.doors.address} cannot be bound: another process"):
        second.doors.start()
    assert second.crew.ages() == {}
    assert not second.socket.exists()


def test_doors_without_an_address_say_so(tmp_path: Path) -> None:
    box = Box(tmp_path)
    doors = Doors(GrpcConfig(), box.host, box.results, box.crew, box.observer, box.deadline)
    with pytest.raises(ConfigError, match="neither socket nor listen"):
        doors.start()


def test_the_doors_thread_beats(box: Box) -> None:
    assert list(box.crew.ages()) == ["doors"]


def test_a_call_in_hand_is_finished_at_the_end_and_new_ones_are_refused(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.doors.start()
    box.host.hold = True
    with channel(box.targets["unix"]) as opened:
        agent = pb_grpc.EdgeAgentStub(opened)
        call = agent.DetectAnomalies.future(ask())
        assert box.host.detecting.wait(20)
        status = health_pb2.HealthCheckResponse
        seen = health_pb2_grpc.HealthStub(opened).Watch(health_pb2.HealthCheckRequest())
        assert next(seen).status == status.NOT_SERVING
        box.doors.set_serving(True)
        assert next(seen).status == status.SERVING

        closer = threading.Thread(target=box.doors.close)
        closer.start()
        assert next(seen).status == status.NOT_SERVING  # the end has begun
        with refused(grpc.StatusCode.UNAVAILABLE, "stopping"):
            agent.ListModels(pb.ListModelsRequest())
        box.host.held[0].set_result(box.host.judge(box.host.images[0]))
        assert call.result(20).HasField("detect_anomaly_result")
        closer.join(20)
        assert not closer.is_alive()


def test_a_call_that_never_ends_is_cut_off_by_the_deadline(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    box = Box(tmp_path)
    box.doors.start()
    box.host.hold = True
    with channel(box.targets["unix"]) as opened:
        call = pb_grpc.EdgeAgentStub(opened).DetectAnomalies.future(ask())
        assert box.host.detecting.wait(20)
        box.deadline.set(0)
        box.doors.close()
        assert call.exception(20) is not None
        assert "cut off" in caplog.text
    # A unit that answers after all that finds nobody, and must not fail.
    box.host.held[0].set_result(box.host.judge(box.host.images[0]))
    assert "exception calling callback" not in caplog.text


def test_watchers_of_results_end_although_nobody_closed_the_stream(box: Box) -> None:
    with channel(box.targets["unix"]) as opened:
        call = results_pb2_grpc.InspectionsStub(opened).Watch(results_pb2.WatchRequest())
        call.initial_metadata()
        box.doors.close()
        assert list(call) == []


def test_without_grpc_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['grpc'] = None\n"
        "from edged.core.errors import MissingDependency\n"
        "try:\n    import edged.agent.server\n"
        "except MissingDependency as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'edged[grpc]'" in done.stdout
