"""A camera's way into the pipeline: loss and return, pace and overload, the end.

The camera and the engine are fakes; host, batcher, units and publisher are the real ones.
"""

from __future__ import annotations

import logging
import threading

import pytest

from edged.core.errors import BadImage, CameraError
from edged.core.types import Inspection, NoVerdict, Reason
from edged.runtime.workers import Deadline
from tests.support.fakes import PATIENCE, FakeCamera, FakeLoader, Line, Step, picture

UNPLUGGED = CameraError("cam: unplugged.")


def reason(inspection: Inspection) -> Reason | None:
    return inspection.outcome.reason if isinstance(inspection.outcome, NoVerdict) else None


def test_an_unplugged_camera_is_reported_and_reopened_and_its_numbers_go_on() -> None:
    camera = FakeCamera([picture(), picture(), UNPLUGGED], [picture(), picture(), None], paced=True)
    with Line(FakeLoader()) as line:
        line.start()
        capture = line.capture(camera)
        line.records.until(lambda: len(line.records.all) == 4)
        assert capture.ended.wait(PATIENCE)
        assert line.records.sequences == [1, 2, 3, 4]
        assert all(inspection.passed for inspection in line.records.all)
        assert [up for up, _ in line.ears.states] == [True, False, True]
        assert line.ears.states[1][1] == "cam: unplugged."
    assert camera.opened == camera.closed == 2


def test_a_camera_is_up_with_its_first_picture_and_the_back_off_grows_until_then(
    caplog: pytest.LogCaptureFixture,
) -> None:
    camera = FakeCamera(UNPLUGGED, [UNPLUGGED], [picture(), UNPLUGGED], [None], paced=True)
    with Line(FakeLoader()) as line, caplog.at_level(logging.WARNING, "edged.line.capture"):
        line.start()
        assert line.capture(camera).ended.wait(PATIENCE)
        assert [up for up, _ in line.ears.states] == [False, False, True, False]
    pauses = [message.partition("Trying again in ")[2] for message in caplog.messages]
    assert pauses == ["0.5 s.", "1.0 s.", "0.5 s."]


def test_a_broken_picture_is_skipped_counted_and_named() -> None:
    broken = BadImage("b.png: the file is truncated.")
    camera = FakeCamera([picture(), broken, picture(), None], paced=True)
    with Line(FakeLoader()) as line:
        line.start()
        assert line.capture(camera).ended.wait(PATIENCE)
        line.records.until(lambda: len(line.records.all) == 2)
        assert line.ears.skipped == [("b.png", "b.png: the file is truncated.")]
        assert line.records.sequences == [1, 2]
        assert line.ears.captured == 2
        assert [up for up, _ in line.ears.states] == [True]


def test_no_frame_of_a_paced_camera_is_shed_however_slow_the_engine() -> None:
    camera = FakeCamera([picture()] * 30 + [None], paced=True)
    loader = FakeLoader(open_gate=False)
    with Line(loader, queue=1) as line:
        line.start()
        capture = line.capture(camera)
        line.ears.until(lambda: line.ears.captured == 3)  # one in hand, one waits, one has no place
        loader.gate.set()
        assert capture.ended.wait(PATIENCE)
        line.records.until(lambda: len(line.records.all) == 30)
        assert line.records.sequences == list(range(1, 31))
        assert all(inspection.passed for inspection in line.records.all)
        assert line.ears.dropped == []


def test_a_paced_camera_is_read_only_a_window_ahead_of_its_answers() -> None:
    camera = FakeCamera([picture()] * 9 + [None], paced=True)
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line:
        line.start()
        capture = line.capture(camera)
        line.ears.until(lambda: line.ears.captured == 5)  # four on their way, the fifth waits
        assert not capture.ended.is_set()
        loader.gate.set()
        assert capture.ended.wait(PATIENCE)
        line.records.until(lambda: len(line.records.all) == 9)


def test_a_free_running_camera_under_overload_loses_its_oldest_frames() -> None:
    loader = FakeLoader(open_gate=False)
    busy = lambda: loader.entered.acquire(timeout=PATIENCE)  # noqa: E731 - a step of the script
    script: list[Step] = [picture(), busy, *([picture()] * 5), None]
    with Line(loader, queue=2) as line:
        line.start()
        assert line.capture(FakeCamera(script)).ended.wait(PATIENCE)
        assert line.ears.dropped == [(number, Reason.SUPERSEDED) for number in (2, 3, 4)]
        loader.gate.set()
        line.records.until(lambda: len(line.records.all) == 3)
        assert line.records.sequences == [1, 5, 6]


def test_a_frame_that_finds_no_place_among_requests_is_answered_with_overload() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader, queue=1) as line:
        line.start()
        asked = [line.detect()]
        assert loader.entered.acquire(timeout=PATIENCE)
        asked.append(line.detect())
        assert line.capture(FakeCamera([picture(), None])).ended.wait(PATIENCE)
        assert [reason(record) for record in line.records.all] == [Reason.OVERLOAD]
        loader.gate.set()
        assert all(future.result(PATIENCE).passed for future in asked)


def test_a_source_that_ends_is_closed_and_not_opened_again() -> None:
    camera = FakeCamera([picture(), None], [picture()], paced=True)
    with Line(FakeLoader()) as line:
        line.start()
        assert line.capture(camera).ended.wait(PATIENCE)
        line.records.until(lambda: len(line.records.all) == 1)
    assert (camera.opened, camera.closed) == (1, 1)


def test_a_camera_that_is_slow_by_nature_is_no_sign_of_a_stuck_thread() -> None:
    camera = SlowToOpen()
    with Line(FakeLoader()) as line:
        line.start()
        capture = line.capture(camera, patience=3600.0)
        assert camera.opening.wait(PATIENCE)
        assert line.crew.ages()["capture-cam"] == 0.0
        capture.stop()
        assert capture.ended.wait(PATIENCE)


class SlowToOpen(FakeCamera):
    """FAKE device whose open takes until the stop."""

    def __init__(self) -> None:
        super().__init__([picture()])
        self.opening = threading.Event()

    def open(self, stop: threading.Event) -> None:
        super().open(stop)
        self.opening.set()
        assert stop.wait(PATIENCE)


def test_a_stop_during_open_ends_the_camera_without_a_picture() -> None:
    camera = SlowToOpen()
    with Line(FakeLoader()) as line:
        line.start()
        capture = line.capture(camera)
        assert camera.opening.wait(PATIENCE)
        capture.stop()
        assert capture.ended.wait(PATIENCE)
        assert line.ears.states == []
        assert line.ears.captured == 0
    assert camera.closed == 1


def test_a_stop_ends_the_wait_between_two_attempts() -> None:
    with Line(FakeLoader()) as line:
        capture = line.capture(FakeCamera(UNPLUGGED))
        line.ears.until(lambda: line.ears.states == [(False, "cam: unplugged.")])
        capture.stop()
        assert capture.ended.wait(PATIENCE)


def test_a_driver_that_never_returns_is_left_behind_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck, let_go = threading.Event(), threading.Event()
    camera = FakeCamera([stuck.set, let_go.wait, None])
    at_once = Deadline()
    at_once.set(0.0)
    with Line(FakeLoader()) as line:
        capture = line.capture(camera)
        assert stuck.wait(PATIENCE)
        capture.stop()
        capture.join(at_once)
        assert "cam is stuck in its driver" in caplog.text
        assert not capture.ended.is_set()
        let_go.set()


def test_a_paced_frame_that_finds_no_place_before_the_stop_is_answered_with_shutdown() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader, queue=1) as line:
        line.start()
        capture = line.capture(FakeCamera([picture()] * 9, paced=True))
        line.ears.until(lambda: line.ears.captured == 3)
        capture.stop()
        assert capture.ended.wait(PATIENCE)
        loader.gate.set()
        line.records.until(lambda: len(line.records.all) == 3)
        reasons = [reason(record) for record in line.records.all]
        assert reasons == [None, None, Reason.SHUTDOWN]


def test_the_picture_that_the_pipeline_holds_cannot_be_written() -> None:
    with Line(FakeLoader()) as line:
        line.start()
        line.capture(FakeCamera([picture(), None], paced=True))
        line.records.until(lambda: len(line.records.all) == 1)
        image = line.records.all[0].frame.image
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0, 0] = 1


def test_a_frame_for_a_model_that_does_not_run_has_no_verdict_and_says_so() -> None:
    with Line(FakeLoader()) as line:
        line.capture(FakeCamera([picture(), None]))
        line.records.until(lambda: len(line.records.all) == 1)
        record = line.records.all[0]
        assert reason(record) is Reason.MODEL_MISSING
        assert not record.passed
        assert record.model is None
        assert "Model m is TRAINED" in str(record.outcome)


def test_a_frame_of_another_size_has_no_verdict_and_says_both_sizes() -> None:
    with Line(FakeLoader()) as line:
        line.start()
        line.capture(FakeCamera([picture(side=9), picture(), None], paced=True))
        line.records.until(lambda: len(line.records.all) == 2)
        wrong, right = line.records.all
        assert reason(wrong) is Reason.IMAGE_SIZE
        assert "9x9" in str(wrong.outcome) and "8x8" in str(wrong.outcome)
        assert right.passed
