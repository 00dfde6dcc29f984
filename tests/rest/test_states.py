"""Every documented state x every operation -> allowed, ConflictException, or not found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.config import Quotas
from edged.core.lifecycle import DatasetStatus, ModelStatus
from edged.core.protocols import HostedModel
from edged.core.types import Image, Inspection
from edged.rest.chain import Chain, Throttle
from edged.rest.context import Context
from edged.runtime.state import StateFolder
from edged.store.buckets import Buckets
from edged.store.catalog import Catalog, DatasetEntry, Scope
from edged.store.database import Database
from edged.store.keyring import Keyring
from edged.store.models import Models
from edged.store.packaging_jobs import PackagingJobs
from edged.store.scratch import Scratch
from edged.wire import imaging
from tests.support.service_model import OPERATIONS, example, request

SCOPE = Scope("123456789012", "us-east-1")
ALLOWED, CONFLICT, ABSENT = "allowed", "ConflictException", "ResourceNotFoundException"
PICTURE = imaging.encoded_png(np.zeros((64, 64, 3), np.uint8))


@dataclass
class Stage:
    """Stands in for the data plane: it shows whatever state a test needs, and judges nothing."""

    status: ModelStatus | None = None
    calls: list[str] = field(default_factory=list)

    def host(self, name: str, folder: Path, units: int, most: int, opened: Any = None) -> None:
        self.calls.append("host")

    def unhost(self, name: str) -> None:
        self.calls.append("unhost")

    def hosted(self, name: str) -> HostedModel | None:
        return None if self.status is None else HostedModel(name, self.status, "", None)

    def detect(self, name: str, image: Image) -> Future[Inspection]:
        self.calls.append("detect")
        future: Future[Inspection] = Future()
        future.cancel()
        return future


@dataclass
class World:
    service: Context
    stage: Stage

    def ask(self, operation: str, **more: Any) -> str:
        """What becomes of the operation, with an example of all else that it needs."""
        shape = OPERATIONS[operation]["input"]["shape"]
        members = {**example(shape), **more}
        for name in ("KmsKeyId", "NextToken", "ClientToken", "Tags"):
            if operation != "TagResource" or name != "Tags":
                members.pop(name, None)
        if operation == "StartModelPackagingJob":
            del members["Configuration"]["Greengrass"]["TargetDevice"]
            members["Configuration"]["Greengrass"]["CompilerOptions"] = json.dumps(
                {"gpu-code": "sm_72", "trt-ver": "8.2.1", "cuda-ver": "10.2"}
            )
        chain = Chain(self.service, None, Throttle(0.0), [])
        answer = chain.handle(request(operation, members))
        if answer.code < 300:
            return ALLOWED
        kind = str(answer.headers["x-amzn-ErrorType"])
        if self.stage.calls[-1:] == ["detect"]:
            return ALLOWED  # it was let through to the data plane
        return kind


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    database = Database(tmp_path / "catalog.sqlite")
    database.open()
    (tmp_path / "buckets" / "bucket").mkdir(parents=True)
    stage = Stage()
    quotas = Quotas(single_normal=0, single_anomaly=0)
    service = Context(
        Catalog(database), Models(database), PackagingJobs(database), Buckets(tmp_path / "buckets"),
        stage, StateFolder(tmp_path), Keyring(tmp_path / "keyring.json"), Scratch(tmp_path), lambda:
        None, quotas,
    )  # fmt: skip
    yield World(service, stage)
    database.close()


def dataset_in(world: World, status: str) -> None:
    catalog = world.service.catalog
    project = catalog.add_project(SCOPE, "part_1", 1.0)
    assert project is not None
    row = catalog.add_dataset(project, "train", DatasetStatus(status), "", 1.0)
    assert row is not None
    catalog.put_entries(row.id, [DatasetEntry("s3://bucket/a", "{}", "normal")], 1.0)


READS = ("DescribeDataset", "ListDatasetEntries", "DescribeProject", "ListProjects")
IDLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_FAILED_ROLLBACK_COMPLETE")
DATASET_STATES = (
    *IDLE, "CREATE_IN_PROGRESS", "CREATE_FAILED", "UPDATE_IN_PROGRESS",
    "UPDATE_FAILED_ROLLBACK_IN_PROGRESS", "DELETE_IN_PROGRESS",
)  # fmt: skip
DATASET_TABLE = [
    (status, operation, wanted)
    for status in DATASET_STATES
    for operation, wanted in {
        **dict.fromkeys(READS, ALLOWED),
        "CreateDataset": CONFLICT,
        "UpdateDatasetEntries": ALLOWED if status in IDLE else CONFLICT,
        "DeleteDataset": CONFLICT if status.endswith("IN_PROGRESS") else ALLOWED,
        "CreateModel": ALLOWED if status in IDLE else CONFLICT,
        "DeleteProject": CONFLICT,
        "CreateProject": CONFLICT,
    }.items()
]


@pytest.mark.parametrize(("status", "operation", "wanted"), DATASET_TABLE)
def test_a_data_set_s_state_decides(world: World, status: str, operation: str, wanted: str) -> None:
    dataset_in(world, status)
    assert world.ask(operation) == wanted


S = ModelStatus
SETTLED = {S.TRAINED, S.TRAINING_FAILED, S.HOSTING_FAILED}
TRAINED = {S.TRAINED, S.STARTING_HOSTING, S.HOSTED, S.HOSTING_FAILED, S.STOPPING_HOSTING,
           S.SYSTEM_UPDATING}  # fmt: skip
MODEL_TABLE = [
    (status, operation, ALLOWED if status in allowed else CONFLICT)
    for status in S
    for operation, allowed in {
        "DescribeModel": set(S),
        "ListModels": set(S),
        "ListTagsForResource": set(S),
        "TagResource": set(S),
        "UntagResource": set(S),
        "StartModel": {S.TRAINED, S.HOSTING_FAILED},
        "StopModel": {S.HOSTED},
        "DetectAnomalies": {S.HOSTED, S.SYSTEM_UPDATING},
        "DeleteModel": SETTLED,
        "StartModelPackagingJob": TRAINED,
        "DeleteProject": set(),
    }.items()
]


def model_in(world: World, status: ModelStatus) -> None:
    """A model that is told to be in the state, the way it gets there in a daemon."""
    service = world.service
    project = service.catalog.add_project(SCOPE, "part_1", 1.0)
    assert project is not None
    settled = {S.TRAINING, S.TRAINED, S.TRAINING_FAILED, S.DELETING}
    row_status = status if status in settled or status is S.STOPPING_HOSTING else S.HOSTED
    world.stage.status = None if status in settled else status
    facts = {"output": {"Bucket": "bucket", "Prefix": ""}, "units": 1, "most": 1}
    service.models.add(project, row_status, "", facts, 1.0)


@pytest.mark.parametrize(("status", "operation", "wanted"), MODEL_TABLE)
def test_a_model_s_state_decides(
    world: World, status: ModelStatus, operation: str, wanted: str
) -> None:
    model_in(world, status)
    more = {"Body": PICTURE} if operation == "DetectAnomalies" else {}
    assert world.ask(operation, **more) == wanted


NAMED = sorted(set(OPERATIONS) - {"CreateProject", "ListProjects"})


@pytest.mark.parametrize("operation", NAMED)
def test_what_is_not_there_is_not_found(world: World, operation: str) -> None:
    assert world.ask(operation) == ABSENT


def test_every_operation_stands_in_a_table() -> None:
    tables = {row[1] for row in (*DATASET_TABLE, *MODEL_TABLE)}
    assert tables | {"DescribeModelPackagingJob", "ListModelPackagingJobs"} == set(OPERATIONS)
