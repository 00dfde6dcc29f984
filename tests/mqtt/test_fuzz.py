"""Malformed messages of every kind: each is answered or ignored by rule, nothing else happens."""

from __future__ import annotations

import gc
import json
import random
import resource
import time
from pathlib import Path

from edged.core.types import Ack, Inspection, Reason, TriggerRequest
from edged.mqtt.connection import Arrival
from edged.mqtt.topics import Incoming, StationTopics
from edged.wire import plc as orders
from tests.mqtt.test_trigger import box
from tests.support.broker import Mosquitto
from tests.support.fakes import Ears
from tests.support.plc import Plc

COUNT = 20_000
SEEDS = (
    b'{"part":"P-1","seq":7,"dl_ms":200}',
    b'{"seq":7}',
    b'{"rec":7}',
    b'{"cmd":"start","id":"1"}',
    b'{"cmd":"recipe","model":"m"}',
    orders.trigger_struct(TriggerRequest("P-1", 7, 0.2), "little"),
)
ODD = (b"\0", b"\xff", b'"', b"\\", b"{", b"}", b"[", b"1e999", b"-1", b"null", b"NaN", b"\xc3\xa9")


class Orders:
    """FAKE stations: keep what gets through to them."""

    def __init__(self) -> None:
        self.taken: list[TriggerRequest] = []

    def trigger(self, station: str, request: TriggerRequest | None, received_ns: int) -> Ack:
        if request is None:
            return Ack(Reason.BAD_TRIGGER)
        self.taken.append(request)
        return Ack()

    def inspect(self, station: str, request: TriggerRequest, received_ns: int) -> Inspection:
        raise AssertionError("not by MQTT")

    def delivered(self, station: str, sequence: int) -> None:
        assert 0 <= sequence <= orders.MOST_SEQUENCE

    def command(self, station: str, word: str, model: str = "") -> str:
        assert word in orders.COMMANDS
        return "done"


def malformed(dice: random.Random) -> bytes:
    """A right message with a few wrong turns, or no message at all."""
    kind = dice.random()
    if kind < 0.2:
        return dice.randbytes(dice.randrange(200))
    data = bytearray(dice.choice(SEEDS))
    for _ in range(dice.randrange(1, 6)):
        at = dice.randrange(len(data) + 1)
        turn = dice.random()
        if turn < 0.3 and data:
            del data[at : at + dice.randrange(1, 8)]
        elif turn < 0.6:
            data[at:at] = dice.choice(ODD)
        elif turn < 0.8 and data:
            data[dice.randrange(len(data))] = dice.randrange(256)
        else:
            data = data * dice.randrange(1, 30)
    return bytes(data)


def test_20000_malformed_messages_are_each_answered_by_rule_and_nothing_grows() -> None:
    stations, ears, dice = Orders(), Ears(), random.Random(3)
    topics = [
        StationTopics("json", "e/json", 1, triggered=True),
        StationTopics("bin", "e/bin", 0, 8, "little", True),
    ]
    incoming = Incoming(topics, stations, ears, commands=True)  # type: ignore[arg-type]
    names = [*incoming.topics, "e/unknown", ""]
    before = 0
    for number in range(COUNT):
        if number == COUNT // 4:
            gc.collect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        payload, topic = malformed(dice), dice.choice(names)
        known = len(stations.taken)
        answers = incoming.handle(
            Arrival(topic, payload, dice.random() < 0.02, time.monotonic_ns())
        )
        assert len(answers) <= 1
        if topic.endswith("/cmd") and answers:
            assert json.loads(answers[0].flat)["ok"] in (0, 1)
        elif topic == "e/json/trigger" and answers:
            said = json.loads(answers[0].flat.decode("ascii"))
            through = len(stations.taken) > known
            assert said["code"] == (0 if through else Reason.BAD_TRIGGER.code)
            assert len(answers[0].flat) <= 240
        elif not topic.endswith("/trigger"):
            assert answers == []
    assert all(orders.PART.fullmatch(request.part) for request in stations.taken)
    assert all(0 <= request.sequence <= orders.MOST_SEQUENCE for request in stations.taken)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 8 * 1024, f"{grown} KiB more"


def test_a_station_still_answers_after_a_flood_of_malformed_messages(tmp_path: Path) -> None:
    dice = random.Random(4)
    with Mosquitto() as broker, Plc(broker.port, "edged/s1") as plc, box(tmp_path, broker.port):
        plc.wait_state("ready")
        for number in range(1500):
            word = dice.choice(("trigger", "delivered", "cmd"))
            plc.send(word, malformed(dice), retain=number % 100 == 0)
        plc.trigger(4_000_000_000, "LAST")
        found = [r for r in plc.wait("result", 1, 30.0) if r.get("part") == "LAST"]
        while not found:
            found = [
                r
                for r in plc.wait("result", len(plc.got("result")) + 1, 30.0)
                if r.get("part") == "LAST"
            ]
    assert found[0]["ok"] == 1
