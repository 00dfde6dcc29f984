"""What would have taken the line down, or told a lie: found by trying to break a running daemon."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import sqlite3
import struct
import threading
import zlib
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import ClientError

from edged.config import Config, Quotas, RestConfig, SimulatedCameraConfig
from edged.core.errors import ModelError
from edged.core.lifecycle import ModelStatus
from edged.daemon.app import App
from edged.rest import server
from edged.store.catalog import Scope
from edged.store.credentials import Credentials
from edged.store.database import Database
from tests.rest.test_life import PATIENCE, daemon
from tests.support.broker import free_port, wait_until
from tests.support.rest_server import Rest, rest_server

AT: dict[str, Any] = {"ProjectName": "p"}
TRAIN: dict[str, Any] = {**AT, "DatasetType": "train"}


def line(number: int, **more: Any) -> str:
    meta = {"class-name": "normal", "type": "groundtruth/image-classification"}
    entry = {"source-ref": f"s3://parts/{number}.png", "l": 0, "l-metadata": meta}
    return json.dumps({**entry, **more})


def update(rest: Rest, *lines: str) -> dict[str, Any]:
    """What becomes of an update."""
    aws = rest.client()
    aws.update_dataset_entries(**TRAIN, Changes="\n".join(lines).encode())
    rest.settle()
    told: dict[str, Any] = aws.describe_dataset(**TRAIN)["DatasetDescription"]
    return told


def empty(rest: Rest) -> None:
    rest.client().create_project(**AT)
    rest.client().create_dataset(**TRAIN)


def test_a_line_that_no_text_can_hold_fails_its_update_and_nothing_else(tmp_path: Path) -> None:
    with rest_server(tmp_path) as rest:
        empty(rest)
        for wrong, words in (
            ('{"source-ref":"s3://parts/\\ud800.png"}', "half of a character"),
            ('{"source-ref":"s3://parts/1.png","x":NaN}', "NaN is no number of JSON"),
            (base64.b64encode(line(1).encode()).decode(), "is base64 twice"),
        ):
            told = update(rest, wrong)
            assert told["Status"] == "UPDATE_FAILED_ROLLBACK_COMPLETE"
            assert words in told["StatusMessage"]
        assert update(rest, line(1, note="\u2028 \x85"))["Status"] == "UPDATE_COMPLETE"


def test_an_update_that_replaces_counts_no_picture_twice(tmp_path: Path) -> None:
    with rest_server(tmp_path, Quotas(train_images=3)) as rest:
        empty(rest)
        for _ in range(2):
            assert update(rest, *(line(n) for n in range(3)))["Status"] == "UPDATE_COMPLETE"
        told = update(rest, line(1), line(7))
        assert "Changes:2: more than the 3 pictures" in told["StatusMessage"]


def test_a_manifest_is_left_off_at_the_first_line_too_many(tmp_path: Path) -> None:
    with rest_server(tmp_path, Quotas(train_images=3)) as rest:
        rest.client().create_project(**AT)
        lines = [*map(line, range(4)), "x" * 1_000_000]
        (tmp_path / "buckets" / "parts" / "m").write_text("\n".join(lines))
        source = {"GroundTruthManifest": {"S3Object": {"Bucket": "parts", "Key": "m"}}}
        rest.client().create_dataset(**TRAIN, DatasetSource=source)
        rest.settle()
        told = rest.client().describe_dataset(**TRAIN)["DatasetDescription"]
        assert "m:4: more than the 3 pictures" in told["StatusMessage"]


def impatient(state: Path, aws: Any) -> Any:
    """The same client, which tries once."""
    key = Credentials(state / "credentials.json").all()[0]
    return boto3.client(
        "lookoutvision",
        endpoint_url=aws.meta.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=key.key_id,
        aws_secret_access_key=key.secret,
        config=BotoConfig(retries={"total_max_attempts": 1}),
    )


def test_the_api_goes_on_while_somebody_else_holds_its_catalog(tmp_path: Path) -> None:
    """For longer than a writer waits; what was accepted is done when it is free again."""
    state = tmp_path / "state"
    with daemon(state) as aws:
        aws.create_project(**AT)
        aws.create_dataset(**TRAIN)
        with contextlib.closing(sqlite3.connect(state / "catalog.sqlite")) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO pending (dataset, facts) VALUES (1, ?)",
                          (json.dumps({"changes": line(1)}),))  # fmt: skip
            with pytest.raises(ClientError, match="InternalServerException"):
                impatient(state, aws).create_project(ProjectName="q")
            other.commit()
        aws.create_project(ProjectName="r")  # wakes the worker
        stats = lambda: aws.describe_dataset(**TRAIN)["DatasetDescription"]["ImageStats"]  # noqa: E731
        assert wait_until(lambda: stats()["Total"] == 1, PATIENCE)


def test_a_damaged_catalog_does_not_keep_the_cameras_from_starting(
    tmp_path: Path, model: Path
) -> None:
    from edged.config import ModelConfig

    (tmp_path / "catalog.sqlite").write_bytes(b"no database" * 1000)
    rest = RestConfig(listen=f"127.0.0.1:{free_port()}")
    models = (ModelConfig(name="flange", path=model, engine="onnxruntime"),)
    camera = SimulatedCameraConfig(
        kind="simulated", name="cam", model="flange", width=320, height=240, rate=0, count=3
    )
    app = App(
        Config(state_dir=tmp_path, rest=rest, models=models, cameras=(camera,)),
        until_cameras_end=True,
    )
    app.run(signals=False)
    assert app.summary.totals()["inspections"] == 3
    alone = App(Config(state_dir=tmp_path, rest=rest))
    with pytest.raises(ModelError, match="restore it from a backup"):
        alone.run(signals=False)


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.sqlite")
    database.open()
    inside, done = threading.Event(), threading.Event()

    def write() -> None:
        with database.transaction():
            database.run("INSERT INTO tags VALUES ('a', 'b', 'c')")
            inside.set()
            assert done.wait(PATIENCE)

    writer = threading.Thread(target=write)
    writer.start()
    assert inside.wait(PATIENCE)
    assert database.rows("SELECT * FROM tags") == []
    done.set()
    writer.join()
    assert database.rows("SELECT * FROM tags") == [("a", "b", "c")]
    database.close()


def test_what_cannot_be_committed_is_undone_at_the_outermost_end(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.sqlite")
    database.open()
    undone: list[int] = []
    with pytest.raises(ZeroDivisionError), database.transaction():
        with database.transaction():
            database.on_rollback(lambda: undone.append(1))
        assert undone == []
        raise ZeroDivisionError
    assert undone == [1]
    with database.transaction():
        database.on_rollback(lambda: undone.append(2))
    assert undone == [1]
    database.close()


def bomb(side: int) -> bytes:
    """A small PNG of very many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * (side * 3 + 1) * 64, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_picture_s_size_and_kind_are_known_before_it_is_decoded(tmp_path: Path) -> None:
    from edged.core.errors import BadImage
    from edged.rest.context import check_picture

    for data, words in (
        (bomb(16384), "The image has 16384x16384 pixels; 64x64 to 4096x4096 are taken"),
        (bomb(32), "has 32x32 pixels"),
        (b"BM" + bytes(5000), "is neither PNG nor JPEG"),
        (bomb(100)[:-12], "truncated"),
        (b"", "is neither PNG nor JPEG"),
    ):
        with pytest.raises(BadImage, match=words):
            check_picture(Quotas(), data, "The image")
    assert check_picture(Quotas(), bomb(100), "The image") == (100, 100)


@pytest.mark.parametrize(
    "target",
    [
        "/2020-11-20/projects?nextToken=" + base64.b64encode(text.encode()).decode().rstrip("=")
        + "=" * (-len(base64.b64encode(text.encode()).decode().rstrip("=")) % 4)
        for text in ('["projects", 99999999999999999999]', "[" * 1400, '["projects", "\\ud800"]',
                     '["models p", "x"]', "[]", '["projects", true]')
    ],
)  # fmt: skip
def test_a_token_that_was_made_up_is_a_validation_exception(tmp_path: Path, target: str) -> None:
    from tests.rest.test_port import headers

    with rest_server(tmp_path) as rest:
        target = target.replace("=", "%3D").replace("nextToken%3D", "nextToken=")
        target = target.replace("+", "%2B")
        connection = http.client.HTTPConnection("127.0.0.1", rest.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", target, headers=headers(rest, "GET", target))
            answer = connection.getresponse()
            body = answer.read()
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (400, "ValidationException")
        assert b"NextToken is not one" in body


def test_a_signature_that_is_no_ascii_is_wrong_and_no_fault(tmp_path: Path) -> None:
    from tests.rest.test_port import headers

    with rest_server(tmp_path) as rest:
        fields = headers(rest, "GET", "/2020-11-20/projects")
        fields["Authorization"] = fields["Authorization"][:-3] + "\xe9\xe9\xe9"
        connection = http.client.HTTPConnection("127.0.0.1", rest.port, timeout=10)
        with contextlib.closing(connection):
            connection.putrequest("GET", "/2020-11-20/projects", skip_host=True)
            for name, value in fields.items():
                connection.putheader(name, value.encode("latin-1"))
            connection.endheaders()
            assert connection.getresponse().status == 403
        assert rest.done[-1].who == rest.key.key_id  # as it claimed


def test_tags_obey_one_rule_and_end_with_their_project(tmp_path: Path) -> None:
    with rest_server(tmp_path) as rest:
        aws = rest.client()
        arn = aws.create_project(**AT)["ProjectMetadata"]["ProjectArn"]
        aws.tag_resource(ResourceArn=arn, Tags=[{"Key": "old", "Value": "1"}])
        aws.delete_project(**AT)
        aws.create_project(**AT)
        assert aws.list_tags_for_resource(ResourceArn=arn)["Tags"] == []


def test_a_connection_without_a_request_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    with rest_server(tmp_path) as rest:
        for begun in (b"", b"GET /2020-11-20/projects HTT"):
            with socket.create_connection(("127.0.0.1", rest.port), 10) as idle:
                idle.sendall(begun)
                assert idle.recv(100) == b""
        assert rest.client().list_projects()["Projects"] == []


def test_a_body_that_is_refused_is_written_down(tmp_path: Path) -> None:
    with rest_server(tmp_path) as rest:
        with socket.create_connection(("127.0.0.1", rest.port), 10) as big:
            head = b"POST /2020-11-20/projects HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
            with contextlib.suppress(OSError):
                big.sendall(head % (server.LARGEST_BODY + 9) + bytes(server.LARGEST_BODY + 9))
            answer = http.client.HTTPResponse(big)
            answer.begin()
            assert answer.headers["x-amzn-RequestId"]
        assert rest.done[-1].code == 400 and "projects" in rest.done[-1].what


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "localhost:8443"}, 200),
        ({"Host": "[::1]:8443"}, 200),
        ({}, 200),
    ],
)
def test_without_keys_no_web_page_is_served(
    tmp_path: Path, fields: dict[str, str], status: int
) -> None:
    port = free_port()
    rest = RestConfig(listen=f"127.0.0.1:{port}", anonymous=True)
    app = App(Config(state_dir=tmp_path, rest=rest))
    thread = threading.Thread(target=app.run, kwargs={"signals": False})
    thread.start()
    try:
        assert wait_until(lambda: answered(port, fields) == status, PATIENCE)
    finally:
        app.stop()
        thread.join(PATIENCE)


def answered(port: int, fields: dict[str, str]) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        with contextlib.closing(connection):
            connection.request("GET", "/2020-11-20/projects", headers=fields)
            return connection.getresponse().status
    except OSError:
        return 0


def trained(rest: Rest, versions: int) -> None:
    """Models that the catalog takes for trained, and whose folders are not there."""
    aws, service = rest.client(), rest.service
    aws.create_project(**AT)
    project = service.catalog.project(Scope(rest.key.account, "us-east-1"), "p")
    assert project is not None
    for _ in range(versions):
        facts = {"output": {"Bucket": "parts", "Prefix": ""}}
        service.models.add(project, ModelStatus.TRAINED, "", facts, 1.0)


def test_a_model_that_failed_holds_no_units(tmp_path: Path) -> None:
    with rest_server(tmp_path) as rest:  # it has four units
        trained(rest, 2)
        aws = rest.client()
        for version in ("1", "2"):
            aws.start_model(**AT, ModelVersion=version, MinInferenceUnits=4)
            told = lambda v=version: aws.describe_model(**AT, ModelVersion=v)["ModelDescription"]  # noqa: E731
            assert wait_until(lambda: told()["Status"] == "HOSTING_FAILED", PATIENCE)  # noqa: B023
            assert "no such model folder" in told()["StatusMessage"]


def test_an_output_that_cannot_be_is_refused_before_the_training(tmp_path: Path) -> None:
    small = Quotas(single_normal=1, single_anomaly=0)
    with rest_server(tmp_path, small) as rest:
        empty(rest)
        update(rest, line(1))
        aws = rest.client()
        for where, words in (
            ({"Bucket": "nope"}, "there is no folder"),
            ({"Bucket": "parts", "Prefix": "x/../../y"}, "is no key of an object"),
        ):
            with pytest.raises(ClientError, match=f"ValidationException.*{words}"):
                aws.create_model(**AT, OutputConfig={"S3Location": where})
        good = {"S3Location": {"Bucket": "parts"}}
        for tags in ([{"Key": "aws:x", "Value": ""}], [{"Key": "a", "Value": ""}] * 2):
            with pytest.raises(ClientError, match=r"ValidationException.*tag"):
                aws.create_model(**AT, OutputConfig=good, Tags=tags)
        assert aws.list_models(**AT)["Models"] == []


def test_whoever_is_woken_finds_what_was_committed(tmp_path: Path) -> None:
    database = Database(tmp_path / "c.sqlite")
    database.open()
    seen: list[int] = []
    look = lambda: seen.append(len(database.rows("SELECT * FROM tags")))  # noqa: E731
    with database.transaction():
        with database.transaction():
            database.run("INSERT INTO tags VALUES ('a', 'b', 'c')")
            database.on_commit(look)
        assert seen == []
    assert seen == [1]
    with pytest.raises(ZeroDivisionError), database.transaction():
        database.on_commit(look)
        raise ZeroDivisionError
    database.on_commit(look)
    assert seen == [1, 1]
    database.close()
