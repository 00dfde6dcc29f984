"""The API over HTTPS, which is how it may leave the machine."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import SSLError

from edged.core.errors import ConfigError
from edged.rest import server
from tests.support.broker import wait_until
from tests.support.certificates import Papers, papers_of
from tests.support.rest_server import Rest, rest_server


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers_of(tmp_path_factory.mktemp("papers"), "plant")


def client(rest: Rest, verify: Any) -> Any:
    return boto3.client(
        "lookoutvision",
        endpoint_url=f"https://127.0.0.1:{rest.port}",
        region_name="us-east-1",
        aws_access_key_id=rest.key.key_id,
        aws_secret_access_key=rest.key.secret,
        verify=verify,
        config=Config(retries={"total_max_attempts": 1}),
    )


def test_a_client_that_trusts_the_authority_is_served_over_https(
    tmp_path: Path, papers: Papers
) -> None:
    with rest_server(tmp_path, certificate=(papers.server, papers.server_key)) as rest:
        aws = client(rest, str(papers.ca))
        aws.create_project(ProjectName="p")
        assert [p["ProjectName"] for p in aws.list_projects()["Projects"]] == ["p"]
        with pytest.raises(SSLError):
            client(rest, True).list_projects()
        aws.close()
        plain = http.client.HTTPConnection("127.0.0.1", rest.port, timeout=10)
        with contextlib.closing(plain), pytest.raises((http.client.HTTPException, OSError)):
            plain.request("GET", "/")
            plain.getresponse()


def test_old_versions_of_tls_are_refused(tmp_path: Path, papers: Papers) -> None:
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        rest_server(tmp_path, certificate=(papers.server, papers.server_key)) as rest,
        socket.create_connection(("127.0.0.1", rest.port), 10) as connection,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(connection)


def test_a_key_that_is_not_the_certificate_s_is_a_sentence(tmp_path: Path, papers: Papers) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("no certificate")
    for pair, words in (
        ((papers.server, papers.client_key), "no certificate and its unencrypted key"),
        ((nonsense, papers.server_key), "no certificate and its unencrypted key"),
        ((tmp_path / "absent.pem", papers.server_key), "cannot be read"),
    ):
        with pytest.raises(ConfigError, match=words), rest_server(tmp_path / "s", certificate=pair):
            pass


def second(address: tuple[str, int], head: bytes) -> tuple[int, str | None]:
    """Status and Retry-After of a request that would be too much."""
    with socket.create_connection(address, 10) as connection:
        connection.sendall(head % 200_000 + bytes(200_000))
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        return answer.status, answer.headers["Retry-After"]


def test_bodies_that_are_held_at_once_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MOST_HELD", 1_000_000)
    head = b"POST /2020-11-20/projects HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    with rest_server(tmp_path) as rest:
        address = ("127.0.0.1", rest.port)
        with socket.create_connection(address, 10) as slow:
            slow.sendall(head % 900_000 + bytes(899_999))  # one byte is missing
            # Not before all of it has arrived: whichever comes last is the one too many.
            assert wait_until(lambda: rest.server.held == 899_999)
            assert second(address, head) == (429, "1")
            slow.sendall(b"0")
            answer = http.client.HTTPResponse(slow)
            answer.begin()
            assert answer.status == 403  # unsigned; but read
        aws = rest.client()
        for number in range(3):
            aws.create_project(ProjectName=f"p{number}")
