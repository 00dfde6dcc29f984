"""The daemon's gRPC side with a real model behind it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from edged.cameras.simulation.parts import render
from edged.wire.pb import edge_agent_pb2 as agent
from edged.wire.pb import edge_agent_pb2_grpc as agent_grpc
from edged.wire.pb import results_pb2, results_pb2_grpc
from tests.conftest import HEIGHT, WIDTH


@pytest.fixture(scope="module")
def channel(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A channel to a daemon with one model and a camera of five frames."""
    folder = tmp_path_factory.mktemp("d")
    config = folder / "edged.toml"
    config.write_text(
        f"""
state_dir = "state"
[[models]]
name = "flange"
path = "{model}"
engine = "onnxruntime"
[[cameras]]
name = "cam1"
model = "flange"
kind = "simulated"
rate = 0
count = 5
width = {WIDTH}
height = {HEIGHT}
[grpc]
socket = "agent.sock"
""",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "edged.cli", "run", "--config", str(config)]
    with subprocess.Popen(command) as daemon:
        with grpc.insecure_channel(f"unix:{folder / 'agent.sock'}") as opened:
            stub = results_pb2_grpc.InspectionsStub(opened)
            for number, _ in enumerate(stub.Watch(results_pb2.WatchRequest(), wait_for_ready=True)):
                if number == 4:
                    break
            yield opened
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0


def ask(width: int, height: int) -> agent.DetectAnomaliesRequest:
    image, _ = render("machined", 9, 1, width, height, 0.0)
    bitmap = agent.Bitmap(width=width, height=height, byte_data=image[..., ::-1].tobytes())
    return agent.DetectAnomaliesRequest(model_component="flange", bitmap=bitmap)


def test_a_good_part_is_judged_good(channel: grpc.Channel) -> None:
    answer = agent_grpc.EdgeAgentStub(channel).DetectAnomalies(ask(WIDTH, HEIGHT))
    assert not answer.detect_anomaly_result.is_anomalous
    assert answer.detect_anomaly_result.confidence > 0.5


def test_a_picture_of_another_size_than_the_training_is_invalid(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        agent_grpc.EdgeAgentStub(channel).DetectAnomalies(ask(WIDTH * 2, HEIGHT))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert f"{WIDTH}x{HEIGHT}" in refused.value.details()


def test_a_watcher_who_comes_late_still_sees_every_inspection(channel: grpc.Channel) -> None:
    stub = results_pb2_grpc.InspectionsStub(channel)
    seen = []
    call = stub.Watch(results_pb2.WatchRequest(since=0))
    for inspection in call:
        seen.append((inspection.camera, inspection.sequence, inspection.simulated))
        if len(seen) == 5:
            call.cancel()
            break
    assert seen == [("cam1", number, True) for number in range(1, 6)]


def test_the_model_is_stopped_and_started_by_the_edge_agent(channel: grpc.Channel) -> None:
    stub = agent_grpc.EdgeAgentStub(channel)
    assert stub.StopModel(agent.StopModelRequest(model_component="flange")).status == agent.STOPPED
    with pytest.raises(grpc.RpcError) as refused:
        stub.DetectAnomalies(ask(WIDTH, HEIGHT))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    started = stub.StartModel(agent.StartModelRequest(model_component="flange"))
    assert started.status == agent.STARTING
