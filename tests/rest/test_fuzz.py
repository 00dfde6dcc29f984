"""Random requests: never a fault of the server's own, never a trace, and nothing grows."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from edged.rest import datasets
from edged.rest.chain import Chain, Throttle
from edged.rest.constraints import Timestamp
from edged.rest.operations import OPERATIONS, PREFIX
from edged.rest.protocol import Request
from tests.support.rest_server import Rest, rest_server

REQUESTS = 20_000
WORDS = (
    "p", "q", "train", "test", "latest", "1", "0", "-1", "", "x" * 300, "../..", "%00", "\u00e9",
    "s3://parts/a.jpg", "{}", "null", "true", "NaN", "1e999", "9" * 40, "2020-01-01T00:00:00Z",
    "arn:aws:lookoutvision:us-east-1:123456789012:project/p", "jetson_xavier", "normal", "parts",
)  # fmt: skip
TOKENS = tuple(
    base64.b64encode(text.encode()).decode()
    for text in ('["projects", 99999999999999999999]', "[" * 1400, "{}",
                 '["projects", "\\ud800"]', "[[]]",
                 '["projects", "p"]', '["models p", 1]', '["models p", -1]', '["projects", 1e999]')
)  # fmt: skip
NAMES = ("Bucket", "Key", "S3Object", "GroundTruthManifest", "S3Location", "Greengrass", "Value")
QUERIES = ("maxResults", "nextToken", "labeled", "createdBefore", "tagKeys", "anomalyClass")
PLACES = ("projectName", "datasetType", "modelVersion", "jobName", "resourceArn")


def value(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value, not too deep."""
    kind = chance.randrange(9 if depth < 4 else 6)
    if kind < 3:
        return chance.choice(WORDS)
    if kind == 3:
        return chance.choice([0, 1, -1, 2**70, 1.5, True, None])
    if kind == 4:
        return base64.b64encode(json.dumps({"source-ref": chance.choice(WORDS)}).encode()).decode()
    if kind == 5:
        first = chance.choice((0, 0, 0, 0xD800))  # halves of characters, which JSON can write
        return "".join(chr(first + chance.randrange(0x800)) for _ in range(chance.randrange(12)))
    if kind == 6:
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(NAMES): value(chance, depth + 1) for _ in range(chance.randrange(4))}


def request(chance: random.Random) -> Request:
    """Something like a request: most often to a known path, with members right and wrong."""
    operation = chance.choice(OPERATIONS)
    path = PREFIX + operation.path
    for name in PLACES:
        safe = "" if chance.random() < 0.9 else "/"
        word = "p" if name == "projectName" and chance.random() < 0.5 else chance.choice(WORDS)
        path = path.replace("{" + name + "}", quote(word, safe=safe))
    if chance.random() < 0.05:
        path = path[: chance.randrange(len(path))] + chance.choice(("", "//", "%", "%zz", "?"))
    method = operation.method if chance.random() < 0.95 else chance.choice(("PUT", "GET", "HEAD"))
    asked = [name for name in QUERIES if chance.random() < 0.15]
    query = "&".join(
        f"{name}={quote(chance.choice(TOKENS if name == 'nextToken' else WORDS))}" for name in asked
    )
    headers = [("content-type", chance.choice(("image/png", "image/jpeg", "text/html", "")))]
    if chance.random() < 0.2:
        headers.append(("x-amzn-client-token", chance.choice(("a", "b", "c d", "x" * 70))))
    body = {
        name: value(chance)
        for name, member in operation.members.items()
        if member.place == "body" and chance.random() < 0.8
    }
    raw = json.dumps(body).encode()
    if chance.random() < 0.1:
        raw = bytes(chance.randrange(256) for _ in range(chance.randrange(60)))
    if operation.name in ("CreateProject", "CreateDataset") and chance.random() < 0.4:
        raw = json.dumps({"ProjectName": "p", "DatasetType": "train"}).encode()
    return Request(method, path, query, tuple(headers), raw)


def anonymous(rest: Rest) -> Chain:
    """A chain that takes requests without a signature."""
    return Chain(rest.service, None, Throttle(0.0), [])


def test_twenty_thousand_random_requests_find_no_fault_and_nothing_grows(tmp_path: Path) -> None:
    chance = random.Random(20)
    with rest_server(tmp_path / "state") as rest:
        chain = anonymous(rest)
        seen: Counter[int] = Counter()
        for number in range(REQUESTS):
            sent = request(chance)
            answer = chain.handle(sent)
            seen[answer.code] += 1
            assert answer.code < 500, (sent, answer)
            assert b"Traceback" not in answer.body and b".py" not in answer.body
            found = json.loads(answer.body)
            if answer.code >= 400:
                assert found["Message"] and answer.headers["x-amzn-ErrorType"]
            if number % 50 == 0:
                datasets.settle(rest.service, lambda: False, lambda: None)
        assert seen[200] > 500 and seen[202] > 20 and seen[400] > 1000 and seen[404] > 1000, seen
        assert sum(f.stat().st_size for f in (tmp_path / "state").rglob("*")) < 20_000_000


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_a_timestamp_is_a_time_or_a_fault(text: str) -> None:
    faults: list[str] = []
    found = Timestamp().check(text, "createdBefore", faults)
    assert found.tzinfo is not None
    assert len(faults) <= 1


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(min_value=datetime(1000, 1, 1)),  # noqa: DTZ001 - the zone is added as text
    st.sampled_from(["", "Z", "+02:00", "-0730"]),
    st.booleans(),
)
def test_every_iso_8601_time_is_understood(when: Any, zone: str, short: bool) -> None:
    text = when.isoformat(timespec="milliseconds" if short else "microseconds") + zone
    faults: list[str] = []
    found = Timestamp().check(text, "createdBefore", faults)
    assert faults == []
    assert found.replace(tzinfo=None, microsecond=0) == when.replace(microsecond=0)
