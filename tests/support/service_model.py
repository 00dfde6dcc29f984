"""The final service model, from the last botocore that carried it, and requests made from it."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import botocore.loaders

from edged.rest.protocol import Request

MODEL: dict[str, Any] = botocore.loaders.Loader().load_service_model(
    "lookoutvision", "service-2", api_version="2020-11-20"
)
SHAPES: dict[str, Any] = MODEL["shapes"]
OPERATIONS: dict[str, Any] = MODEL["operations"]

GOOD: dict[str, Any] = {
    "ProjectName": "part_1", "DatasetType": "train", "ModelVersion": "1",
    "ModelVersionNoLatest": "1", "ClientToken": "token-1", "IsLabeled": True,
    "AnomalyClassFilter": "normal", "DateTime": "2020-06-23T01:02:03Z", "PaginationToken": "YWJj",
    "PageSize": 10, "QueryString": "x", "DatasetChanges": b"{}", "ModelDescriptionMessage": "v1",
    "KmsKeyId": "alias/key", "S3BucketName": "bucket", "S3KeyPrefix": "models/",
    "S3ObjectKey": "a/b.manifest", "S3ObjectVersion": "v", "InferenceUnits": 1, "Stream": b"jpeg",
    "ContentType": "image/jpeg", "ModelPackagingJobName": "job-1", "CompilerOptions": "{ }",
    "TargetDevice": "jetson_xavier", "TargetPlatformOs": "LINUX", "TargetPlatformArch": "ARM64",
    "TargetPlatformAccelerator": "NVIDIA", "ComponentName": "part", "ComponentVersion": "1.0.0",
    "ComponentDescription": "words", "ModelPackagingJobDescription": "words", "TagKey": "line",
    "TagValue": "3",
    "TagArn": "arn:aws:lookoutvision:us-east-1:123456789012:model/part_1/1",
}  # fmt: skip


def example(shape: str) -> Any:
    """A value of the shape that is right, with all its members."""
    kind = SHAPES[shape]
    if kind["type"] == "structure":
        return {name: example(each["shape"]) for name, each in kind["members"].items()}
    if kind["type"] == "list":
        return [example(kind["member"]["shape"])]
    return GOOD[shape]


@dataclass(frozen=True)
class Fault:
    """One constraint of one member, broken: where, which, and the request's members then."""

    operation: str
    member: str
    constraint: str
    members: dict[str, Any]


def faults(operation: str) -> Iterator[Fault]:
    """Every constraint of every member of the operation's request, broken one at a time."""
    shape = OPERATIONS[operation]["input"]["shape"]
    good = example(shape)
    for path, constraint, value in _broken(shape, ()):
        members = copy.deepcopy(good)
        holder = members
        for step in path[:-1]:
            holder = holder[step]
        if constraint == "missing":
            del holder[path[-1]]
        else:
            holder[path[-1]] = value
        yield Fault(operation, ".".join(map(str, path)), constraint, members)


def _broken(shape: str, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str, Any]]:
    kind = SHAPES[shape]
    if kind["type"] == "structure":
        for name, each in kind["members"].items():
            inner = (*path, name)
            if name in kind.get("required", ()) and each.get("location") != "uri":
                yield inner, "missing", None
            for found in _broken(each["shape"], inner):
                # What has no types on the wire cannot have a wrong one; an empty header or path
                # is a matter of length, which is among them.
                textual = each.get("location") in ("uri", "header", "querystring")
                if not (textual and found[1] == "wrong type" and _is_text(each["shape"])):
                    yield found
        return
    if kind.get("streaming"):
        return
    if kind["type"] == "list":
        member = kind["member"]["shape"]
        if "max" in kind:
            yield path, "too long", [example(member)] * (kind["max"] + 1)
        if not path or path[-1] != "TagKeys":  # in a query everything repeats
            yield path, "wrong type", "text"
        for inner, constraint, value in _broken(member, (*path, 0)):
            yield inner, constraint, value
        return
    yield from ((path, *each) for each in _scalar(kind, GOOD[shape]))


def _is_text(shape: str) -> bool:
    return SHAPES[shape]["type"] == "string"


def _scalar(kind: dict[str, Any], good: Any) -> Iterator[tuple[str, Any]]:
    least, most = kind.get("min"), kind.get("max")
    if kind["type"] == "string":
        if least:
            yield "too short", good[: least - 1]
        if most:
            yield "too long", (good or "a") * (most + 1)
        if "enum" in kind:
            yield "bad enum", "OTHER"
        if kind.get("pattern", ".*") != ".*":
            yield "bad pattern", "\u00a7\u00a7" if "\\S" not in kind["pattern"] else "  "
        yield "wrong type", {"a": 1}
    elif kind["type"] == "integer":
        if least is not None:
            yield "too small", least - 1
        if most is not None:
            yield "too large", most + 1
        yield "wrong type", "many"
    elif kind["type"] == "blob":
        yield "too short", b""
        yield "too long", bytes(most + 1)
        yield "wrong type", 7
    else:
        yield "wrong type", "perhaps"


def request(operation: str, members: dict[str, Any]) -> Request:
    """The HTTP request that carries the members, as SDKs lay it out, checking nothing."""
    spec = OPERATIONS[operation]
    shape = SHAPES[spec["input"]["shape"]]
    path = spec["http"]["requestUri"]
    query: list[tuple[str, str]] = []
    headers: list[tuple[str, str]] = []
    body: dict[str, Any] = {}
    payload = b""
    for name, value in members.items():
        each = shape["members"][name]
        where, place = each.get("location"), each.get("locationName", name)
        if where == "uri":
            path = path.replace("{" + place + "}", quote(str(value), safe=""))
        elif where == "querystring":
            texts = value if isinstance(value, list) else [value]
            query += [(place, str(t).lower() if isinstance(t, bool) else str(t)) for t in texts]
        elif where == "header":
            headers.append((place.lower(), str(value)))
        elif shape.get("payload") == name:
            payload = value
        else:
            body[name] = value
    if body:
        payload = json.dumps(body, default=lambda v: base64.b64encode(v).decode()).encode()
    return Request(spec["http"]["method"], path, urlencode(query), tuple(headers), payload)
