"""The trigger transaction: one answer for each order, whatever the camera and the engine do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import pytest

from edged.core.types import Ack, Inspection, NoVerdict, Picture, Reason, TriggerRequest
from edged.line.in_progress import Rules
from edged.line.station import Station
from edged.runtime.workers import Worker
from tests.support.fakes import PATIENCE, FakeLoader, Line, picture

MS = 1_000_000


@contextmanager
def station(
    line: Line, wake: Callable[[], None] = lambda: None, **rules: object
) -> Iterator[Station]:
    """A station of `line` that takes orders, with the test as its camera and its clock."""
    given = {"kind": "mqtt", "limit_ns": 60_000 * MS, **rules}
    made = line.station(Rules("s1", "cam", **given), wake)  # type: ignore[arg-type]
    made.camera(True, "")
    yield made


def request(made: Station, number: int, deadline: float | None = None, part: str = "P") -> Ack:
    return made.request(TriggerRequest(part, number, deadline), time.monotonic_ns(), "mqtt")


def shot(at_ns: int = 0, level: int = 0) -> Picture:
    now = datetime.now(timezone.utc)
    return Picture(picture(level), at_ns or time.monotonic_ns(), now)


def deliver(made: Station, given: Picture | None = None) -> None:
    """The camera delivers, on this thread."""
    worker = Worker("camera", lambda _: None, lambda _: None)
    made.picture(given or shot(), worker, False)


def reasons(line: Line) -> list[Reason | None]:
    """Of the inspections so far: None for a verdict."""
    return [
        i.outcome.reason if isinstance(i.outcome, NoVerdict) else None for i in line.records.all
    ]


def test_an_order_gets_the_first_picture_taken_after_it(line: Line) -> None:
    with station(line) as made:
        before = shot()
        assert request(made, 7) == Ack()
        deliver(made, before)
        deliver(made, shot(level=10))
        line.records.wait(1)
        deliver(made, shot(level=200))
    (found,) = line.records.all
    assert found.passed
    assert found.frame.trigger is not None
    assert (found.frame.trigger.part, found.frame.trigger.sequence) == ("P", 7)
    assert found.verdict is not None
    assert found.verdict.score == pytest.approx(10 / 255)
    assert found.frame.captured_ns > found.frame.trigger.received_ns
    assert found.engine == "fake"


def test_an_order_that_came_before_is_not_inspected_again(line: Line) -> None:
    with station(line) as made:
        request(made, 7)
        deliver(made)
        line.records.wait(1)
        again = request(made, 7)
        assert again.accepted
        assert again.reason is Reason.DUPLICATE
        assert made.in_progress == 0
        assert request(made, 7, part="Q") == Ack()


def test_the_next_order_ends_one_that_has_no_picture_and_the_picture_is_the_nexts(
    line: Line,
) -> None:
    with station(line) as made:
        request(made, 1)
        request(made, 2)
        made.expire(time.monotonic_ns())
        deliver(made)
        line.records.wait(2)
    assert reasons(line) == [Reason.STALE_FRAME, None]
    assert [i.frame.trigger.sequence for i in line.records.all if i.frame.trigger] == [1, 2]


def test_also_a_trigger_that_is_missed_keeps_its_part_s_picture_from_the_one_before(
    line: Line,
) -> None:
    with station(line) as made:
        request(made, 1)  # waits for its picture
        made.refusal = Reason.MODEL_MISSING, "none is hosted"
        assert request(made, 2).reason is Reason.MODEL_MISSING
        made.refusal = None
        deliver(made)  # shows part 2
        made.expire(time.monotonic_ns())
        line.records.wait(2)
    assert reasons(line) == [Reason.STALE_FRAME, Reason.MODEL_MISSING]


@pytest.mark.parametrize("how", ["no_record", "unreadable"])
def test_a_trigger_without_an_inspection_ends_the_order_that_waits(line: Line, how: str) -> None:
    with station(line) as made:
        request(made, 1)
        if how == "no_record":
            made.refusal = Reason.NO_RECORD, "the disk is full"
            request(made, 2)
        else:
            made.spoil()
        deliver(made)
        made.expire(time.monotonic_ns())
        line.records.wait(1)
    assert reasons(line) == [Reason.STALE_FRAME]


def test_an_order_missed_for_want_of_a_record_may_be_given_again(line: Line) -> None:
    with station(line) as made:
        made.refusal = Reason.NO_RECORD, "the disk is full"
        assert request(made, 7).reason is Reason.NO_RECORD
        made.refusal = None
        assert request(made, 7) == Ack()
        deliver(made)
        line.records.wait(1)
    assert reasons(line) == [None]


def test_a_picture_past_the_window_is_refused_even_while_the_clock_is_late(line: Line) -> None:
    with station(line, window_ns=50 * MS) as made:
        request(made, 1)
        deliver(made, shot(time.monotonic_ns() + 300 * MS))
        made.expire(time.monotonic_ns() + 300 * MS)
        line.records.wait(1)
    assert reasons(line) == [Reason.STALE_FRAME]


def test_while_edged_stops_a_trigger_draws_no_number(line: Line) -> None:
    with station(line) as made:
        made.close()
        assert request(made, 1).reason is Reason.SHUTDOWN
        made.expire(time.monotonic_ns())
        assert line.records.all == []
        assert line.next_sequence("s1") == 1


def test_what_a_stuck_unit_has_is_answered_at_the_end_and_its_caller_told() -> None:
    loader = FakeLoader(open_gate=False)
    told: list[Inspection] = []
    with Line(loader) as line, station(line, kind="grpc") as made:
        line.start()
        made.request(TriggerRequest("P", 1), time.monotonic_ns(), "grpc", told.append)
        deliver(made)
        made.close()
        made.abandon()
        made.expire(time.monotonic_ns())
        line.records.wait(1)
        loader.gate.set()
    assert reasons(line)[0] is Reason.SHUTDOWN
    assert len(told) == 1


def test_a_camera_that_gives_nothing_or_only_old_pictures_is_told_apart(line: Line) -> None:
    with station(line) as made:
        old = shot()
        request(made, 1, deadline=0.001)
        deliver(made, old)
        made.expire(time.monotonic_ns() + 10**9)
        request(made, 2, deadline=1.0)
        made.expire(time.monotonic_ns() + 10**9)
        line.records.wait(2)
    assert reasons(line) == [Reason.STALE_FRAME, Reason.TIMEOUT]


def test_a_picture_must_be_taken_in_the_window_of_its_trigger(line: Line) -> None:
    with station(line, window_ns=50 * MS) as made:
        request(made, 1)
        due = made.expire(time.monotonic_ns())
        assert due <= time.monotonic_ns() + 50 * MS
        made.expire(due)
        deliver(made)
        line.records.wait(1)
    assert reasons(line) == [Reason.STALE_FRAME]


def test_the_deadline_is_answered_when_it_comes_and_the_verdict_after_it_is_a_late_record() -> None:
    loader = FakeLoader(open_gate=False)
    woken = threading.Event()
    with Line(loader) as line, station(line, woken.set) as made:
        line.start()
        request(made, 1, deadline=30.0)
        deliver(made)
        loader.entered.acquire()
        made.expire(time.monotonic_ns() + 30 * 10**9)
        line.records.wait(1)
        assert reasons(line) == [Reason.TIMEOUT]
        woken.clear()
        loader.gate.set()
        assert woken.wait(PATIENCE), "the unit answered, now it is the clock's turn"
        made.expire(time.monotonic_ns())
    timeout, late = line.records.all
    assert late.late_of == timeout.frame.sequence
    assert late.frame.sequence > timeout.frame.sequence
    assert late.id != timeout.id
    assert late.passed
    assert not late.ok


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [
        ((Reason.MODEL_MISSING, "none is hosted"), Reason.MODEL_MISSING),
        ((Reason.HALTED, "told to stop"), Reason.HALTED),
    ],
)
def test_an_order_that_cannot_be_taken_is_missed_at_once_and_has_its_inspection(
    line: Line, refusal: tuple[Reason, str], reason: Reason
) -> None:
    with station(line) as made:
        made.refusal = refusal
        assert request(made, 1).reason is reason
        made.expire(time.monotonic_ns())
        line.records.wait(1)
    assert reasons(line) == [reason]


def test_a_lost_camera_ends_the_order_that_waits_and_misses_the_next(line: Line) -> None:
    with station(line) as made:
        request(made, 1)
        made.camera(False, "unplugged")
        assert not request(made, 2).accepted
        made.expire(time.monotonic_ns())
        line.records.wait(2)
    assert reasons(line) == [Reason.CAMERA_LOST, Reason.CAMERA_LOST]


def test_more_orders_than_places_are_missed_as_overload() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line, station(line, waiting=2) as made:
        line.start()
        for number in (1, 2):
            assert request(made, number).accepted
            deliver(made)
        assert request(made, 3).reason is Reason.OVERLOAD
        made.expire(time.monotonic_ns())
        loader.gate.set()
        line.records.wait(3)
    assert reasons(line) == [None, None, Reason.OVERLOAD]


def test_an_order_whose_record_cannot_be_kept_is_missed_and_leaves_nothing(line: Line) -> None:
    with station(line) as made:
        made.refusal = Reason.NO_RECORD, "the disk is full"
        answer = request(made, 1)
        assert answer == Ack(Reason.NO_RECORD, "the disk is full")
        made.expire(time.monotonic_ns())
        made.refusal = None
        assert request(made, 2) == Ack()
        deliver(made)
        line.records.wait(1)
    assert reasons(line) == [None]


def test_somebody_who_waits_is_told_of_the_one_inspection(line: Line) -> None:
    told: list[Inspection] = []
    with station(line, kind="grpc") as made:
        made.request(TriggerRequest("P", 1), time.monotonic_ns(), "grpc", told.append)
        deliver(made)
        line.records.wait(1)
        made.request(TriggerRequest("P", 2), time.monotonic_ns(), "grpc", told.append)
        made.close()
        made.expire(time.monotonic_ns())
        line.records.wait(2)
    assert [i.id for i in told] == [i.id for i in line.records.all]
    assert reasons(line) == [None, Reason.SHUTDOWN]


def test_results_that_the_plc_does_not_confirm_overrun_and_are_counted(line: Line) -> None:
    with station(line, confirm=True, results=2) as made:
        for number in range(1, 5):
            request(made, number)
            deliver(made)
            line.records.wait(number)
        assert line.ears.overruns == 2
        made.delivered(99)  # it never got such a number
        assert line.ears.confirmed == 0
        made.delivered(4)
        assert line.ears.confirmed == 2


def test_a_free_running_picture_with_a_deadline_is_answered_when_it_comes() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line, station(line, kind="hardware", limit_ns=MS) as made:
        line.start()
        deliver(made)
        made.expire(time.monotonic_ns() + 10**9)
        line.records.wait(1)
        loader.gate.set()
    assert reasons(line)[:1] == [Reason.TIMEOUT]


@pytest.fixture
def line() -> Iterator[Line]:
    with Line(FakeLoader()) as made:
        made.start()
        yield made
