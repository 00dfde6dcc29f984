"""TLS, certificates, user and password: who may connect, and what is said when it fails."""

from __future__ import annotations

import logging
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from edged.config import MqttConfig
from edged.core.errors import SinkError
from edged.mqtt import credentials
from tests.mqtt.test_delivery import numbers, on_disk, publishing
from tests.mqtt.test_trigger import box
from tests.support.broker import (
    Mosquitto,
    Subscriber,
    answers,
    free_port,
    require_mosquitto,
    wait_until,
)
from tests.support.certificates import Papers, papers_of, tool
from tests.support.plc import Plc

PASSWORD = "korrekt-Pferd-7"


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return papers_of(tmp_path_factory.mktemp("papers"), "plant")


@pytest.fixture
def passwords(tmp_path: Path) -> Path:
    """The broker's password file; it knows `station` and `mes`."""
    path = tmp_path / "passwords"
    path.write_text(f"station:{PASSWORD}\nmes:{PASSWORD}\n", encoding="ascii")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)
    command = [tool("mosquitto_passwd", "mosquitto"), "-U", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    return path


class Doors(NamedTuple):
    """A broker's ports, both for known users only: one with TLS, one without."""

    tls: int
    plain: int
    broker: Mosquitto


@contextmanager
def secured(papers: Papers, passwords: Path, *extra: str) -> Iterator[Doors]:
    plain = free_port()
    lines = [
        f"password_file {passwords}",
        f"cafile {papers.ca}",
        f"certfile {papers.server}",
        f"keyfile {papers.server_key}",
        *extra,
        f"listener {plain} 127.0.0.1",
    ]
    with Mosquitto(lines, anonymous=False) as broker:
        assert wait_until(lambda: answers(plain))
        yield Doors(broker.port, plain, broker)


def password_file(folder: Path, password: str) -> Path:
    path = folder / "password"
    path.write_text(password + "\n", encoding="utf-8")
    path.chmod(stat.S_IRUSR)
    return path


def with_password(folder: Path, password: str = PASSWORD) -> dict[str, Any]:
    return {"username": "station", "password_file": password_file(folder, password)}


def test_records_travel_over_tls_with_user_and_password(
    tmp_path: Path, papers: Papers, passwords: Path
) -> None:
    settings = with_password(tmp_path) | {"tls": True, "ca_file": papers.ca}
    with (
        secured(papers, passwords) as doors,
        Subscriber(doors.plain, "edged/#", username="mes", password=PASSWORD) as mes,
        publishing(tmp_path / "o.sqlite", doors.tls, **settings) as station,
    ):
        station.heard.wait_connected()
        station.accept(range(1, 301))
        assert numbers(mes.wait_for(300, topic="/full")) == list(range(1, 301))
        mes.wait_for(300, topic="/result")
    assert on_disk(tmp_path / "o.sqlite") == []


def test_a_client_certificate_is_shown_to_a_broker_that_asks_for_it(
    tmp_path: Path, papers: Papers, passwords: Path
) -> None:
    settings = with_password(tmp_path) | {"tls": True, "ca_file": papers.ca}
    certified = settings | {"cert_file": papers.client, "key_file": papers.client_key}
    outbox = tmp_path / "o.sqlite"
    with (
        secured(papers, passwords, "require_certificate true") as doors,
        Subscriber(doors.plain, "edged/+/full", username="mes", password=PASSWORD) as mes,
    ):
        with publishing(outbox, doors.tls, **settings) as without:
            without.accept(range(1, 11))
            without.heard.wait(lambda heard: len(heard.states) >= 1)
            assert not any(connected for connected, _ in without.heard.states)
        assert len(on_disk(outbox)) == 10
        with publishing(outbox, doors.tls, **certified):
            assert numbers(mes.wait_for(10)) == list(range(1, 11))


def test_a_wrong_password_is_a_clear_sentence_and_records_wait(
    tmp_path: Path, papers: Papers, passwords: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    outbox = tmp_path / "o.sqlite"
    wrong = with_password(tmp_path, "falsch-Esel-3")
    with (
        secured(papers, passwords) as doors,
        Subscriber(doors.plain, "edged/+/full", username="mes", password=PASSWORD) as mes,
    ):
        with publishing(outbox, doors.plain, **wrong) as station:
            station.accept(range(1, 21))
            station.heard.wait(lambda heard: bool(heard.states) and heard.backlog == 20)
            assert not station.heard.states[0][0]
        said = [record for record in caplog.records if "Not authorized" in record.message]
        assert len(said) == 1
        assert said[0].levelno == logging.ERROR
        assert said[0].message.startswith(
            f"MQTT broker 127.0.0.1:{doors.plain}: the broker refuses"
        )
        assert "check mqtt.username, password_file" in said[0].message
        assert len(on_disk(outbox)) == 20
        (tmp_path / "password").unlink()
        with publishing(outbox, doors.plain, **with_password(tmp_path)):
            assert numbers(mes.wait_for(20)) == list(range(1, 21))
    assert "falsch-Esel-3" not in caplog.text
    assert PASSWORD not in caplog.text
    assert on_disk(outbox) == []


# paho leaves the socket of a failed handshake to the garbage collector.
@pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")
def test_a_broker_with_a_certificate_of_another_authority_gets_nothing(
    tmp_path: Path, papers: Papers, passwords: Path, caplog: pytest.LogCaptureFixture
) -> None:
    papers_of(tmp_path, "stranger")
    outbox = tmp_path / "o.sqlite"
    settings = with_password(tmp_path) | {"tls": True, "ca_file": tmp_path / "ca.pem"}
    with secured(papers, passwords) as doors:
        with publishing(outbox, doors.tls, **settings) as station:
            station.accept(range(1, 6))
            station.heard.wait(lambda heard: bool(heard.states) and heard.backlog == 5)
            assert not station.heard.states[0][0]
        assert "station" not in doors.broker.log, "no password was shown"
    assert "cannot connect" in caplog.text
    assert "certificate verify failed" in caplog.text
    assert len(on_disk(outbox)) == 5


def test_a_file_that_cannot_be_used_is_named_before_anything_starts(tmp_path: Path) -> None:
    garbage = tmp_path / "garbage"
    garbage.write_bytes(b"\xff\xfe no certificate")
    settings: list[dict[str, Any]] = [
        {"username": "station", "password_file": tmp_path / "nowhere"},
        {"username": "station", "password_file": garbage},
        {"tls": True, "ca_file": tmp_path / "nowhere"},
        {"tls": True, "ca_file": garbage},
    ]
    for setting in settings:
        named = setting.get("password_file") or setting["ca_file"]
        with pytest.raises(SinkError, match=named.name):
            with publishing(tmp_path / "o.sqlite", free_port(), **setting):
                pass
    assert not (tmp_path / "o.sqlite").exists()


def test_what_is_read_shows_no_password_in_its_text(tmp_path: Path) -> None:
    found = credentials.read(MqttConfig(**with_password(tmp_path)))
    assert found.password == PASSWORD
    assert PASSWORD not in f"{found!r} {found}"


def test_a_password_in_clear_text_may_not_leave_the_machine(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="set tls = true"):
        MqttConfig(host="192.0.2.1", **with_password(tmp_path))


def test_the_client_id_is_short_the_same_each_time_and_differs_by_prefix() -> None:
    one = credentials.derived_id("plant/line1")
    assert one == credentials.derived_id("plant/line1") != credentials.derived_id("plant/line2")
    assert len(one) <= 23
    assert one.startswith("edged-")


SHIPPED = Path(__file__).parents[2] / "configs"


def test_the_shipped_access_list_gives_each_side_of_a_station_what_it_needs_and_no_more(
    tmp_path: Path,
) -> None:
    users = ("edged", "plc", "mes", "operator")
    passwords = tmp_path / "passwords"
    passwords.write_text("".join(f"{user}:{PASSWORD}\n" for user in users), encoding="ascii")
    command = [tool("mosquitto_passwd", "mosquitto"), "-U", str(passwords)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    lines = [f"password_file {passwords}", f"acl_file {SHIPPED / 'mosquitto.acl'}"]
    secret = password_file(tmp_path, PASSWORD)
    known: dict[str, Any] = {"username": "edged", "password_file": secret}
    with (
        Mosquitto(lines, anonymous=False) as broker,
        Plc(broker.port, "edged/s1", username="plc", password=PASSWORD) as plc,
        Plc(broker.port, "edged/s1", username="mes", password=PASSWORD) as mes,
        Plc(broker.port, "edged/s1", username="operator", password=PASSWORD) as operator,
        box(tmp_path / "state", broker.port, **known),
    ):
        plc.wait_state("ready")
        for stranger in (plc, mes):
            stranger.send("cmd", {"cmd": "stop"})
        mes.trigger(1, "FROM-MES")
        operator.trigger(2, "FROM-OPERATOR")
        plc.trigger(3)
        assert plc.wait("result", 1)[0]["seq"] == 3
        assert [r["part"] for r in mes.wait("full", 1)] == ["P"]
        operator.send("cmd", {"cmd": "stop", "id": "7"})
        assert operator.wait("cmd/reply", 1)[0]["id"] == "7"
        assert operator.wait_state("halted")["op"] == 2
        assert plc.got("full") == []
        assert mes.got("result") == operator.got("result") == []


@pytest.mark.parametrize("name", ["mosquitto.conf", "mosquitto-tls.conf"])
def test_the_shipped_settings_of_the_broker_are_taken_by_it(
    tmp_path: Path, papers: Papers, passwords: Path, name: str
) -> None:
    text = (SHIPPED / name).read_text(encoding="utf-8")
    port = free_port()
    for old, new in (
        ("listener 1883", f"listener {port}"),
        ("listener 8883", f"listener {port} 127.0.0.1"),
        ("/etc/mosquitto/certs/ca.pem", str(papers.ca)),
        ("/etc/mosquitto/certs/broker.pem", str(papers.server)),
        ("/etc/mosquitto/certs/broker.key", str(papers.server_key)),
        ("/etc/mosquitto/passwords", str(passwords)),
        ("/etc/mosquitto/edged.acl", str(SHIPPED / "mosquitto.acl")),
        ("/var/lib/mosquitto/", f"{tmp_path}/"),
    ):
        text = text.replace(old, new)
    conf = tmp_path / "m.conf"
    # Run by root it would become `mosquitto`, who cannot read the test's folders.
    conf.write_text(text + "\nuser root\n", encoding="utf-8")
    with subprocess.Popen([require_mosquitto(), "-c", str(conf)]) as process:
        assert wait_until(lambda: process.poll() is not None or answers(port))
        assert process.poll() is None
        process.terminate()
