"""Labels of archived parts: entries of data sets, by the command line and by the API's door."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys

from edged.archive.reader import ArchiveReader
from edged.archive.sink import Archive
from edged.cli.main import main
from edged.config import (
    ArchiveConfig,
    Config,
    ModelConfig,
    Quotas,
    RestConfig,
    SimulatedCameraConfig,
)
from edged.core.errors import BadDataset, EdgedError, InvalidInput, NotFound, WrongState
from edged.core.protocols import Label
from edged.core.types import Inspection
from edged.daemon.app import App
from edged.rest.chain import Chain, Done, Throttle
from edged.rest.labels import Desk
from edged.rest.training_data import lines_of
from edged.store.credentials import Credentials
from edged.wire import imaging
from tests.conftest import HEIGHT, WIDTH
from tests.rest.test_life import client
from tests.support.archive_box import GOOD, archive, inspection
from tests.support.broker import free_port, wait_until
from tests.support.fakes import PATIENCE
from tests.support.rest_client import signed
from tests.support.rest_server import Rest, rest_server

AT = {"ProjectName": "flange", "DatasetType": "train"}
FOLLOWED = {"cam": "123456789012/us-east-1/flange/", "alone": ""}


class Box:
    """A daemon's API and archive, with some parts in it; project `flange` has a train data set."""

    def __init__(self, rest: Rest, made: Archive, parts: list[Inspection]) -> None:
        self.rest, self.archive, self.parts = rest, made, parts
        service = rest.service
        self.desk = Desk(service.catalog, service.buckets, Quotas(), made, FOLLOWED)
        self.client = rest.client()
        self.client.create_project(ProjectName="flange")
        self.client.create_dataset(**AT)

    def lines(self, kind: str = "train") -> list[dict[str, Any]]:
        at = {**AT, "DatasetType": kind}
        return [json.loads(x) for x in self.client.list_dataset_entries(**at)["DatasetEntries"]]

    def call(self, id: str, body: dict[str, Any], actions: str = "*") -> tuple[int, dict[str, Any]]:
        """What `PUT .../label` answers to a signed request, and writes down in `done`."""
        key = self.rest.credentials.create([actions], ["*"])
        service = replace(self.rest.service, labels=self.desk)
        self.done: list[Done] = []
        find = self.rest.credentials.find
        chain = Chain(service, find, Throttle(0.0), [self.done.append])
        who = (key.key_id, key.secret, key.token)
        answer = chain.handle(
            signed("PUT", f"/edged/v1/inspections/{id}/label", who, json.dumps(body).encode())
        )
        return answer.code, json.loads(answer.body)


@contextmanager
def box(state: Path) -> Iterator[Box]:
    parts = [inspection(1), inspection(2, GOOD), inspection(3, simulated=True),
             inspection(4, station="alone")]  # fmt: skip
    with rest_server(state) as rest, archive(state / "archive", passes=1.0) as (made, told):
        for each in parts:
            made.accept(each)
        told.until(lambda: len(told.entries) == len(parts))
        yield Box(rest, made, parts)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Box]:
    with box(tmp_path / "state") as found:
        yield found


def test_a_label_makes_an_entry_that_the_next_training_takes(running: Box) -> None:
    part = running.parts[0]
    source = running.desk.label(part.id, Label(True, classes=("scratch",)))
    assert source == f"s3://edged-line/cam/{part.id}.png"
    (entry,) = running.lines()
    meta = entry["anomaly-label-metadata"]
    assert (entry["source-ref"], entry["anomaly-label"]) == (source, 1)
    assert (meta["class-name"], meta["human-annotated"]) == ("anomaly", "yes")
    assert meta["type"] == "groundtruth/image-classification" and meta["creation-date"]
    assert meta["edged-classes"] == ["scratch"] and "edged-simulated" not in meta
    told = running.client.describe_dataset(**AT)["DatasetDescription"]
    assert told["Status"] == "UPDATE_COMPLETE"
    assert told["ImageStats"] == {"Total": 1, "Labeled": 1, "Normal": 0, "Anomaly": 1}
    project = running.rest.service.catalog.project(running_scope(), "flange")
    assert project is not None
    none = Quotas(single_normal=0, single_anomaly=1)
    assert len(lines_of(replace(running.rest.service, quotas=none), project)["train"]) == 1


def test_the_copy_is_the_judged_picture_and_stays_when_the_archive_lets_go(running: Box) -> None:
    part = running.parts[0]
    running.desk.label(part.id, Label(True))
    data = running.rest.service.buckets.bucket("edged-line").read(f"cam/{part.id}.png")
    assert (imaging.decode(data, "x") == part.frame.image).all()


def test_labelled_again_the_later_label_holds_in_the_same_place(running: Box) -> None:
    for part in running.parts[:2]:
        running.desk.label(part.id, Label(True))
    running.desk.label(running.parts[0].id, Label(False))
    kinds = [each["anomaly-label-metadata"]["class-name"] for each in running.lines()]
    assert kinds == ["normal", "anomaly"]


def test_a_picture_goes_into_the_bucket_of_the_others(running: Box) -> None:
    line = json.dumps({"source-ref": "s3://parts/a.png"})
    running.client.update_dataset_entries(**AT, Changes=line.encode())
    running.rest.settle()
    part = running.parts[0]
    source = running.desk.label(part.id, Label(True))
    assert source == f"s3://parts/edged-line/cam/{part.id}.png"
    assert running.rest.service.buckets.bucket("parts").read(source.removeprefix("s3://parts/"))


def test_a_simulated_part_says_so_in_its_entry(running: Box) -> None:
    running.desk.label(running.parts[2].id, Label(False))
    assert running.lines()[0]["anomaly-label-metadata"]["edged-simulated"] is True


def test_what_cannot_be_labelled_is_refused_with_a_sentence(running: Box) -> None:
    def refused(kind: type[EdgedError], words: str, label: Label, id: str = "") -> None:
        with pytest.raises(kind, match=words):
            running.desk.label(id or running.parts[0].id, label)
        assert running.lines() == []

    refused(NotFound, "No inspection", Label(True), "nobody")
    refused(NotFound, "project other cannot be found", Label(True, project="other"))
    refused(NotFound, "has no test dataset", Label(True, dataset="test"))
    refused(InvalidInput, "give train or test", Label(True, dataset="both"))
    refused(InvalidInput, "has no class of defect", Label(False, classes=("dent",)))
    refused(InvalidInput, "at most 20 classes", Label(True, classes=("a/b",)))
    refused(InvalidInput, "follows no project", Label(True), running.parts[3].id)
    refused(NotFound, "another account", Label(True, scope=("210987654321", "us-east-1")))
    next((running.archive.folder / "pictures").rglob(f"{running.parts[1].id}.png")).unlink()
    refused(NotFound, "is not kept", Label(True), running.parts[1].id)


def test_a_data_set_that_is_being_changed_is_left_alone(running: Box) -> None:
    line = json.dumps({"source-ref": "s3://parts/a.png"})
    running.client.update_dataset_entries(**AT, Changes=line.encode())
    with pytest.raises(WrongState, match="UPDATE_IN_PROGRESS"):
        running.desk.label(running.parts[0].id, Label(True))
    running.rest.settle()
    assert len(running.lines()) == 1


def test_a_full_data_set_takes_no_new_picture_but_another_label(running: Box) -> None:
    small = replace(running.desk, quotas=Quotas(train_images=1))
    small.label(running.parts[0].id, Label(True))
    with pytest.raises(BadDataset, match="more than the 1 pictures"):
        small.label(running.parts[1].id, Label(False))
    small.label(running.parts[0].id, Label(False))
    assert len(running.lines()) == 1


def test_a_picture_does_not_train_and_test_the_same_model(running: Box) -> None:
    running.client.create_dataset(ProjectName="flange", DatasetType="test")
    running.desk.label(running.parts[0].id, Label(True))
    with pytest.raises(WrongState, match="is in the train dataset"):
        running.desk.label(running.parts[0].id, Label(True, dataset="test"))
    assert running.lines("test") == []


def test_the_door_labels_and_writes_it_down(running: Box) -> None:
    id = running.parts[0].id
    code, answer = running.call(id, {"Label": "anomaly", "Classes": ["scratch"]})
    assert (code, answer) == (200, {"SourceRef": f"s3://edged-line/cam/{id}.png"})
    assert [(d.operation, d.code, d.error) for d in running.done] == [("LabelInspection", 200, "")]
    assert id in running.done[0].what
    assert len(running.lines()) == 1


def test_the_door_refuses_with_the_api_s_errors(running: Box) -> None:
    id = running.parts[0].id
    code, answer = running.call(id, {"Label": "good"})
    assert code == 400 and "'label'" in answer["Message"]
    assert running.call("0" * 32, {"Label": "normal"})[0] == 404
    assert running.call("..%2Fx", {"Label": "normal"})[0] == 400
    assert running.call(id, {"Label": "normal"}, "lookoutvision:Detect*")[0] == 403
    assert running.call(id, {"Label": "normal"}, "lookoutvision:Label*")[0] == 200
    link = http.client.HTTPConnection("127.0.0.1", running.rest.port)
    link.request("PUT", f"/edged/v1/inspections/{id}/label", b'{"Label":"anomaly"}')
    assert link.getresponse().status in (400, 403)  # unsigned
    link.close()


def test_without_an_archive_the_door_says_what_to_add(running: Box) -> None:
    running.desk = None  # type: ignore[assignment]
    code, answer = running.call(running.parts[0].id, {"Label": "normal"})
    assert code == 404 and "[archive]" in answer["Message"]


def test_the_command_labels_while_the_daemon_runs(
    running: Box, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(
        'state_dir = "state"\n[rest]\n[archive]\n'
        '[[cameras]]\nname = "cam"\nkind = "simulated"\nproject = "flange"\n',
        encoding="utf-8",
    )
    at, id = ["--config", str(config)], running.parts[0].id
    assert main(["label", id, "anomaly", "--class", "scratch", "--json", *at]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["source_ref"] == running.lines()[0]["source-ref"]
    assert main(["label", id, "normal", *at]) == 0
    assert main(["label", running.parts[3].id, "normal", "--project", "flange", *at]) == 0
    kinds = [each["anomaly-label-metadata"]["class-name"] for each in running.lines()]
    assert kinds == ["normal", "normal"]
    capsys.readouterr()
    assert main(["label", "../x", "normal", *at]) == 2
    assert "is no id" in capsys.readouterr().err
    assert main(["label", "0" * 32, "normal", *at]) == 1
    assert "No inspection" in capsys.readouterr().err


def test_the_running_daemon_s_door_labels_what_its_line_has_seen(
    tmp_path: Path, model: Path
) -> None:
    state, port = tmp_path / "state", free_port()
    camera = SimulatedCameraConfig(
        kind="simulated", name="cam", model="flange", width=WIDTH, height=HEIGHT, count=3, seed=1
    )
    config = Config(
        state_dir=state,
        models=(ModelConfig(name="flange", path=model, engine="onnxruntime"),),
        cameras=(camera,),
        rest=RestConfig(listen=f"127.0.0.1:{port}", calls_per_second=0),
        archive=ArchiveConfig(passes=1.0),
    )
    app = App(config)
    thread = threading.Thread(target=app.run, kwargs={"signals": False})
    thread.start()
    try:
        aws = client(state, port)
        aws.create_project(ProjectName="p")
        aws.create_dataset(ProjectName="p", DatasetType="train")
        reader = ArchiveReader(state / "archive")
        assert wait_until(lambda: len(reader.since(0, 9)) == 3, PATIENCE)
        id = str(reader.since(0, 9)[0].record["id"])
        reader.close()
        body = json.dumps({"Label": "normal", "ProjectName": "p"}).encode()
        key = Credentials(state / "credentials.json").all()[0]
        asked = AWSRequest(
            "PUT", f"http://127.0.0.1:{port}/edged/v1/inspections/{id}/label", data=body
        )
        SigV4Auth(Keys(key.key_id, key.secret), "lookoutvision", "us-east-1").add_auth(asked)
        link = http.client.HTTPConnection("127.0.0.1", port)
        link.request("PUT", f"/edged/v1/inspections/{id}/label", body, dict(asked.headers))
        answer = link.getresponse()
        said = answer.read()
        link.close()
        assert (answer.status, json.loads(said)["SourceRef"]) == (
            200, f"s3://edged-line/cam/{id}.png"
        )  # fmt: skip
        assert "LabelInspection" in (state / "audit.log").read_text(encoding="utf-8")
        (line,) = aws.list_dataset_entries(ProjectName="p", DatasetType="train")["DatasetEntries"]
        assert json.loads(line)["anomaly-label-metadata"]["edged-simulated"] is True
    finally:
        app.stop()
        thread.join(PATIENCE)
    assert not thread.is_alive() and not app.failed


def running_scope() -> Any:
    from edged.store.catalog import Scope

    return Scope("123456789012", "us-east-1")
