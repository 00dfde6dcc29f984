"""MQTT 5, MQTT 3.1.1, and a broker that knows one of them only."""

from __future__ import annotations

import re
import select
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.mqtt.test_delivery import numbers, on_disk, publishing
from tests.support.broker import Mosquitto, Subscriber, free_port


@contextmanager
def old_broker() -> Iterator[int]:
    """The demo's embedded broker, which speaks 3.1.1 only; its port."""
    port = free_port()
    with subprocess.Popen(
        [sys.executable, "-m", "edged.tools.demo.broker", str(port)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().strip() == "ready"
            yield port
        finally:
            process.terminate()
            process.wait(10)


class Refusing(socketserver.BaseRequestHandler):
    """Greets as a broker of MQTT 3.1.1 must: with return code 1 for whoever speaks 5."""

    def handle(self) -> None:
        greeting = self.request.recv(4096)
        if not greeting:
            return
        level = greeting[greeting.index(b"MQTT") + 4]
        self.request.sendall(b"\x20\x02\x00" + bytes([0 if level == 4 else 1]))
        while level == 4 and not self.server.ending.is_set():  # type: ignore[attr-defined]
            select.select([self.request], [], [], 0.01)  # connected to, and no more


class FakeOldBroker(socketserver.ThreadingTCPServer):
    """A fake, because no broker at hand refuses MQTT 5 in words: amqtt is silent instead."""

    allow_reuse_address = True

    def __init__(self, port: int) -> None:
        self.ending = threading.Event()
        super().__init__(("127.0.0.1", port), Refusing)
        self.port = int(self.server_address[1])
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))
        self._thread.start()

    def server_close(self) -> None:
        """Hang up on everybody; called when `with` is left."""
        self.ending.set()
        self.shutdown()
        self._thread.join(10)
        super().server_close()


@pytest.mark.parametrize("version", ["auto", "3.1.1"])
def test_a_broker_that_speaks_3_1_1_only_gets_everything(tmp_path: Path, version: str) -> None:
    outbox = tmp_path / "o.sqlite"
    with old_broker() as port, Subscriber(port, "edged/#", five=False) as plc:
        with publishing(outbox, port, version=version) as station:
            station.sink.set_state("ready")
            station.heard.wait_connected()
            assert station.heard.states[-1] == (True, "MQTT 3.1.1")
            station.accept(range(1, 51))
            full = plc.wait_for(50, topic="/full")
            plc.wait_for(50, topic="/result")
            assert plc.wait_match(lambda m: b'"st":"ready"' in m.payload)
        assert plc.wait_match(lambda m: b'"st":"offline"' in m.payload)
        assert numbers(full) == list(range(1, 51))
    tried = [words for connected, words in station.heard.states if not connected]
    assert bool(tried) == (version == "auto")
    assert all(words.endswith("; trying MQTT 3.1.1") for words in tried)
    assert on_disk(outbox) == []


def test_a_refusal_of_version_5_is_followed_by_3_1_1_at_once(tmp_path: Path) -> None:
    with FakeOldBroker(0) as broker, publishing(tmp_path / "o.sqlite", broker.port) as station:
        station.heard.wait_connected()
        broker.ending.set()  # it would not confirm the farewell
        (refused, words), connected = station.heard.states[:2]
        assert not refused
        assert words.endswith("Unsupported protocol version; trying MQTT 3.1.1")
        assert connected == (True, "MQTT 3.1.1")


def test_version_5_never_falls_back_but_pauses_and_says_what_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = tmp_path / "o.sqlite"
    with FakeOldBroker(0) as broker, publishing(outbox, broker.port, version="5") as station:
        station.accept(range(1, 11))
        station.heard.wait(lambda heard: len(heard.states) >= 3)
        assert not any(connected for connected, _ in station.heard.states)
        assert not any("3.1.1" in words for _, words in station.heard.states)
        assert min(station.heard.intervals()) >= 0.2
        assert station.heard.backlog == 10
    assert "the broker refuses the connection: Unsupported protocol version" in caplog.text
    assert len(on_disk(outbox)) == 10


@pytest.mark.parametrize(
    ("version", "spoken", "words"),
    [("auto", "p5", "MQTT 5"), ("5", "p5", "MQTT 5"), ("3.1.1", "p2", "MQTT 3.1.1")],
)
def test_the_configured_version_is_the_one_the_broker_sees(
    tmp_path: Path, version: str, spoken: str, words: str
) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, "edged/+/full") as mes:
        settings: dict[str, Any] = {"version": version, "client_id": "station-7"}
        with publishing(tmp_path / "o.sqlite", broker.port, **settings) as station:
            station.accept(range(1, 11))
            assert numbers(mes.wait_for(10)) == list(range(1, 11))
            assert station.heard.states == [(True, words)]
        seen = re.findall(r"connected from \S+ as station-7 \((p\d), c1,", broker.log)
    assert seen == [spoken]


def test_a_broker_replaced_by_one_that_speaks_5_is_asked_in_5_again(tmp_path: Path) -> None:
    with Mosquitto(started=False) as broker:
        with publishing(tmp_path / "o.sqlite", broker.port) as station:
            with FakeOldBroker(broker.port):
                station.heard.wait_connected()
                assert station.heard.states[-1] == (True, "MQTT 3.1.1")
            broker.start()
            station.heard.wait(lambda heard: heard.states[-1] == (True, "MQTT 5"))
