"""What leaves next, and when it is too late: the courier before a link that the test holds."""

from __future__ import annotations

import json
import struct
import time
from pathlib import Path

import pytest

from edged.core.names import ByteOrder
from edged.core.observer import Observer
from edged.core.types import Reason
from edged.mqtt.outgoing import Message, Outgoing
from edged.outbox.send_order import SendOrder
from edged.outbox.store import Outbox
from edged.wire import results


class Link:
    """FAKE connection: keeps what is published, and answers only when the test does."""

    def __init__(self, window: int = 20) -> None:
        self.window = window
        self.blocked = False
        self.sent: list[tuple[str, bytes, int]] = []

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, expires: int) -> int:
        self.sent.append((topic, payload, expires))
        return len(self.sent)


class Counts(Observer):
    """Keeps what the courier tells."""

    def __init__(self) -> None:
        self.dropped: list[str] = []
        self.missed = self.overruns = 0

    def sink_dropped(self, sink: str, policy: str) -> None:
        self.dropped.append(policy)

    def deadline_missed(self, station: str) -> None:
        self.missed += 1

    def result_overrun(self, station: str) -> None:
        self.overruns += 1


@pytest.fixture
def told() -> Counts:
    return Counts()


@pytest.fixture
def outgoing(tmp_path: Path, told: Counts) -> Outgoing:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.open()
    return Outgoing("edged", SendOrder(outbox), told, "mqtt")


def message(number: int, deadline_ns: int = 0, qos: int = 1, limit: int = 8) -> Message:
    return Message(
        "e/s1/result",
        flat(number),
        "e/s1/full",
        results.dumps({"seq": number, "ok": True, "code": 0}),
        number,
        True,
        deadline_ns,
        qos,
        limit,
        "s1",
    )


def flat(number: int) -> bytes:
    return results.dumps({"v": 1, "seq": number, "ok": 1, "st": 1, "eval": 1, "code": 0})


def said(payload: bytes) -> tuple[int, int, int, int]:
    """seq, ok, st and code."""
    value = json.loads(payload)
    return value["seq"], value["ok"], value["st"], value["code"]


def test_an_ok_whose_deadline_came_on_the_way_is_sent_as_timeout_and_counted(
    outgoing: Outgoing, told: Counts
) -> None:
    link, now = Link(), time.monotonic()
    late = time.monotonic_ns() - 1
    outgoing.results([message(1, late), message(2, late + 10**12)], link, now)
    timeout = Reason.TIMEOUT.code
    assert [said(payload) for _, payload, _ in link.sent] == [(1, 0, 4, timeout), (2, 1, 1, 0)]
    assert told.missed == 1
    assert told.dropped == []


def test_an_ok_without_its_record_on_disk_leaves_as_none(outgoing: Outgoing) -> None:
    link = Link()
    outgoing.results([message(1)], link, time.monotonic(), safe=False)
    assert said(link.sent[0][1]) == (1, 0, 4, Reason.NO_RECORD.code)


@pytest.mark.parametrize("reason", [Reason.NO_RECORD, Reason.TIMEOUT])
def test_the_record_of_a_withheld_ok_says_the_same_as_its_result(reason: Reason) -> None:
    held = message(1, 5).without_ok(reason)
    record = json.loads(held.full)
    assert (record["ok"], record["code"]) == (False, reason.code)
    assert said(held.flat) == (1, 0, 4, reason.code)
    assert held.without_ok(reason) is held


def test_no_more_results_are_out_than_the_window_and_the_newest_stay(
    outgoing: Outgoing, told: Counts
) -> None:
    link, now = Link(window=2), time.monotonic()
    outgoing.results([message(n, limit=3) for n in range(1, 11)], link, now)
    assert [payload for _, payload, _ in link.sent] == [flat(1), flat(2)]
    assert told.overruns == 5
    outgoing.answered(1, 0, "", now)
    outgoing.answered(2, 0, "", now)
    outgoing.results([], link, now)
    assert [payload for _, payload, _ in link.sent[2:]] == [flat(8), flat(9)]


@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_a_withheld_struct_keeps_its_part_and_number(byte_order: ByteOrder) -> None:
    form = ("<" if byte_order == "little" else ">") + results.PACKED
    made = struct.pack(form, 1, 1, 0, 7, 1, 1, 0, 0, 42, 99, 0.25, 0.5, b"P-1")
    held = struct.unpack(form, results.withhold(made, Reason.TIMEOUT, byte_order))
    assert held[:6] == (1, 0, Reason.TIMEOUT.code, 7, 4, 3)
    assert held[8:12] == (42, 99, 0.25, 0.5)
    assert held[12].rstrip(b"\0") == b"P-1"


def test_a_result_that_could_not_leave_for_two_seconds_never_does(
    outgoing: Outgoing, told: Counts
) -> None:
    link, now = Link(), time.monotonic()
    link.blocked = True
    outgoing.results([message(1)], link, now)
    link.blocked = False
    outgoing.results([], link, now + 2.1)
    assert link.sent == []
    assert told.dropped == ["late"]


def test_a_broker_that_acknowledges_nothing_is_stuck_even_while_qos_0_flows(
    outgoing: Outgoing,
) -> None:
    link, now = Link(), 1000.0
    outgoing.connected(now)
    outgoing.states({"edged/state": {"st": "ready"}}, link, now)
    for second in range(40):
        outgoing.results([message(second, qos=0)], link, now + second)
        outgoing.answered(len(link.sent), 0, "", now + second)  # written, no more
    assert outgoing.stuck(now + 40)
    outgoing.answered(1, 0, "", now + 40)
    assert not outgoing.stuck(now + 41)


def test_expiry_is_what_is_left_of_the_deadline(outgoing: Outgoing) -> None:
    link = Link()
    soon = time.monotonic_ns() + 3 * 10**9
    outgoing.results([message(1, soon), message(2)], link, time.monotonic())
    assert [expires for _, _, expires in link.sent] == [3, 10]
