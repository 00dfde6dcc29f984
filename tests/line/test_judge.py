"""A camera that follows a project: versions of its model change under it, and no part is lost."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from edged.config import Config, MqttConfig, RestConfig, SimulatedCameraConfig
from edged.core.errors import BadImage, Busy, WrongState
from edged.core.lifecycle import ModelStatus
from edged.core.types import Inspection
from edged.daemon.app import App
from edged.hosting.host import Host, HostingSpec
from edged.line.judge import Follower
from edged.runtime.workers import Crew, Deadline
from edged.store.catalog import Catalog, Scope
from edged.store.database import Database
from edged.store.models import Models
from tests.conftest import HEIGHT, WIDTH
from tests.rest.test_life import client, until
from tests.support.broker import Mosquitto, Subscriber, free_port, wait_until
from tests.support.fakes import PATIENCE, SPEC, Ears, FakeLoader, job

ROUNDS = 3
SCOPE = Scope("123456789012", "eu-west-1")
ARN = "arn:aws:lookoutvision:eu-west-1:123456789012:project/flange"


def prepare(state: Path, model: Path) -> None:
    """Two trained versions of a project."""
    state.mkdir()
    database = Database(state / "catalog.sqlite")
    database.open()
    project = Catalog(database).add_project(SCOPE, "flange", time.time())
    assert project is not None
    for _ in range(2):
        facts = {"output": {"Bucket": "b", "Prefix": ""}}
        row = Models(database).add(project, ModelStatus.TRAINED, "", facts, time.time())
        shutil.copytree(model, state / "models" / str(row.id) / "model")
    database.close()


def swap(aws: Any, start: str, stop: str) -> None:
    """Host one version, and when it is hosted end the other."""
    at = {"ProjectName": "flange"}
    aws.start_model(**at, ModelVersion=start, MinInferenceUnits=1)
    until(lambda: aws.describe_model(**at, ModelVersion=start), "HOSTED")
    aws.stop_model(**at, ModelVersion=stop)
    until(lambda: aws.describe_model(**at, ModelVersion=stop), "TRAINED")


def test_new_versions_take_over_under_a_running_camera_and_no_part_is_lost(
    tmp_path: Path, model: Path
) -> None:
    state, port = tmp_path / "state", free_port()
    prepare(state, model)
    camera = SimulatedCameraConfig(
        kind="simulated", name="cam", project=ARN, width=WIDTH, height=HEIGHT, rate=15
    )
    with Mosquitto() as broker, Subscriber(broker.port, "edged/cam/full") as heard:
        rest = RestConfig(listen=f"127.0.0.1:{port}", calls_per_second=0)
        mqtt = MqttConfig(port=broker.port)
        app = App(Config(state_dir=state, rest=rest, mqtt=mqtt, cameras=(camera,)))
        thread = threading.Thread(target=app.run, kwargs={"signals": False})
        thread.start()
        try:
            aws = client(state, port, "eu-west-1")
            at = {"ProjectName": "flange", "ModelVersion": "1"}
            aws.start_model(**at, MinInferenceUnits=1)
            assert wait_until(lambda: any("score" in r for r in told(heard)), PATIENCE)
            for _ in range(ROUNDS):
                swap(aws, "2", "1")
                swap(aws, "1", "2")
            count = len(told(heard))
            assert wait_until(lambda: len(told(heard)) > count + 1, PATIENCE)
        finally:
            app.stop()
            thread.join(PATIENCE)
    records = told(heard)
    judged = [record for record in records if "score" in record]
    first = judged[0]["seq"]
    numbers = [record["seq"] for record in records if record["seq"] >= first]
    assert numbers == list(range(first, first + len(numbers)))  # none lost, none twice, in order
    assert len(judged) == len(numbers)  # and each of them with a verdict
    by = [record["model"]["name"].rpartition("/")[2] for record in judged]
    changes = [a + b for a, b in pairwise(by) if a != b]
    assert changes == ["12", "21"] * ROUNDS


def told(heard: Subscriber) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in list(heard.messages)]


class Versions:
    """A host with versions 1 and 2 of one project, on fake engines, and a follower of it."""

    def __init__(self) -> None:
        self.ears = Ears()
        self.loaders = {"p/1": FakeLoader(), "p/2": FakeLoader()}
        hostings = [self._hosting("p/1"), self._hosting("p/2"), self._hosting("p/other")]
        self.host = Host(hostings, Crew(self.ears.worker_crashed), self.ears, Deadline())
        self.follower = Follower(self.host, "p/")
        self.answered: list[Inspection] = []

    def _hosting(self, name: str) -> HostingSpec:
        return HostingSpec(
            name, Path, lambda _: SPEC, lambda *_: [lambda: self.loaders[name]], 1, queue=1
        )

    def start(self, name: str) -> None:
        self.host.start(name)
        self.host.wait(name, PATIENCE)

    def ask(self) -> None:
        self.follower.offer(job(1, self.answered.append))


def test_the_highest_hosted_version_judges_and_an_older_one_when_it_is_stopped() -> None:
    versions = Versions()
    with pytest.raises(WrongState, match="p/2 is TRAINED"):
        versions.ask()
    for name in ("p/1", "p/2"):
        versions.start(name)
        entered = versions.loaders[name].entered
        while entered.acquire(blocking=False):  # its golden pictures
            pass
        versions.ask()
        assert entered.acquire(timeout=PATIENCE)
    versions.host.stop("p/2")
    versions.ask()
    assert versions.loaders["p/1"].entered.acquire(timeout=PATIENCE)
    versions.host.close()


def test_a_full_queue_of_the_newest_version_is_overload_and_no_reason_for_the_older() -> None:
    versions = Versions()
    versions.start("p/1")
    versions.start("p/2")
    versions.loaders["p/2"].gate.clear()
    with pytest.raises(Busy):
        for _ in range(4):
            versions.ask()
    versions.loaders["p/2"].gate.set()
    versions.host.close()


def test_a_version_trained_on_another_size_does_not_take_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    versions = Versions()
    versions.start("p/1")
    large = replace(SPEC, image_size=(999, 999))
    loader = versions.loaders["p/2"]
    versions.host.remove("p/2")
    versions.host.add(HostingSpec("p/2", Path, lambda _: large, lambda *_: [lambda: loader], 1))
    versions.start("p/2")
    for number in range(1, 4):
        versions.ask()
        assert wait_until(lambda: len(versions.answered) == number)  # noqa: B023
    said = [r.message for r in caplog.records if "cannot judge camera" in r.message]
    assert len(said) == 1 and "p/2" in said[0] and "999x999" in said[0]
    versions.host.stop("p/1")
    with pytest.raises(BadImage, match="999x999"):
        versions.ask()
    versions.host.close()
