"""The port itself: what HTTP clients may send, and keys from the command line."""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edged.cli.main import main
from edged.rest.server import LARGEST_BODY
from edged.store.credentials import Credentials
from tests.support.rest_client import signed
from tests.support.rest_server import Rest, rest_server

PROJECTS = "/2020-11-20/projects"


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[Rest]:
    with rest_server(tmp_path / "state") as running:
        yield running


def headers(rest: Rest, method: str, target: str, body: bytes = b"") -> dict[str, str]:
    """Signed headers for a request of one's own."""
    key = rest.key
    found = dict(signed(method, target, (key.key_id, key.secret, None), body).headers)
    return {name.title(): value for name, value in found.items()}


def ask(rest: Rest, method: str, target: str, fields: dict[str, str]) -> http.client.HTTPResponse:
    """The answer, read to its end."""
    connection = http.client.HTTPConnection("127.0.0.1", rest.port, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, target, headers=fields)
        answer = connection.getresponse()
        answer.read()
        return answer


def exchange(rest: Rest, raw: bytes) -> tuple[int, bytes]:
    """Status and body of raw bytes sent to the port."""
    with socket.create_connection(("127.0.0.1", rest.port), 10) as connection:
        connection.sendall(raw)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.read()


def as_bytes(method: str, target: str, fields: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *(f"{k}: {v}" for k, v in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


def test_a_chunked_body_is_taken_as_a_whole_one(rest: Rest) -> None:
    body = b'{"ProjectName": "chunked"}'
    fields = {**headers(rest, "POST", PROJECTS, body), "Transfer-Encoding": "chunked"}
    fields.pop("Content-Length", None)
    chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (10, body[:10], len(body) - 10, body[10:])
    status, answer = exchange(rest, as_bytes("POST", PROJECTS, fields, chunks))
    assert status == 200, answer
    assert json.loads(answer)["ProjectMetadata"]["ProjectName"] == "chunked"


def test_who_expects_a_continue_is_told_to_go_on(rest: Rest) -> None:
    body = b'{"ProjectName": "expected"}'
    fields = headers(rest, "POST", PROJECTS, body)
    fields |= {"Expect": "100-continue", "Content-Length": str(len(body))}
    with socket.create_connection(("127.0.0.1", rest.port), 10) as connection:
        connection.sendall(as_bytes("POST", PROJECTS, fields))
        assert connection.recv(1024).startswith(b"HTTP/1.1 100")
        connection.sendall(body)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 200


def test_a_body_that_is_too_long_is_refused_before_it_is_whole(rest: Rest) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", rest.port, timeout=20)
    connection.putrequest("POST", PROJECTS)
    connection.putheader("Content-Length", str(LARGEST_BODY * 10))
    connection.endheaders()
    with contextlib.suppress(OSError):  # the answer may come first
        for _ in range(LARGEST_BODY // 2**20 + 2):
            connection.send(bytes(2**20))
    with contextlib.closing(connection):
        answer = connection.getresponse()
        assert answer.status == 400
        assert "allowed" in json.loads(answer.read())["Message"]


@pytest.mark.parametrize(
    ("method", "target", "status", "kind"),
    [
        ("GET", "/", 404, "UnknownOperationException"),
        ("PUT", PROJECTS, 404, "UnknownOperationException"),
        ("GET", "/2019-01-01/projects", 404, "UnknownOperationException"),
        ("GET", PROJECTS + "/a%20b", 400, "ValidationException"),
        ("GET", PROJECTS + "/", 400, "ValidationException"),
        ("GET", PROJECTS + "?maxResults=101", 400, "ValidationException"),
        ("GET", PROJECTS + "?nextToken=YWJj", 400, "ValidationException"),
        ("GET", PROJECTS + "/absent", 404, "ResourceNotFoundException"),
    ],
)
def test_what_is_no_request_of_the_api_has_its_error(
    rest: Rest, method: str, target: str, status: int, kind: str
) -> None:
    answer = ask(rest, method, target, headers(rest, method, target))
    assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (status, kind)
    assert len(answer.headers["x-amzn-RequestId"]) == 36
    assert answer.headers["Server"] is None


def test_an_unsigned_request_is_nobody_s(rest: Rest) -> None:
    answer = ask(rest, "GET", PROJECTS, {})
    assert answer.status == 403
    assert answer.headers["x-amzn-ErrorType"] == "MissingAuthenticationToken"


def said(*words: str) -> Any:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(list(words)) == 0
    return json.loads(out.getvalue())


def test_keys_are_made_listed_and_revoked_from_the_command_line(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text('state_dir = "state"\n')
    at = ("credentials", "--config", str(config), "--json")
    made = said(*at, "create", "--action", "lookoutvision:Detect*", "--region", "eu-*",
                "--hours", "2", "--note", "line 3")  # fmt: skip
    assert made["session_token"]
    (listed,) = said(*at, "list")["keys"]
    assert listed["actions"] == ["lookoutvision:Detect*"] and listed["note"] == "line 3"
    assert made["secret"] not in json.dumps(listed)
    keys = Credentials(tmp_path / "state" / "credentials.json")
    key = keys.find(made["key_id"])
    assert key is not None and key.allows("lookoutvision:DetectAnomalies", "eu-west-1")
    assert said(*at, "revoke", made["key_id"]) == {"revoked": made["key_id"]}
    assert keys.all() == []
    assert main([*at, "revoke", "AKIANOBODY"]) == 1
    assert main([*at, "create", "--action", "s3:*"]) == 2
    assert main([*at, "create", "--hours", "0"]) == 2


def test_the_port_leaves_this_machine_in_no_configuration(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text('state_dir = "state"\n[rest]\nlisten = "0.0.0.0:8443"\nanonymous = true\n')
    assert main(["check", "--config", str(config)]) == 2
