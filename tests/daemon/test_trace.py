"""From a part that an MES asks for to its score again: a daemon, its archive, the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import grpc
import numpy as np
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from edged.wire import imaging
from edged.wire.pb import results_pb2 as pb
from edged.wire.pb import results_pb2_grpc
from tests.conftest import HEIGHT, WIDTH
from tests.support.broker import free_port, wait_until

EDGED = [sys.executable, "-m", "edged.cli"]
CONFIG = """
state_dir = "state"
[[models]]
name = "flange"
path = "{model}"
engine = "onnxruntime"
[[cameras]]
name = "cam1"
kind = "simulated"
rate = 0
width = {width}
height = {height}
[[stations]]
name = "s1"
camera = "cam1"
model = "flange"
trigger = "grpc"
deadline = 20.0
[archive]
passes = 1.0
[grpc]
socket = "agent.sock"
"""


def test_a_part_that_was_asked_for_is_found_seen_and_judged_again(
    tmp_path: Path, model: Path
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(CONFIG.format(model=model, width=WIDTH, height=HEIGHT), encoding="utf-8")
    with (
        running(config) as daemon,
        grpc.insecure_channel(f"unix:{tmp_path / 'agent.sock'}") as channel,
    ):
        stub = results_pb2_grpc.InspectionsStub(channel)
        grpc.channel_ready_future(channel).result(30)
        warm = wait_ready(stub)
        parts = [ask(stub, number) for number in range(1, 6)]
        watching = stub.Watch(pb.WatchRequest(since=warm))
        watched = [next(watching) for _ in parts]  # each when it is on disk
        listed = stub.List(pb.ListRequest(since=warm, limit=10)).inspections
        chosen = parts[2]
        chunks = list(stub.Picture(pb.PictureRequest(id=chosen.id)))
        with pytest.raises(grpc.RpcError) as repeated:
            stub.Inspect(pb.InspectRequest(station="s1", part="P-3", sequence=3))
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(30) == 0
    assert repeated.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert [i.id for i in watched] == [i.id for i in listed] == [i.id for i in parts]
    assert [i.position - warm for i in listed] == [1, 2, 3, 4, 5]
    assert all(i.trigger.kind == "grpc" and i.simulated and not i.ok for i in listed)
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"".join(chunk.data for chunk in chunks))
    assert imaging.read(picture).shape == (HEIGHT, WIDTH, 3)
    done = subprocess.run(
        [*EDGED, "replay", chosen.id, "--config", str(config), "--json"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["agrees"] is True
    assert np.isclose(report["recorded_score"], chosen.verdict.score, atol=1e-6)


@contextmanager
def running(config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The daemon; ended at the latest when `with` is left."""
    with subprocess.Popen([*EDGED, "run", "--config", str(config)]) as daemon:
        try:
            yield daemon
        finally:
            daemon.kill()


def wait_ready(stub: results_pb2_grpc.InspectionsStub) -> int:
    """Until a part is judged; how many were asked for. Before, each has its answer, too."""
    asked: list[pb.Inspection] = []

    def judged() -> bool:
        number = len(asked) + 1
        request = pb.InspectRequest(station="s1", part=f"WARM-{number}", sequence=number)
        asked.append(stub.Inspect(request, timeout=30))
        return asked[-1].WhichOneof("outcome") == "verdict"

    assert wait_until(judged, 60.0)
    assert all(i.no_verdict.reason for i in asked[:-1])
    return len(asked)


def ask(stub: results_pb2_grpc.InspectionsStub, number: int) -> pb.Inspection:
    """Inspect one part."""
    request = pb.InspectRequest(station="s1", part=f"P-{number}", sequence=number)
    answer = stub.Inspect(request, timeout=30, wait_for_ready=True)
    assert answer.part == f"P-{number}"
    assert answer.WhichOneof("outcome") == "verdict"
    return answer


def test_labels_by_every_door_are_kept_by_the_daemon_that_is_killed(
    tmp_path: Path, model: Path
) -> None:
    config, port = tmp_path / "edged.toml", free_port()
    text = CONFIG.format(model=model, width=WIDTH, height=HEIGHT)
    rest = f'[rest]\nlisten = "127.0.0.1:{port}"\nanonymous = true\ncalls_per_second = 0\n'
    config.write_text(text + rest, encoding="utf-8")
    aws = anonymous(port)
    with (
        running(config) as daemon,
        grpc.insecure_channel(f"unix:{tmp_path / 'agent.sock'}") as channel,
    ):
        stub = results_pb2_grpc.InspectionsStub(channel)
        grpc.channel_ready_future(channel).result(30)
        warm = wait_ready(stub)
        parts = [ask(stub, number) for number in range(1, 4)]
        watching = stub.Watch(pb.WatchRequest(since=warm))
        assert [next(watching).id for _ in parts] == [p.id for p in parts]
        aws.create_project(ProjectName="p")
        aws.create_dataset(ProjectName="p", DatasetType="train")
        label = pb.LabelRequest(id=parts[0].id, anomalous=True, project="p")
        assert wait_until(lambda: _labelled(stub, label), 30.0)
        command = [
            *EDGED,
            "label",
            parts[1].id,
            "normal",
            "--project",
            "p",
            "--config",
            str(config),
        ]
        assert subprocess.run(command, timeout=60, check=False).returncode == 0
        aws.create_project(ProjectName="after")
        daemon.kill()
    with running(config):
        assert wait_until(lambda: _names(aws) == ["after", "p"], 60.0)
        entries = aws.list_dataset_entries(ProjectName="p", DatasetType="train")["DatasetEntries"]
    assert len(entries) == 2


def _labelled(stub: results_pb2_grpc.InspectionsStub, label: pb.LabelRequest) -> bool:
    """Whether the label was taken; the API may still be on its way up."""
    try:
        return bool(stub.Label(label).source_ref)
    except grpc.RpcError as error:
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED, error
        return False


def _names(aws: Any) -> list[str]:
    try:
        return sorted(p["ProjectName"] for p in aws.list_projects()["Projects"])
    except EndpointConnectionError:
        return []


def anonymous(port: int) -> Any:
    """A client of the API that shows no key."""
    return boto3.client(
        "lookoutvision",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 0}),
    )
