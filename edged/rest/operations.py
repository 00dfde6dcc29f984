"""The operations as one table: path, code, members with their constraints, and who answers.

Owns the surface of API 2020-11-20, and what edged adds to it under a prefix of its own. A row does
nothing by itself: chain.py lets a request through and calls `does`. Constraints are those of the
final service model, with two exceptions, both in favour of clients: `latest` is taken where the
reference of 2021 took it (DeleteModel), and what is answered is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from edged.core.names import ID_LETTERS
from edged.rest import datasets, detection, labels, models, packaging, projects, tags, trainings
from edged.rest.constraints import (
    Blob,
    Boolean,
    Integer,
    ListOf,
    Shape,
    String,
    Structure,
    Timestamp,
)
from edged.rest.context import Call, Context

VERSION = "2020-11-20"
PREFIX = f"/{VERSION}"
TOKEN_HEADER = "X-Amzn-Client-Token"

Place = Literal["path", "query", "header", "body", "payload"]
Behaviour: TypeAlias = Callable[[Context, Call], dict[str, Any]]
"""What an operation does with checked parameters; raises the errors of core."""

PROJECT_NAME = String(1, 255, r"[a-zA-Z0-9][a-zA-Z0-9_\-]*")
DATASET_TYPE = String(1, 10, r"train|test")
MODEL_VERSION = String(1, 10, r"([1-9][0-9]*|latest)")
CLIENT_TOKEN = String(1, 64, r"[a-zA-Z0-9-]+")
BUCKET = String(3, 63, r"[0-9A-Za-z\.\-_]*")
KEY = r"([a-zA-Z0-9!_.*'()-][/a-zA-Z0-9!_.*'()-]*)?"
UNITS = Integer(1)
PAGE = Integer(1, 100)
NEXT = String(0, 2048, r"[a-zA-Z0-9\/\+\=]{0,2048}")
JOB_NAME = String(1, 64, r"[a-zA-Z0-9-]+")
WORDS = String(1, 256, r"[a-zA-Z0-9-_. ()':,;?]+")
TAG_ARN = String(1, 1011)
TAG_KEY = String(1, 128, letters=True)
TAG = Structure({"Key": TAG_KEY, "Value": String(0, 256, letters=True)}, ("Key", "Value"))
TAGS = ListOf(TAG, 0, 200)
S3_LOCATION = Structure({"Bucket": BUCKET, "Prefix": String(0, 1024, KEY)}, ("Bucket",))
S3_OBJECT = Structure(
    {"Bucket": BUCKET, "Key": String(1, 1024, KEY), "VersionId": String(1, 1024, r".*")},
    ("Bucket", "Key"),
)
PLATFORM = Structure(
    {
        "Os": String(choices=("LINUX",)),
        "Arch": String(choices=("ARM64", "X86_64")),
        "Accelerator": String(choices=("NVIDIA",)),
    },
    ("Os", "Arch"),
)
GREENGRASS = Structure(
    {
        "CompilerOptions": String(3, 1024, r".*"),
        "TargetDevice": String(choices=("jetson_xavier",)),
        "TargetPlatform": PLATFORM,
        "S3OutputLocation": S3_LOCATION,
        "ComponentName": String(1, 128, r"[a-zA-Z0-9-_.]+"),
        "ComponentVersion": String(1, 64, r"([0-9]{1,6})\.([0-9]{1,6})\.([0-9]{1,6})"),
        "ComponentDescription": WORDS,
        "Tags": TAGS,
    },
    ("S3OutputLocation", "ComponentName"),
)


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a request: where it travels and under what name there."""

    shape: Shape
    place: Place = "body"
    name: str = ""


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation; `path` holds {members} in braces, under the name of the member's place."""

    name: str
    method: str
    path: str
    does: Behaviour
    code: int = 200
    members: Mapping[str, Member] = field(default_factory=dict)
    required: tuple[str, ...] = ()

    @property
    def idempotent(self) -> bool:
        """Whether a client token makes two calls one."""
        return "ClientToken" in self.members


_PROJECT = {"ProjectName": Member(PROJECT_NAME, "path", "projectName")}
_DATASET = {**_PROJECT, "DatasetType": Member(DATASET_TYPE, "path", "datasetType")}
_MODEL = {**_PROJECT, "ModelVersion": Member(MODEL_VERSION, "path", "modelVersion")}
_JOB = {**_PROJECT, "JobName": Member(JOB_NAME, "path", "jobName")}
_RESOURCE = {"ResourceArn": Member(TAG_ARN, "path", "resourceArn")}
_TOKEN = {"ClientToken": Member(CLIENT_TOKEN, "header", TOKEN_HEADER)}
_PAGES = {
    "NextToken": Member(NEXT, "query", "nextToken"),
    "MaxResults": Member(PAGE, "query", "maxResults"),
}
_SOURCE = Structure({"GroundTruthManifest": Structure({"S3Object": S3_OBJECT})})
_P, _D, _M = ("ProjectName",), ("ProjectName", "DatasetType"), ("ProjectName", "ModelVersion")
_AT = "/projects/{projectName}"
_SETS, _VERSIONS = f"{_AT}/datasets", f"{_AT}/models"
_SET, _VERSION = f"{_SETS}/{{datasetType}}", f"{_VERSIONS}/{{modelVersion}}"
_JOBS = f"{_AT}/modelpackagingjobs"

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "CreateProject", "POST", "/projects", projects.create, 200,
        {"ProjectName": Member(PROJECT_NAME), **_TOKEN}, _P,
    ),
    Operation("ListProjects", "GET", "/projects", projects.list_all, 200, _PAGES),
    Operation("DescribeProject", "GET", _AT, projects.describe, 200, _PROJECT, _P),
    Operation("DeleteProject", "DELETE", _AT, projects.delete, 200, {**_PROJECT, **_TOKEN}, _P),
    Operation(
        "CreateDataset", "POST", _SETS, datasets.create, 202,
        {**_PROJECT, "DatasetType": Member(DATASET_TYPE), "DatasetSource": Member(_SOURCE),
         **_TOKEN}, _D,
    ),
    Operation("DescribeDataset", "GET", _SET, datasets.describe, 200, _DATASET, _D),
    Operation("DeleteDataset", "DELETE", _SET, datasets.delete, 202, {**_DATASET, **_TOKEN}, _D),
    Operation(
        "ListDatasetEntries", "GET", f"{_SET}/entries", datasets.list_entries, 200,
        {
            **_DATASET,
            "Labeled": Member(Boolean(), "query", "labeled"),
            "AnomalyClass": Member(String(1, 10, r"(normal|anomaly)"), "query", "anomalyClass"),
            "BeforeCreationDate": Member(Timestamp(), "query", "createdBefore"),
            "AfterCreationDate": Member(Timestamp(), "query", "createdAfter"),
            "SourceRefContains": Member(String(1, 2048, r".*\S.*"), "query", "sourceRefContains"),
            **_PAGES,
        }, _D,
    ),
    Operation(
        "UpdateDatasetEntries", "PATCH", f"{_SET}/entries", datasets.update, 202,
        {**_DATASET, "Changes": Member(Blob(1, 10_485_760)), **_TOKEN}, (*_D, "Changes"),
    ),
    Operation(
        "CreateModel", "POST", _VERSIONS, trainings.create, 202,
        {
            **_PROJECT,
            "Description": Member(String(1, 500, r"[0-9A-Za-z\.\-_]*")),
            "OutputConfig": Member(Structure({"S3Location": S3_LOCATION}, ("S3Location",))),
            "KmsKeyId": Member(String(1, 2048, r"[A-Za-z0-9][A-Za-z0-9:_/+=,@.-]{0,2048}")),
            "Tags": Member(TAGS),
            **_TOKEN,
        }, (*_P, "OutputConfig"),
    ),
    Operation("ListModels", "GET", _VERSIONS, models.list_all, 200, {**_PROJECT, **_PAGES}, _P),
    Operation("DescribeModel", "GET", _VERSION, models.describe, 200, _MODEL, _M),
    Operation("DeleteModel", "DELETE", _VERSION, models.delete, 202, {**_MODEL, **_TOKEN}, _M),
    Operation(
        "StartModel", "POST", f"{_VERSION}/start", models.start, 202,
        {**_MODEL, "MinInferenceUnits": Member(UNITS), "MaxInferenceUnits": Member(UNITS),
         **_TOKEN}, (*_M, "MinInferenceUnits"),
    ),
    Operation("StopModel", "POST", f"{_VERSION}/stop", models.stop, 202, {**_MODEL, **_TOKEN}, _M),
    Operation(
        "DetectAnomalies", "POST", f"{_VERSION}/detect", detection.detect, 200,
        {**_MODEL, "Body": Member(Blob(), "payload"),
         "ContentType": Member(String(1, 255, r".*"), "header", "Content-Type")},
        (*_M, "Body", "ContentType"),
    ),
    Operation(
        "StartModelPackagingJob", "POST", _JOBS, packaging.start, 200,
        {
            **_PROJECT, "ModelVersion": Member(MODEL_VERSION), "JobName": Member(JOB_NAME),
            "Configuration": Member(Structure({"Greengrass": GREENGRASS}, ("Greengrass",))),
            "Description": Member(WORDS), **_TOKEN,
        }, (*_P, "ModelVersion", "Configuration"),
    ), Operation("ListModelPackagingJobs", "GET", _JOBS, packaging.list_all, 200, {**_PROJECT,
    **_PAGES}, _P), Operation(
        "DescribeModelPackagingJob", "GET", f"{_JOBS}/{{jobName}}", packaging.describe, 200, _JOB,
        ("ProjectName", "JobName"),
    ),
    Operation("ListTagsForResource", "GET", "/tags/{resourceArn}", tags.list_all, 200, _RESOURCE,
              ("ResourceArn",)),
    Operation("TagResource", "POST", "/tags/{resourceArn}", tags.add, 200,
              {**_RESOURCE, "Tags": Member(TAGS)}, ("ResourceArn", "Tags")),
    Operation("UntagResource", "DELETE", "/tags/{resourceArn}", tags.remove, 200,
              {**_RESOURCE, "TagKeys": Member(ListOf(TAG_KEY, 0, 200), "query", "tagKeys")},
              ("ResourceArn", "TagKeys")),
)  # fmt: skip

OWN_PREFIX = "/edged/v1"
"""Of operations beside the surface; no path of the API begins so."""

OWN_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "LabelInspection", "PUT", "/inspections/{inspectionId}/label", labels.label, 200,
        {
            "InspectionId": Member(String(1, 64, f"{ID_LETTERS}+"), "path", "inspectionId"),
            "Label": Member(String(choices=("normal", "anomaly"))),
            "DatasetType": Member(DATASET_TYPE),
            "ProjectName": Member(PROJECT_NAME),
            "Classes": Member(ListOf(String(1, 64, r"[A-Za-z0-9 _.:-]+"), 0, 20)),
        }, ("InspectionId", "Label"),
    ),
)  # fmt: skip
"""Signed, authorized (`lookoutvision:NAME`), throttled and written down like all others."""
