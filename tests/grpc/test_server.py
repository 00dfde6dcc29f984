from __future__ import annotations

import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from edged.config import GrpcConfig
from edged.core.errors import ConfigError, WrongState
from edged.grpc.server import Doors
from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from edged.wire.pb import results_pb2, results_pb2_grpc
from tests.support.grpc_box import Box, ask, channel, refused


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
        "try:\n    import edged.grpc.server\n"
        "except MissingDependency as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'edged[grpc]'" in done.stdout
