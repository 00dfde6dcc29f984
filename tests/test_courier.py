"""What leaves next, and when it is too late: the courier before a link that the test holds."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from edged.core.observer import Observer
from edged.core.types import Reason
from edged.sinks.courier import Courier
from edged.sinks.delivery import Message
from edged.sinks.outbox import Outbox
from edged.sinks.replay import Replay
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
def courier(tmp_path: Path, told: Counts) -> Courier:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.open()
    return Courier("edged", Replay(outbox), told, "mqtt")


def message(number: int, deadline_ns: int = 0, qos: int = 1, limit: int = 8) -> Message:
    return Message(
        "e/s1/result",
        b"OK%d" % number,
        "e/s1/full",
        results.dumps({"seq": number, "ok": True, "code": 0}),
        number,
        b"NO RECORD",
        deadline_ns,
        qos,
        limit,
        "s1",
        b"TIMEOUT",
    )


def test_an_ok_whose_deadline_came_on_the_way_is_sent_as_timeout_and_counted(
    courier: Courier, told: Counts
) -> None:
    link, now = Link(), time.monotonic()
    late = time.monotonic_ns() - 1
    courier.results([message(1, late), message(2, late + 10**12)], link, now)
    assert [payload for _, payload, _ in link.sent] == [b"TIMEOUT", b"OK2"]
    assert told.missed == 1
    assert told.dropped == []


def test_an_ok_without_its_record_on_disk_leaves_as_none(courier: Courier) -> None:
    link = Link()
    courier.results([message(1)], link, time.monotonic(), safe=False)
    assert link.sent[0][1] == b"NO RECORD"


@pytest.mark.parametrize("reason", [Reason.NO_RECORD, Reason.TIMEOUT])
def test_the_record_of_a_withheld_ok_says_the_same_as_its_result(reason: Reason) -> None:
    held = message(1, 5).without_ok(reason)
    record = json.loads(held.full)
    assert (record["ok"], record["code"]) == (False, reason.code)
    assert held.flat == (b"TIMEOUT" if reason is Reason.TIMEOUT else b"NO RECORD")
    assert held.without_ok(reason) is held


def test_no_more_results_are_out_than_the_window_and_the_newest_stay(
    courier: Courier, told: Counts
) -> None:
    link, now = Link(window=2), time.monotonic()
    courier.results([message(n, limit=3) for n in range(1, 11)], link, now)
    assert [payload for _, payload, _ in link.sent] == [b"OK1", b"OK2"]
    assert told.overruns == 5
    courier.answered(1, 0, "", now)
    courier.answered(2, 0, "", now)
    courier.results([], link, now)
    assert [payload for _, payload, _ in link.sent[2:]] == [b"OK8", b"OK9"]


def test_a_result_that_could_not_leave_for_two_seconds_never_does(
    courier: Courier, told: Counts
) -> None:
    link, now = Link(), time.monotonic()
    link.blocked = True
    courier.results([message(1)], link, now)
    link.blocked = False
    courier.results([], link, now + 2.1)
    assert link.sent == []
    assert told.dropped == ["late"]


def test_a_broker_that_acknowledges_nothing_is_stuck_even_while_qos_0_flows(
    courier: Courier,
) -> None:
    link, now = Link(), 1000.0
    courier.connected(now)
    courier.states({"edged/state": {"st": "ready"}}, link, now)
    for second in range(40):
        courier.results([message(second, qos=0)], link, now + second)
        courier.answered(len(link.sent), 0, "", now + second)  # written, no more
    assert courier.stuck(now + 40)
    courier.answered(1, 0, "", now + 40)
    assert not courier.stuck(now + 41)


def test_expiry_is_what_is_left_of_the_deadline(courier: Courier) -> None:
    link = Link()
    soon = time.monotonic_ns() + 3 * 10**9
    courier.results([message(1, soon), message(2)], link, time.monotonic())
    assert [expires for _, _, expires in link.sent] == [3, 10]
