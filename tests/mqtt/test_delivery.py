"""What arrives over a real broker, and what waits on disk, through outages and refusals."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paho.mqtt.subscribeoptions import SubscribeOptions

from edged.config import MqttConfig
from edged.core.observer import Observer
from edged.core.types import Frame, Inspection, NoVerdict, Reason, Timing, Trigger, Verdict
from edged.mqtt.outgoing import EXPIRY_SECONDS
from edged.mqtt.sink import MqttSink
from edged.outbox.records import OutboxRow
from edged.outbox.store import Outbox
from edged.runtime.workers import Crew, Deadline
from edged.wire.results import FLAT_BYTES
from tests.support.broker import Mosquitto, Received, Subscriber

GOOD = Verdict(False, 0.9, 0.1, 0.5)
PIXEL = np.zeros((1, 1, 3), np.uint8)


def inspection(
    number: int,
    camera: str = "cam1",
    outcome: Verdict | NoVerdict = GOOD,
    trigger: Trigger | None = None,
    timing: Timing | None = None,
) -> Inspection:
    now = datetime.now(timezone.utc)
    frame = Frame(camera, number, 1, now, PIXEL, trigger)
    return Inspection(frame, None, outcome, timing or Timing(1))


class Heard(Observer):
    """Keeps what the sink tells its observer, and lets a test wait for it."""

    def __init__(self) -> None:
        self.delivered: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.states: list[tuple[bool, str]] = []
        self.backlog = 0
        self._times: list[float] = []
        self._changed = threading.Condition()

    def sink_state(self, sink: str, connected: bool, detail: str) -> None:
        self._times.append(time.monotonic())
        self._note(lambda: self.states.append((connected, detail)))

    def sink_backlog(self, sink: str, rows: int) -> None:
        self._note(lambda: setattr(self, "backlog", rows))

    def sink_delivered(self, sink: str, reason: str) -> None:
        self._note(lambda: self.delivered.update([reason]))

    def sink_dropped(self, sink: str, policy: str) -> None:
        self._note(lambda: self.dropped.update([policy]))

    def wait(self, true: Callable[[Heard], bool], seconds: float = 10.0) -> None:
        """Return when `true(self)` holds; fail the test if it does not in time."""
        with self._changed:
            if not self._changed.wait_for(lambda: true(self), seconds):
                pytest.fail(
                    f"waited in vain: backlog {self.backlog}, delivered {self.delivered}, "
                    f"dropped {self.dropped}, states {self.states[-3:]}"
                )

    def wait_connected(self) -> None:
        self.wait(lambda heard: heard.states[-1:] != [] and heard.states[-1][0])

    def intervals(self) -> list[float]:
        """Seconds between the states so far."""
        return [after - before for before, after in pairwise(self._times)]

    def _note(self, change: Callable[[], object]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()


class Station:
    """A running sink, and what it has accepted."""

    def __init__(self, sink: MqttSink, heard: Heard) -> None:
        self.sink = sink
        self.heard = heard
        self.accepted: list[str] = []

    def accept(self, numbers: Sequence[int], *cameras: str) -> None:
        for number in numbers:
            for camera in cameras or ("cam1",):
                part = inspection(number, camera)
                self.sink.accept(part)
                self.accepted.append(part.id)


@contextmanager
def publishing(
    outbox: Path, port: int, heard: Heard | None = None, **settings: Any
) -> Iterator[Station]:
    """A sink of this process, closed in order at the end; its backlog follows at once."""
    heard = heard or Heard()
    config = MqttConfig(port=port, **{"replay_rate": 0, **settings})
    sink = MqttSink(config, outbox, Crew(), heard, Deadline())
    sink.start()
    try:
        yield Station(sink, heard)
    finally:
        sink.close()


def on_disk(outbox: Path) -> list[OutboxRow]:
    store = Outbox(outbox)
    store.open()
    rows = store.pending(0, 1_000_000)
    store.close()
    return rows


def records(messages: Sequence[Received]) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in messages]


def first_of_each(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without repetitions, as a receiver removes them: by id."""
    return list({record["id"]: record for record in reversed(found)}.values())[::-1]


def numbers(messages: Sequence[Received], camera: str = "cam1") -> list[int]:
    """Sequence numbers of one camera's records, without repetitions."""
    return [r["seq"] for r in first_of_each(records(messages)) if r["camera"] == camera]


def wait_record(subscriber: Subscriber, number: int, camera: str = "cam1") -> None:
    """Return when this record is there: a count would take a repetition for it."""
    marks = f'"camera":"{camera}","seq":{number},'.encode()
    assert subscriber.wait_match(lambda message: marks in message.payload), marks


class Onlooker(Subscriber):
    """A subscriber at QoS 0: it writes nothing, so a killed broker's last words all reach it.

    With QoS 1 its own PUBACK could meet the dead socket first, and what it had not read yet
    would be lost behind the publisher's back: the broker's failure, not the sink's.
    """

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, props: Any) -> None:
        client.subscribe([(topic, SubscribeOptions(qos=0)) for topic in self._topics])


def test_a_broker_killed_twice_in_the_stream_gets_every_record_in_order(tmp_path: Path) -> None:
    outbox = tmp_path / "o.sqlite"
    with (
        Mosquitto() as broker,
        Onlooker(broker.port, "edged/+/full") as mes,
        publishing(outbox, broker.port) as station,
    ):
        station.accept(range(1, 201))
        mes.wait_for(20)
        broker.kill()
        station.heard.wait(lambda heard: not heard.states[-1][0])
        station.accept(range(201, 301))
        broker.start()
        station.heard.wait_connected()
        wait_record(mes, 250)
        broker.pause()
        station.accept(range(301, 401))
        station.heard.wait(lambda heard: heard.backlog >= 100)
        broker.kill()
        station.accept(range(401, 501))
        broker.start()
        station.heard.wait(lambda heard: heard.delivered["success"] >= 500 and not heard.backlog)
        wait_record(mes, 500)
        found = records(mes.messages)
    assert [r["id"] for r in first_of_each(found)] == station.accepted
    assert on_disk(outbox) == []


def test_records_nobody_listens_to_are_kept_and_arrive_once_somebody_does(tmp_path: Path) -> None:
    outbox = tmp_path / "o.sqlite"
    with Mosquitto() as broker:
        with publishing(outbox, broker.port) as station:
            station.accept(range(1, 41))
            station.heard.wait(lambda heard: heard.delivered["no_subscriber"] >= 2)
            assert station.heard.backlog == 40
        assert station.heard.delivered["success"] == 0
        assert [json.loads(row.payload)["seq"] for row in on_disk(outbox)] == list(range(1, 41))
        with publishing(outbox, broker.port) as station:
            station.accept(range(41, 61))
            station.heard.wait(lambda heard: heard.delivered["no_subscriber"] >= 1)
            with Subscriber(broker.port, "edged/+/full") as mes:
                found = mes.wait_for(60)
                station.heard.wait(lambda heard: heard.backlog == 0)
            assert numbers(found) == list(range(1, 61))
            assert station.heard.delivered["success"] == 60
            assert not station.heard.dropped["rows"]
    assert on_disk(outbox) == []


def test_a_camera_nobody_listens_to_does_not_hold_up_the_others(tmp_path: Path) -> None:
    outbox = tmp_path / "o.sqlite"
    with Mosquitto() as broker, Subscriber(broker.port, "edged/cam2/full") as mes:
        with publishing(outbox, broker.port) as station:
            station.accept(range(1, 31), "cam1", "cam2")
            assert numbers(mes.wait_for(30), "cam2") == list(range(1, 31))
        rows = on_disk(outbox)
    assert [row.topic for row in rows] == ["edged/cam1/full"] * 30


ACL = """topic read edged/#
topic write edged/state
topic write edged/+/result
topic write edged/cam1/full
"""


def test_a_topic_the_broker_refuses_is_parked_and_told_while_the_others_flow(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox, acl = tmp_path / "o.sqlite", tmp_path / "acl"
    acl.write_text(ACL, encoding="ascii")
    acl.chmod(0o600)
    with Mosquitto([f"acl_file {acl}"]) as broker, Subscriber(broker.port, "edged/#") as mes:
        with publishing(outbox, broker.port) as station:
            station.heard.wait_connected()
            station.accept(range(1, 31), "cam1", "cam2")
            found = mes.wait_for(30, topic="cam1/full")
            mes.wait_for(30, topic="cam2/result")
            station.heard.wait(lambda heard: heard.delivered["not_authorized"] >= 1)
            station.heard.wait(lambda heard: heard.backlog == 30)
        assert numbers(found) == list(range(1, 31))
        assert mes.of("cam2/full") == []
    said = [record for record in caplog.records if "refuses edged/cam2/full" in record.message]
    assert len(said) == 1, "told once, not for each record"
    assert said[0].levelno == logging.ERROR
    assert "Not authorized" in said[0].message
    assert [row.topic for row in on_disk(outbox)] == ["edged/cam2/full"] * 30
    with Mosquitto() as open_broker, Subscriber(open_broker.port, "edged/cam2/full") as mes:
        with publishing(outbox, open_broker.port):
            assert numbers(mes.wait_for(30), "cam2") == list(range(1, 31))
    assert on_disk(outbox) == []


def test_a_result_is_never_sent_late_while_its_record_is(tmp_path: Path) -> None:
    outbox = tmp_path / "o.sqlite"
    with Mosquitto(started=False) as broker, publishing(outbox, broker.port) as station:
        station.accept(range(1, 11))
        station.heard.wait(lambda heard: heard.dropped["not_connected"] == 10)
        broker.start()
        with Subscriber(broker.port, "edged/#") as plc:
            station.heard.wait_connected()
            station.accept(range(11, 21))
            wait_record(plc, 20)
            plc.wait_for(10, topic="/result")
            broker.kill()
            station.heard.wait(lambda heard: not heard.states[-1][0])
            station.accept(range(21, 31))
            station.heard.wait(lambda heard: heard.dropped["not_connected"] == 20)
            broker.start()
            wait_record(plc, 30)
            station.heard.wait_connected()
            station.accept([31])
            results = plc.wait_for(11, topic="/result")
            wait_record(plc, 31)
            assert numbers(plc.of("/full")) == list(range(1, 32))
    assert [r["seq"] for r in records(results)] == [*range(11, 21), 31]
    assert all((m.expires or 99) <= EXPIRY_SECONDS for m in results)


@pytest.mark.parametrize("qos", [0, 1])
def test_a_result_is_flat_ascii_json_of_at_most_240_bytes(tmp_path: Path, qos: int) -> None:
    trigger = Trigger("P" * 40, 2**63, 1)
    long = Timing(1, decided_ns=3_600 * 10**9)
    sent = [
        inspection(2**63 - 1, "c" * 64, GOOD, trigger, long),
        inspection(2**63 - 1, "c" * 64, Verdict(True, 1.0, 1.0, 1.0), trigger, long),
        inspection(2**63 - 1, "c" * 64, NoVerdict(Reason.TIMEOUT, "é" * 500), trigger, long),
    ]
    with Mosquitto() as broker, Subscriber(broker.port, "edged/+/result") as plc:
        with publishing(tmp_path / "o.sqlite", broker.port, qos=qos) as station:
            station.heard.wait_connected()
            for part in sent:
                station.sink.accept(part)
            found = plc.wait_for(3)
        with Subscriber(broker.port, "edged/+/result", "edged/state") as late:
            late.wait_for(1, topic="/state")
            assert late.of("/result") == [], "nobody who comes later may act on it"
    for message in found:
        assert len(message.payload) <= FLAT_BYTES == 240
        assert message.qos == qos
        flat = json.loads(message.payload.decode("ascii"))
        assert not any(isinstance(value, dict | list | float | None) for value in flat.values())
        assert not set(message.payload) & set(b" \t\r\n\\")
    assert [json.loads(m.payload)["ok"] for m in found] == [1, 0, 0]


def test_a_full_outbox_lets_the_oldest_records_go_and_counts_them(tmp_path: Path) -> None:
    outbox = tmp_path / "o.sqlite"
    with Mosquitto(started=False) as broker:
        with publishing(outbox, broker.port, max_rows=100) as station:
            station.accept(range(1, 251))
            station.heard.wait(lambda heard: heard.dropped["rows"] == 150)
            station.heard.wait(lambda heard: heard.backlog == 100)
        broker.start()
        with Subscriber(broker.port, "edged/+/full") as mes:
            with publishing(outbox, broker.port, max_rows=100):
                found = mes.wait_for(100)
            assert numbers(found) == list(range(151, 251))
            assert numbers(mes.messages) == numbers(found)
    assert on_disk(outbox) == []
