"""Who may come in: TLS, certificates of clients, the token, and the group of the socket."""

from __future__ import annotations

import grp
import os
import socket
import ssl
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from edged.core.errors import ConfigError
from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from edged.wire.pb import results_pb2, results_pb2_grpc
from tests.support.certificates import Papers, papers_of
from tests.support.grpc_box import Box, ask, channel, pixels, refused

TOKEN = "a-word-of-32-characters-in-ASCII"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers_of(tmp_path_factory.mktemp("papers"), "plant")


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n", encoding="ascii")
    return path


def list_models(line: grpc.Channel, *metadata: tuple[str, str]) -> pb.ListModelsResponse:
    return pb_grpc.EdgeAgentStub(line).ListModels(
        pb.ListModelsRequest(), metadata=metadata, timeout=20
    )


def trusted(papers: Papers, own: tuple[Path, Path] | None = None) -> grpc.ChannelCredentials:
    pair = [None, None] if own is None else [path.read_bytes() for path in own]
    return grpc.ssl_channel_credentials(papers.ca.read_bytes(), *pair)


def test_a_client_that_trusts_the_authority_is_served_by_tls_and_no_other(
    tmp_path: Path, papers: Papers
) -> None:
    box = Box(tmp_path, cert_file=papers.server, key_file=papers.server_key)
    box.doors.start()
    try:
        target = box.targets["tcp"]
        with grpc.secure_channel(target, trusted(papers)) as line:
            assert len(list_models(line).models) == 2
        with grpc.secure_channel(target, grpc.ssl_channel_credentials()) as line:
            with refused(grpc.StatusCode.UNAVAILABLE):
                list_models(line)
        with grpc.insecure_channel(target) as line, refused(grpc.StatusCode.UNAVAILABLE):
            list_models(line)
        with channel(box.targets["unix"]) as line:
            assert len(list_models(line).models) == 2
    finally:
        box.doors.close()


def test_old_versions_of_tls_are_refused(tmp_path: Path, papers: Papers) -> None:
    box = Box(tmp_path, cert_file=papers.server, key_file=papers.server_key)
    box.doors.start()
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    try:
        host, _, port = box.targets["tcp"].rpartition(":")
        with socket.create_connection((host, int(port)), 20) as plain, pytest.raises(OSError):
            old.wrap_socket(plain)
    finally:
        box.doors.close()


def test_with_an_authority_for_clients_only_its_certificates_come_in(
    tmp_path: Path, papers: Papers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = papers_of(tmp_path_factory.mktemp("other"), "stranger")
    box = Box(
        tmp_path,
        cert_file=papers.server,
        key_file=papers.server_key,
        client_ca_file=papers.ca,
    )
    box.doors.start()
    try:
        target = box.targets["tcp"]
        own = trusted(papers, (papers.client_key, papers.client))
        with grpc.secure_channel(target, own) as line:
            assert len(list_models(line).models) == 2
        for stranger in (None, (other.client_key, other.client)):
            with grpc.secure_channel(target, trusted(papers, stranger)) as line:
                with refused(grpc.StatusCode.UNAVAILABLE):
                    list_models(line)
    finally:
        box.doors.close()


def test_the_port_wants_the_token_and_the_socket_does_not(tmp_path: Path, token: Path) -> None:
    box = Box(tmp_path, token_file=token)
    box.doors.start()
    try:
        with channel(box.targets["unix"]) as line:
            assert len(list_models(line).models) == 2
        with channel(box.targets["tcp"]) as line:
            assert len(list_models(line, ("authorization", f"Bearer {TOKEN}")).models) == 2
            good = ("authorization", f"Bearer {TOKEN}")
            for metadata in (
                (),
                (("authorization", TOKEN),),
                (("authorization", f"Bearer {TOKEN}x"),),
                (("authorization", f"bearer {TOKEN}"),),
                (good, good),
            ):
                with refused(grpc.StatusCode.UNAUTHENTICATED, "Bearer TOKEN"):
                    list_models(line, *metadata)
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                pb_grpc.EdgeAgentStub(line).DetectAnomalies(ask(pixels(2048, 1024)))
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                list(results_pb2_grpc.InspectionsStub(line).Watch(results_pb2.WatchRequest()))
            box.observer.wait_for("refused", "UNAUTHENTICATED")
            assert not box.host.images
    finally:
        box.doors.close()


def test_a_probe_needs_no_token_and_whoever_watches_the_health_does(
    tmp_path: Path, token: Path
) -> None:
    box = Box(tmp_path, token_file=token)
    box.doors.start()
    try:
        with channel(box.targets["tcp"]) as line:
            health = health_pb2_grpc.HealthStub(line)
            status = health.Check(health_pb2.HealthCheckRequest()).status
            assert status == health_pb2.HealthCheckResponse.NOT_SERVING
            with refused(grpc.StatusCode.UNAUTHENTICATED):
                next(health.Watch(health_pb2.HealthCheckRequest()))
    finally:
        box.doors.close()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("cert_file", "no certificate and its unencrypted key"),
        ("key_file", "no certificate and its unencrypted key"),
        ("client_ca_file", "no certificate in PEM form"),
        ("token_file", "at least 16 visible"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_cannot_be_used_is_named_at_start(
    tmp_path: Path, papers: Papers, token: Path, key: str, words: str, there: bool
) -> None:
    files = {
        "cert_file": papers.server,
        "key_file": papers.server_key,
        "client_ca_file": papers.ca,
        "token_file": token,
    }
    bad = files[key] = tmp_path / "bad"
    if there:
        bad.write_text("short", encoding="ascii")
    box = Box(tmp_path, **files)
    with pytest.raises(ConfigError, match=words if there else "cannot be read") as caught:
        box.doors.start()
    assert str(bad) in str(caught.value)
    assert box.crew.ages() == {}
    assert not box.socket.exists()


def test_the_socket_is_given_to_the_group_by_name_or_number(tmp_path: Path) -> None:
    mine = os.getgid()
    given = mine if os.geteuid() else 12345  # a stranger's group is root's alone to give
    for group in (grp.getgrgid(mine).gr_name, given):
        box = Box(tmp_path, group=group)
        box.doors.start()
        try:
            assert box.socket.stat().st_gid == (given if isinstance(group, int) else mine)
            assert box.socket.stat().st_mode & 0o777 == 0o660
        finally:
            box.doors.close()


def test_a_group_that_does_not_exist_is_named_at_start(tmp_path: Path) -> None:
    box = Box(tmp_path, group="no-such-group")
    with pytest.raises(ConfigError, match="no group 'no-such-group'"):
        box.doors.start()
    assert box.crew.ages() == {}


def services(target: str) -> list[str]:
    with channel(target) as line:
        stub = reflection_pb2_grpc.ServerReflectionStub(line)
        asked = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        answer = next(stub.ServerReflectionInfo(asked))
        return [service.name for service in answer.list_services_response.service]


def test_the_services_are_told_only_when_that_is_turned_on(tmp_path: Path) -> None:
    box = Box(tmp_path)
    box.doors.start()
    with refused(grpc.StatusCode.UNIMPLEMENTED):
        services(box.targets["tcp"])
    box.doors.close()
    box = Box(tmp_path, reflection=True)
    box.doors.start()
    try:
        for target in box.targets.values():
            told = services(target)
            assert {"AWS.LookoutVision.EdgeAgent", "edged.v1.Inspections"} <= set(told)
    finally:
        box.doors.close()
