"""The trigger transaction as a PLC sees it: real broker and stations, fake camera and engine."""

from __future__ import annotations

import json
import random
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from edged.config import MqttConfig, StationConfig
from edged.core.errors import InvalidInput
from edged.core.types import Inspection, NoVerdict, Reason, TriggerRequest
from edged.line.clock import Conditions, StationClock
from edged.line.in_progress import Rules
from edged.line.publish import Publisher
from edged.line.station import Station
from edged.mqtt.sink import MqttSink
from edged.wire import plc as wire_plc
from edged.wire import results
from tests.support.broker import Mosquitto
from tests.support.fakes import FakeLoader, Line
from tests.support.plc import Plc
from tests.support.step_camera import StepCamera


class Box:
    """A daemon's line of one triggered station `s1`, without the daemon."""

    def __init__(
        self, line: Line, sink: MqttSink, stations: StationClock, camera: StepCamera
    ) -> None:
        self.line, self.sink, self.stations, self.camera = line, sink, stations, camera


@contextmanager
def box(folder: Path, port: int, loader: FakeLoader | None = None, **given: Any) -> Iterator[Box]:
    """What daemon/line.py and daemon/app.py put together, on fake hardware."""
    mqtt = {k: given.pop(k) for k in ("username", "password_file") if k in given}
    whole = {"name": "s1", "camera": "cam", "model": "m", "trigger": "mqtt", **given}
    config = StationConfig(**whole)
    broker = MqttConfig(port=port, **mqtt)
    with ExitStack() as stack:
        line = stack.enter_context(Line(loader or FakeLoader()))
        stations = StationClock(line.crew, line.ears)
        sink = MqttSink(broker, folder / "outbox.sqlite", line.crew, line.ears, line.deadline)
        sink.serve([config], stations)
        publisher = Publisher([sink, line.records], line.ears)
        rules = Rules(
            "s1",
            "cam",
            "mqtt",
            int(config.limit * 1e9),
            waiting=config.waiting,
            results=config.results,
            confirm=config.confirm,
        )
        offer = lambda job: line.host.offer("m", job)  # noqa: E731 - as the daemon binds it
        number = line.next_sequence
        station = Station(rules, offer, publisher, number, line.ears, stations.wake)
        hosted = lambda: line.host.serves("m")  # noqa: E731
        stations.add(station, Conditions(hosted, lambda model: f"now {model}", sink.trouble))
        sink.start()
        stack.callback(sink.close)
        stack.callback(publisher.close)
        stack.callback(stations.end, 5.0)
        stack.callback(line.host.close)
        line.start()
        camera = StepCamera()
        capture = line.read(camera, station)
        stack.callback(capture.join, line.deadline)
        stack.callback(capture.stop)
        stack.callback(stations.close)
        stations.start(sink.set_station)
        yield Box(line, sink, stations, camera)


def test_a_trigger_is_acknowledged_and_answered_once_and_recorded(tmp_path: Path) -> None:
    with Mosquitto() as broker, Plc(broker.port, "edged/s1") as plc, box(tmp_path, broker.port):
        ready = plc.wait_state("ready")
        assert (ready["op"], ready["code"]) == (6, 0)
        plc.trigger(7, "P-2026-000123", dl_ms=5000)
        (ack,) = plc.wait("ack", 1)
        (result,) = plc.wait("result", 1)
        (record,) = plc.wait("full", 1)
    assert ack == {"v": 1, "seq": 7, "part": "P-2026-000123", "ack": 1, "code": 0}
    assert (result["seq"], result["part"], result["ok"], result["st"]) == (7, ack["part"], 1, 1)
    assert (record["part"], record["seq"]) == ("P-2026-000123", result["rec"])
    raw = plc.raw("result")[0]
    assert len(raw.payload) <= results.FLAT_BYTES
    assert raw.expires is not None
    assert raw.expires <= 5, "no longer than its deadline"
    assert not raw.retained


def test_a_trigger_that_is_repeated_has_two_acks_and_one_result(tmp_path: Path) -> None:
    with Mosquitto() as broker, Plc(broker.port, "edged/s1") as plc, box(tmp_path, broker.port):
        plc.wait_state("ready")
        plc.trigger(7)
        plc.wait("result", 1)
        plc.trigger(7)
        assert [(a["ack"], a["code"]) for a in plc.wait("ack", 2)] == [
            (1, 0),
            (1, Reason.DUPLICATE.code),
        ]
        plc.trigger(8)
        plc.wait("full", 2)
        assert [r["seq"] for r in plc.got("result")] == [7, 8]


def test_a_deadline_is_answered_with_timeout_and_never_with_the_late_verdict(
    tmp_path: Path,
) -> None:
    loader = FakeLoader(open_gate=False)
    with (
        Mosquitto() as broker,
        Plc(broker.port, "edged/s1") as plc,
        box(tmp_path, broker.port, loader),
    ):
        plc.wait_state("ready")
        plc.trigger(1, dl_ms=100)
        (result,) = plc.wait("result", 1)
        assert (result["ok"], result["st"], result["code"]) == (0, 4, Reason.TIMEOUT.code)
        loader.gate.set()
        timeout, late = plc.wait("full", 2)
        plc.trigger(2)
        plc.wait("full", 3)
        assert [r["seq"] for r in plc.got("result")] == [1, 2]
    assert timeout["reason"] == "timeout"
    assert late["late_of"] == timeout["seq"]
    assert late["eval"] == "OK"


def test_a_station_that_talks_in_structs_takes_and_gives_64_bytes(tmp_path: Path) -> None:
    request = TriggerRequest("P-1", 9, 5.0)
    with (
        Mosquitto() as broker,
        Plc(broker.port, "edged/s1") as plc,
        box(tmp_path, broker.port, payload="struct", byte_order="big"),
    ):
        plc.wait_state("ready")
        plc.send("trigger", wire_plc.trigger_struct(request, "big"))
        (ack,) = plc.wait("ack", 1)
        (result,) = plc.wait("result", 1)
    assert len(ack) == len(result) == 64
    fields = struct.unpack(">BBHIBBBBIqff32s", ack)
    assert fields[:5] == (1, 0, 0, 9, 2), "taken: processing"
    version, ok, code, seq, st, evaluation, sim, _, _, ts, score, threshold, part = struct.unpack(
        ">BBHIBBBBIqff32s", result
    )
    assert (version, ok, code, seq, st, evaluation, sim) == (1, 1, 0, 9, 1, 1, 0)
    assert abs(ts / 1000 - time.time()) < 3600
    assert (score, threshold) == (0.0, 0.5)
    assert part.rstrip(b"\0") == b"P-1"


def test_what_the_receivers_confirm_is_forgotten_and_nothing_before(tmp_path: Path) -> None:
    with (
        Mosquitto() as broker,
        Plc(broker.port, "edged/s1") as plc,
        box(tmp_path, broker.port, confirm=True) as made,
    ):
        plc.wait_state("ready")
        for number in (1, 2):
            plc.trigger(number)
            plc.wait("result", number)
        records = plc.wait("full", 2)
        plc.send("delivered", {"seq": 2})
        made.line.ears.until(lambda: made.line.ears.confirmed == 2)
        made.line.ears.until(lambda: made.line.ears.backlog == 2)
        plc.send("delivered", {"rec": records[0]["seq"]})
        made.line.ears.until(lambda: made.line.ears.backlog == 1)
        plc.send("delivered", {"rec": records[1]["seq"]})
        made.line.ears.until(lambda: made.line.ears.backlog == 0)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b'{"seq":1}',
        b'{"part":"","seq":1}',
        b'{"part":"a b","seq":1}',
        b'{"part":"P","seq":-1}',
        b'{"part":"P","seq":1.5}',
        b'{"part":"P","seq":true}',
        b'{"part":"P","seq":4294967296}',
        b'{"part":"P","seq":1,"dl_ms":0}',
        b'{"part":"P","seq":1,"dl_ms":NaN}',
        b'{"part":"' + b"P" * 41 + b'","seq":1}',
        b'{"part":"P","seq":1,"x":"' + b"x" * 2000 + b'"}',
        "{'part':'é'}".encode(),
        b"[" * 1000,
    ],
)
def test_what_is_no_trigger_is_refused_with_a_sentence_and_inspects_nothing(payload: bytes) -> None:
    with pytest.raises(InvalidInput):
        wire_plc.trigger(payload)
    said = json.loads(wire_plc.refusal("x" * 500 + '"\\é'))
    assert (said["ack"], said["code"]) == (0, Reason.BAD_TRIGGER.code)
    assert len(wire_plc.refusal("x" * 500)) <= results.FLAT_BYTES


def test_a_bad_trigger_and_a_retained_one_start_nothing(tmp_path: Path) -> None:
    with Mosquitto() as broker, Plc(broker.port, "edged/s1") as plc:
        plc.send("trigger", {"part": "OLD", "seq": 1}, retain=True)
        with box(tmp_path, broker.port):
            plc.wait_state("ready")
            plc.send("trigger", b"\xff\xfe")
            (ack,) = plc.wait("ack", 1)
            assert (ack["ack"], ack["code"]) == (0, Reason.BAD_TRIGGER.code)
            plc.trigger(2)
            plc.wait("full", 1)
            assert [r["part"] for r in plc.got("full")] == ["P"]


def test_a_lost_camera_is_an_error_and_triggers_are_missed_until_it_is_back(tmp_path: Path) -> None:
    with (
        Mosquitto() as broker,
        Plc(broker.port, "edged/s1") as plc,
        box(tmp_path, broker.port) as made,
    ):
        plc.wait_state("ready")
        made.camera.lose()
        lost = plc.wait_state("error")
        assert (lost["op"], lost["code"]) == (3, Reason.CAMERA_LOST.code)
        plc.trigger(1)
        (ack,) = plc.wait("ack", 1)
        (result,) = plc.wait("result", 1)
        assert (ack["ack"], ack["code"]) == (0, Reason.CAMERA_LOST.code)
        assert (result["ok"], result["code"]) == (0, Reason.CAMERA_LOST.code)


def test_commands_are_taken_from_a_broker_that_knows_who_sends_and_from_no_other(
    tmp_path: Path,
) -> None:
    with (
        Mosquitto() as broker,
        Plc(broker.port, "edged/s1") as plc,
        box(tmp_path / "a", broker.port),
    ):
        plc.wait_state("ready")
        plc.send("cmd", {"cmd": "stop", "id": "1"})
        plc.trigger(1)
        assert plc.wait("result", 1)[0]["ok"] == 1
        assert plc.got("cmd/reply") == []
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    secret = tmp_path / "secret"
    secret.write_text("pw")
    known: dict[str, Any] = {"username": "u", "password_file": secret}
    with (
        Mosquitto() as broker,
        Plc(broker.port, "edged/s1", username="u", password="pw") as plc,
        box(tmp_path / "b", broker.port, **known),
    ):
        plc.wait_state("ready")
        plc.send("cmd", {"cmd": "stop", "id": "1"})
        (reply,) = plc.wait("cmd/reply", 1)
        assert (reply["id"], reply["ok"]) == ("1", 1)
        assert plc.wait_state("halted")["op"] == 2
        plc.trigger(1)
        assert plc.wait("result", 1)[0]["code"] == Reason.HALTED.code
        plc.send("cmd", {"cmd": "explode"})
        assert plc.wait("cmd/reply", 2)[1]["ok"] == 0
        plc.send("cmd", {"cmd": "start"})
        plc.wait("cmd/reply", 3)
        plc.trigger(2)
        assert plc.wait("result", 2)[1]["ok"] == 1


def test_every_trigger_has_one_ending_while_camera_engine_and_broker_fail_at_random(
    tmp_path: Path,
) -> None:
    told = storm(tmp_path, 300, seed=7)
    assert told["verdicts"] > 0
    assert told["timeout"] > 0
    assert told["results_sent"] > 0


def storm(folder: Path, count: int, seed: int) -> dict[str, int]:
    """So many triggers while everything fails at random; how they ended. Asserts one end each."""
    dice, loader = random.Random(seed), FakeLoader()
    outages = 0
    with Mosquitto() as broker:
        with (
            Plc(broker.port, "edged/s1") as plc,
            box(folder, broker.port, loader, deadline=0.05) as made,
        ):
            plc.wait_state("ready")
            heard = made.line.ears
            for number in range(1, count + 1):
                chance = dice.random()
                if chance < 0.05:
                    made.camera.stall()
                elif chance < 0.15:
                    made.camera.resume()
                elif chance < 0.2:
                    loader.gate.clear()
                elif chance < 0.4:
                    loader.gate.set()
                elif chance < 0.402:
                    broker.kill()
                    broker.start()
                    outages += 1
                plc.trigger(number)
                heard.until(lambda: heard.triggers >= number)  # noqa: B023 - called at once
                if dice.random() < 0.8:  # a line at its own pace; the others come in a rush
                    made.line.records.until(lambda: len(_endings(made)) >= number)  # noqa: B023
            loader.gate.set()
            made.camera.resume()
            made.line.records.until(lambda: len(_endings(made)) >= count)
        endings = _endings(made)
        numbers = [i.frame.trigger.sequence for i in endings if i.frame.trigger is not None]
        assert sorted(numbers) == list(range(1, count + 1)), "one ending for each trigger"
        assert {a["seq"] for a in plc.got("ack")} <= set(numbers)
        sent = [r["seq"] for r in plc.got("result")]
        assert len(sent) == len(set(sent)), "no result twice"
    told = Counter(
        i.outcome.reason.word if isinstance(i.outcome, NoVerdict) else "verdicts" for i in endings
    )
    late = len(made.line.records.all) - len(endings)
    return {**told, "late_records": late, "outages": outages, "results_sent": len(sent)}


def _endings(made: Box) -> list[Inspection]:
    return [i for i in made.line.records.all if not i.late_of]
