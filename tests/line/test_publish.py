"""Order and fan-out of what leaves the pipeline."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from edged.core.errors import SinkError
from edged.core.observer import Observer
from edged.core.types import Frame, Inspection, NoVerdict, Reason, Timing, Verdict
from edged.line.publish import HELD, Publisher
from edged.runtime.workers import Crew

GOOD = Verdict(False, 0.9, 0.1, 0.5)


class Kept:
    """A sink that keeps what it gets, or refuses everything."""

    name = "kept"

    def __init__(self, refuses: bool = False) -> None:
        self.sequences: list[int] = []
        self.kept: list[Inspection] = []
        self._refuses = refuses

    def start(self) -> None: ...

    def accept(self, inspection: Inspection) -> None:
        if self._refuses:
            raise SinkError("full")
        self.sequences.append(inspection.frame.sequence)
        self.kept.append(inspection)

    def close(self) -> None: ...


def frame(number: int) -> Frame:
    return Frame("cam", number, 1, datetime.now(timezone.utc), np.zeros((2, 2, 3), np.uint8))


def inspection(number: int, outcome: Verdict | NoVerdict = GOOD) -> Inspection:
    return Inspection(frame(number), None, outcome, Timing(1))


def test_an_answer_waits_for_the_earlier_frames_of_its_camera() -> None:
    sink = Kept()
    publisher = Publisher([sink], Observer())
    for number in (1, 2, 3):
        publisher.expect(frame(number))
    publisher.publish(inspection(2))
    publisher.publish(inspection(3))
    assert sink.sequences == []
    publisher.publish(inspection(1))
    assert sink.sequences == [1, 2, 3]


def test_a_superseded_frame_is_not_published_and_holds_nobody_up() -> None:
    sink = Kept()
    publisher = Publisher([sink], Observer())
    for number in (1, 2):
        publisher.expect(frame(number))
    publisher.publish(inspection(2))
    publisher.publish(inspection(1, NoVerdict(Reason.SUPERSEDED)))
    assert sink.sequences == [2]


def test_one_sink_that_fails_does_not_keep_the_record_from_the_others() -> None:
    sink = Kept()
    publisher = Publisher([Kept(refuses=True), sink], Observer())
    publisher.expect(frame(1))
    publisher.publish(inspection(1))
    assert sink.sequences == [1]


def test_at_the_close_what_waits_goes_out_and_what_nobody_answered_says_shutdown() -> None:
    sink = Kept()
    publisher = Publisher([sink], Observer())
    for number in (1, 2, 3):
        publisher.expect(frame(number))
    publisher.publish(inspection(2))
    publisher.close()
    assert sink.sequences == [1, 2, 3]
    shut = [i.outcome.reason for i in sink.kept if isinstance(i.outcome, NoVerdict)]
    assert shut == [Reason.SHUTDOWN, Reason.SHUTDOWN]
    publisher.publish(inspection(1))  # the stuck unit woke up: the part has its answer already
    assert sink.sequences == [1, 2, 3]


def test_beyond_some_waiting_answers_their_bringers_wait_and_nothing_is_reordered() -> None:
    sink = Kept()
    publisher = Publisher([sink], Observer())
    count = HELD + 5
    for number in range(1, count + 1):
        publisher.expect(frame(number))
    crew = Crew()
    units = [
        crew.start(f"unit-{number}", lambda _w, n=number: publisher.publish(inspection(n)))
        for number in range(2, count + 1)
    ]
    ended = [unit for unit in units if unit.join(0.2)]
    assert len(ended) == HELD
    publisher.publish(inspection(1))
    assert all(unit.join(20) for unit in units)
    assert sink.sequences == list(range(1, count + 1))
