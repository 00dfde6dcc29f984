"""rest-json: an HTTP request to an operation and its parameters, an answer or an error to HTTP.

Owns every form on the wire: paths, queries, headers, bodies. Calls no behaviour, and knows no store
and no server; what it is given and gives are plain values, so all of it can be tried without a
port.

Decision: malformed JSON and wrong types are ValidationException like every other fault of a
request. Which error the service gave is not known; this one is in its model, so every SDK knows it.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_to_bytes

from edged.core.errors import EdgedError, InvalidInput, QuotaExceeded, Resource
from edged.rest.constraints import ListOf, sentence
from edged.rest.context import SERVICE
from edged.rest.operations import OPERATIONS, OWN_OPERATIONS, OWN_PREFIX, PREFIX, Operation

TAGS_PATH = f"{PREFIX}/tags/"


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. path, query: as they came, percent-encoded; headers: lower-case names."""

    method: str
    path: str
    query: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    peer: str = ""

    def header(self, name: str) -> str | None:
        """The first header of this lower-case name."""
        return next((value for key, value in self.headers if key == name), None)


@dataclass(frozen=True, slots=True)
class Response:
    """One HTTP answer."""

    code: int
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


class UnknownOperation(EdgedError):
    """The path and method are no operation of the API."""

    aws_code = "UnknownOperationException"
    http_status = 404


def route(method: str, path: str) -> tuple[Operation, dict[str, str]]:
    """The operation, and its path's members by their names there. Raises UnknownOperation.

    The path is split before it is decoded: an ARN in it brings encoded slashes of its own. A
    client that does not encode them is understood, too.
    """
    patterns = _PATTERNS
    if path.startswith(f"{OWN_PREFIX}/"):
        patterns, segments = _OWN_PATTERNS, path.removeprefix(f"{OWN_PREFIX}/").split("/")
    elif path.startswith(TAGS_PATH):
        segments = ["tags", path[len(TAGS_PATH) :]]
    else:
        segments = path.removeprefix(PREFIX + "/").split("/") if path.startswith(PREFIX) else []
    for operation, pattern in patterns:
        if operation.method == method and len(pattern) == len(segments):
            values = _matched(pattern, segments)
            if values is not None:
                return operation, values
    raise UnknownOperation(f"{method} {path[:200]} is no operation of this service.")


def _split(operations: Sequence[Operation]) -> list[tuple[Operation, list[str]]]:
    return [(each, each.path.removeprefix("/").split("/")) for each in operations]


_PATTERNS, _OWN_PATTERNS = _split(OPERATIONS), _split(OWN_OPERATIONS)


def _matched(pattern: list[str], segments: list[str]) -> dict[str, str] | None:
    values: dict[str, str] = {}
    for expected, found in zip(pattern, segments, strict=True):
        if expected.startswith("{"):
            values[expected[1:-1]] = unquote(found, errors="replace")
        elif expected != found:
            return None
    return values


def parameters(operation: Operation, path: Mapping[str, str], request: Request) -> dict[str, Any]:
    """The request's members, checked and in the operations' form. Raises InvalidInput."""
    query = _query(request.query)
    body = _json(request.body) if _has_body(operation) else {}
    faults: list[str] = []
    result: dict[str, Any] = {}
    for name, member in operation.members.items():
        place = member.name or name
        where = name[:1].lower() + name[1:]
        value: Any
        if member.place == "path":
            value = path[place]
        elif member.place == "query":
            found = query.get(place)
            value = found if isinstance(member.shape, ListOf) else found and found[0]
            if isinstance(value, str) and value == "" and name in ("NextToken", "MaxResults"):
                value = None  # an empty field of a form, not a wrong one
        elif member.place == "header":
            value = request.header(place.lower())
        elif member.place == "payload":
            result[name] = request.body
            if not request.body:
                faults.append(_absent(where))
            continue
        else:
            value = body.get(name)
        if value is not None:
            result[name] = member.shape.check(value, where, faults)
        elif name in operation.required:
            result[name] = None
            faults.append(_absent(where))
    if faults:
        raise InvalidInput(sentence(faults))
    return result


def _absent(where: str) -> str:
    return f"Value at '{where}' failed to satisfy constraint: Member must not be null"


def _has_body(operation: Operation) -> bool:
    return any(member.place == "body" for member in operation.members.values())


def _query(text: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=1000)
    except ValueError:
        raise InvalidInput("The query has more than 1000 fields.") from None
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return found


def _json(data: bytes) -> dict[str, Any]:
    if not data.strip():
        return {}
    try:
        found = json.loads(data.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidInput("The body is not valid JSON in UTF-8.") from None
    if not isinstance(found, dict):
        raise InvalidInput("The body is not a JSON object.")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(name)


def answer(operation: Operation, value: Mapping[str, Any]) -> Response:
    """An operation's answer."""
    body = json.dumps(_encoded(value), allow_nan=False, ensure_ascii=False).encode("utf-8")
    return Response(operation.code, body, {"Content-Type": "application/json"})


def _encoded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _encoded(each) for key, each in value.items() if each is not None}
    if isinstance(value, (list, tuple)):
        return [_encoded(each) for each in value]
    if isinstance(value, datetime):
        return math.floor(value.timestamp() * 1000) / 1000
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return value


def failure(error: EdgedError) -> Response:
    """An error's answer; its sentence, and what its kind carries beside it."""
    body: dict[str, Any] = {"Message": str(error)}
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": error.aws_code}
    resource: Resource | None = getattr(error, "resource", None)
    if resource is not None:
        body["ResourceType"], body["ResourceId"] = resource
    if isinstance(error, QuotaExceeded):
        body["QuotaCode"], body["ServiceCode"] = error.quota, SERVICE
    if error.http_status == 429:
        body["ServiceCode"] = SERVICE
        headers["Retry-After"] = "1"
    return Response(error.http_status, json.dumps(body).encode("utf-8"), headers)


def percent_decoded(text: str) -> str:
    """A path for logs: decoded, control characters as escapes, so that a line stays a line."""
    decoded = unquote_to_bytes(text).decode("utf-8", "replace")
    return re.sub(r"[\x00-\x1f\x7f]", lambda found: f"\\x{ord(found[0]):02x}", decoded)
