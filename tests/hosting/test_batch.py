"""Admission: who is let in, who goes, and that everybody is answered."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest

from edged.core.errors import Busy, ShuttingDown
from edged.core.observer import Observer
from edged.core.types import Frame, Inspection, Job, ModelRef, NoVerdict, Reason
from edged.hosting.batch import Batcher

MODEL = ModelRef("m", "1", "0" * 64)
IMAGE = np.zeros((4, 4, 3), np.uint8)


class Line:
    """A batcher and everything it answered."""

    def __init__(self, capacity: int) -> None:
        self.answers: list[Inspection] = []
        self.batcher = Batcher(MODEL, capacity, Observer())

    def offer(self, source: str, number: int, sheddable: bool = True, deadline: int = 0) -> None:
        frame = Frame(source, number, 1, datetime.now(timezone.utc), IMAGE)
        self.batcher.offer(Job(frame, self.answers.append, sheddable, deadline))

    def waiting(self) -> list[tuple[str, int]]:
        jobs = self.batcher.take(99, 0.0)
        return [(j.frame.station, j.frame.sequence) for j in jobs]

    def reasons(self) -> list[tuple[str, int, Reason]]:
        return [
            (a.frame.station, a.frame.sequence, a.outcome.reason)
            for a in self.answers
            if isinstance(a.outcome, NoVerdict)
        ]


def test_a_full_batcher_evicts_the_oldest_frame_of_the_same_camera() -> None:
    line = Line(3)
    line.offer("a", 1)
    line.offer("b", 1)
    line.offer("a", 2)
    line.offer("a", 3)
    assert line.reasons() == [("a", 1, Reason.SUPERSEDED)]
    assert line.waiting() == [("b", 1), ("a", 2), ("a", 3)]


def test_a_camera_with_nothing_waiting_displaces_the_one_that_has_the_most() -> None:
    line = Line(2)
    line.offer("a", 1)
    line.offer("a", 2)
    line.offer("b", 1)
    assert line.reasons() == [("a", 1, Reason.SUPERSEDED)]
    assert line.waiting() == [("a", 2), ("b", 1)]


def test_a_job_somebody_waits_for_is_never_evicted() -> None:
    line = Line(2)
    line.offer("request", 1, sheddable=False)
    line.offer("request", 2, sheddable=False)
    with pytest.raises(Busy):
        line.offer("a", 1)
    with pytest.raises(Busy):
        line.offer("request", 3, sheddable=False)
    assert line.waiting() == [("request", 1), ("request", 2)]
    assert line.answers == []


def test_an_expired_job_is_answered_before_it_costs_an_inference() -> None:
    line = Line(4)
    line.offer("a", 1, sheddable=False, deadline=1)
    line.offer("a", 2)
    assert line.waiting() == [("a", 2)]
    assert line.reasons() == [("a", 1, Reason.TIMEOUT)]


def test_a_closed_batcher_gives_out_what_waits_and_takes_no_more() -> None:
    line = Line(4)
    line.offer("a", 1)
    line.batcher.close()
    with pytest.raises(ShuttingDown):
        line.offer("a", 2)
    assert not line.batcher.finished
    assert line.waiting() == [("a", 1)]
    assert line.batcher.finished


def test_abandoned_jobs_are_all_answered() -> None:
    line = Line(4)
    line.offer("a", 1)
    line.offer("b", 1, sheddable=False)
    assert line.batcher.abandon(Reason.SHUTDOWN, "stopping") == 2
    assert [r for _, _, r in line.reasons()] == [Reason.SHUTDOWN] * 2
