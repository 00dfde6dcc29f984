"""Models of the box: start, stop, growth, failure, and an answer for everybody.

The engines are fakes, because a real one cannot be made to hang or fail when a test wants it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest

from edged.core.errors import (
    Busy,
    DeadlineExceeded,
    EdgedError,
    EngineError,
    ModelError,
    NotFound,
    ShuttingDown,
    WrongState,
)
from edged.core.lifecycle import ModelStatus
from edged.core.types import Inspection, ModelSpec
from edged.hosting.batch import Batcher
from edged.hosting.host import Host, HostingSpec
from edged.hosting.units import FAILURES, IDLE_TICKS, UnitPool
from edged.runtime.workers import Crew, Deadline
from tests.support.broker import wait_until
from tests.support.fakes import PATIENCE, SPEC, Ears, FakeLoader, Line, job, picture


def outcome(future: Future[Inspection]) -> type[BaseException] | None:
    """What the future's caller gets: an error's type, or None with a verdict."""
    error = future.exception(PATIENCE)
    return None if error is None else type(error)


def fill(line: Line, loader: FakeLoader, waiting: int) -> list[Future[Inspection]]:
    """One picture in the hand of the only unit, held at the gate, and others that wait."""
    asked = [line.detect()]
    assert loader.entered.acquire(timeout=PATIENCE)
    return asked + [line.detect() for _ in range(waiting)]


class Stop:
    """`host.stop` on a thread of its own, because it waits for the work in hand."""

    def __init__(self, line: Line) -> None:
        self._future: Future[ModelStatus] = Future()
        self._line = line
        threading.Thread(target=self._run, daemon=True).start()
        assert wait_until(lambda: line.status is not ModelStatus.HOSTED, PATIENCE)

    def _run(self) -> None:
        try:
            self._future.set_result(self._line.host.stop("m"))
        except BaseException as error:
            self._future.set_exception(error)

    def result(self) -> ModelStatus:
        return self._future.result(PATIENCE)


def test_a_started_model_is_hosted_and_judges() -> None:
    with Line(FakeLoader()) as line:
        assert line.host.start("m") is ModelStatus.STARTING_HOSTING
        seen = line.host.wait("m", PATIENCE)
        assert (seen.status, seen.spec) == (ModelStatus.HOSTED, SPEC)
        assert line.detect(0).result(PATIENCE).passed
        assert not line.detect(255).result(PATIENCE).passed


def test_a_stop_answers_everything_that_was_accepted() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line:
        line.start()
        asked = fill(line, loader, 5)
        stop = Stop(line)
        assert line.status is ModelStatus.STOPPING_HOSTING
        with pytest.raises(WrongState, match="STOPPING_HOSTING"):
            line.detect()
        loader.gate.set()
        assert stop.result() is ModelStatus.TRAINED
        assert [outcome(future) for future in asked] == [None] * 6
        assert loader.closed == 1


def test_a_stop_whose_deadline_has_passed_tells_who_waits_of_the_shutdown() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line:
        line.start()
        in_hand, *waiting = fill(line, loader, 5)
        line.deadline.set(0.0)
        assert line.host.stop("m") is ModelStatus.TRAINED
        assert [outcome(future) for future in waiting] == [ShuttingDown] * 5
        assert not in_hand.done()
        loader.gate.set()
        assert outcome(in_hand) is None


def test_the_end_of_the_host_drains_every_model() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line:
        line.start()
        asked = fill(line, loader, 3)
        loader.gate.set()
        line.host.close()
        line.host.close()
        assert [outcome(future) for future in asked] == [None] * 4
        assert loader.closed == 1
        with pytest.raises(WrongState):
            line.detect()


def test_a_pool_grows_while_jobs_wait_and_shrinks_when_idle() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader, max_units=3) as line:
        line.start()
        asked = fill(line, loader, 5)

        def grown() -> bool:
            line.host.adjust()
            return line.ears.units == [1, 2, 3]

        assert wait_until(grown, PATIENCE)
        line.host.adjust()
        assert line.ears.units == [1, 2, 3], "never beyond max_units"
        loader.gate.set()
        assert [outcome(future) for future in asked] == [None] * 6
        for _ in range(4 * IDLE_TICKS):
            line.host.adjust()
        assert line.ears.units == [1, 2, 3, 2, 1], "never below what it began with"
        assert line.detect().result(PATIENCE).passed


def test_a_pool_without_max_units_keeps_its_size() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line:
        line.start()
        fill(line, loader, 3)
        line.host.adjust()
        assert line.ears.units == [1]


def test_a_closed_pool_does_not_grow_again() -> None:
    ears, deadline = Ears(), Deadline()
    batcher = Batcher(SPEC.ref, 4, ears)
    crew = Crew(ears.worker_crashed)
    pool = UnitPool(SPEC, FakeLoader(), 1, batcher, crew, ears, lambda why: None)
    pool.resize(2)
    batcher.close()
    pool.close(deadline)
    pool.resize(3)
    assert pool.size == 0
    assert ears.units == [2]


def test_a_batch_is_what_waited_while_the_unit_was_busy() -> None:
    loader = FakeLoader(open_gate=False, batch=4)
    with Line(loader) as line:
        line.start()
        asked = fill(line, loader, 5)
        loader.gate.set()
        assert [outcome(future) for future in asked] == [None] * 6
        line.ears.until(lambda: line.ears.batches == [1, 4, 1])


def test_an_engine_that_fails_three_times_in_a_row_ends_the_last_unit_and_the_model() -> None:
    loader = FakeLoader(open_gate=False, fails=lambda: True)
    with Line(loader) as line:
        line.start()
        asked = fill(line, loader, 5)
        loader.gate.set()
        assert [outcome(future) for future in asked] == [EngineError] * 6
        details = [str(future.exception()) for future in asked]
        assert [d.count("every inference unit ended") for d in details] == [0] * FAILURES + [1] * 3
        seen = line.host.models()[0]
        assert seen.status is ModelStatus.HOSTING_FAILED
        assert "Every inference unit ended" in seen.message
        with pytest.raises(WrongState, match="HOSTING_FAILED"):
            line.detect()
        assert wait_until(lambda: loader.closed == 1, PATIENCE)


def test_failures_with_a_good_batch_between_them_end_no_unit() -> None:
    turns = iter([True, True, False] * 4)
    with Line(FakeLoader(fails=lambda: next(turns))) as line:
        line.start()
        got = [outcome(line.detect()) for _ in range(12)]
        assert got == [EngineError, EngineError, None] * 4
        assert line.status is ModelStatus.HOSTED


def test_a_unit_that_dies_leaves_the_work_to_the_others() -> None:
    first = lambda: threading.current_thread().name == "unit-m-1"  # noqa: E731
    loader = FakeLoader(open_gate=False, fails=first)
    with Line(loader, units=2) as line:
        line.start()
        asked = [line.detect() for _ in range(2)]
        for _ in asked:
            assert loader.entered.acquire(timeout=PATIENCE)
        loader.gate.set()
        assert sorted(str(outcome(future)) for future in asked) == [str(EngineError), "None"]

        def dead() -> bool:
            outcome(line.detect())
            return line.ears.units == [2, 1]

        assert wait_until(dead, PATIENCE)
        assert line.status is ModelStatus.HOSTED
        assert outcome(line.detect()) is None


def test_units_that_cannot_open_their_engine_fail_the_model_and_no_thread_crashes() -> None:
    with Line(FakeLoader(opens=lambda number: number == 1), units=3) as line:
        line.start()
        assert wait_until(lambda: line.status is ModelStatus.HOSTING_FAILED, PATIENCE)
        assert "The fake engine does not open." in line.host.models()[0].message
        assert line.ears.crashed == []


def test_an_engine_that_dies_while_the_model_stops_still_answers_everybody() -> None:
    loader = FakeLoader(open_gate=False, fails=lambda: True)
    with Line(loader) as line:
        line.start()
        asked = fill(line, loader, 5)
        stop = Stop(line)
        loader.gate.set()
        assert stop.result() is ModelStatus.TRAINED
        assert [outcome(future) for future in asked] == [EngineError] * 3 + [ShuttingDown] * 3
        assert line.ears.crashed == []


def test_a_unit_left_behind_by_a_stop_does_not_harm_the_model_started_after_it() -> None:
    old = FakeLoader(fails=lambda: True)
    with Line(old, FakeLoader()) as line:
        line.start()
        for _ in range(FAILURES - 1):
            assert outcome(line.detect()) is EngineError
            assert old.entered.acquire(timeout=PATIENCE)
        old.gate.clear()
        (in_hand,) = fill(line, old, 0)
        line.deadline.set(0.0)
        line.host.stop("m")
        assert line.start().status is ModelStatus.HOSTED
        old.gate.set()
        assert outcome(in_hand) is EngineError
        # Of the units called so, only the new one remains.
        assert wait_until(lambda: [t.name for t in threading.enumerate()].count("unit-m-1") == 1)
        assert line.status is ModelStatus.HOSTED
        assert outcome(line.detect()) is None


def test_a_failed_model_can_be_started_again() -> None:
    broken, whole = FakeLoader(fails=lambda: True), FakeLoader()
    with Line(broken, whole) as line:
        line.start()
        assert [outcome(line.detect()) for _ in range(FAILURES)] == [EngineError] * FAILURES
        assert wait_until(lambda: line.status is ModelStatus.HOSTING_FAILED, PATIENCE)
        assert line.start().status is ModelStatus.HOSTED
        assert outcome(line.detect()) is None
        assert wait_until(lambda: broken.closed == 1) and whole.closed == 0


def test_a_model_is_not_started_or_stopped_twice() -> None:
    with Line(FakeLoader()) as line:
        line.start()
        with pytest.raises(WrongState, match="Model m is HOSTED: cannot start now"):
            line.host.start("m")
        assert line.host.stop("m") is ModelStatus.TRAINED
        with pytest.raises(WrongState, match="Model m is TRAINED: cannot stop now"):
            line.host.stop("m")


def test_an_unknown_model_is_not_found_and_the_known_ones_are_named() -> None:
    with Line(FakeLoader()) as line:
        asks: list[Callable[[], object]] = [
            lambda: line.host.start("x"),
            lambda: line.host.stop("x"),
            lambda: line.host.wait("x", 0.0),
            lambda: line.host.detect("x", picture()),
        ]
        for ask in asks:
            with pytest.raises(NotFound, match=r"'x' here \(models: m\)"):
                ask()


def test_models_are_listed_by_name_whether_they_run_or_not() -> None:
    ears = Ears()
    hostings = [HostingSpec(n, Path, lambda _: SPEC, lambda *_: [FakeLoader]) for n in "cab"]
    host = Host(hostings, Crew(ears.worker_crashed), ears, Deadline())
    host.start("b")
    host.wait("b", PATIENCE)
    trained, hosted = ModelStatus.TRAINED, ModelStatus.HOSTED
    assert [(m.name, m.status) for m in host.models()] == [
        ("a", trained),
        ("b", hosted),
        ("c", trained),
    ]
    host.close()


def test_a_picture_whose_deadline_passed_in_the_queue_is_told_so() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader) as line:
        line.start()
        (in_hand,) = fill(line, loader, 0)
        late = line.detect(deadline_ns=1)
        loader.gate.set()
        assert outcome(late) is DeadlineExceeded
        assert outcome(in_hand) is None


def test_a_full_queue_is_an_answer() -> None:
    loader = FakeLoader(open_gate=False)
    with Line(loader, queue=2) as line:
        line.start()
        asked = fill(line, loader, 2)
        with pytest.raises(Busy):
            line.detect()
        loader.gate.set()
        assert [outcome(future) for future in asked] == [None] * 3


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModelError("spec.json: cannot be read."), "spec.json: cannot be read."),
        (KeyError("x"), "The engine could not be loaded (KeyError)."),
    ],
)
def test_a_model_that_cannot_be_read_says_why(error: Exception, message: str) -> None:
    def read() -> ModelSpec:
        raise error

    with Line(FakeLoader(), read=read) as line:
        seen = line.start()
        assert (seen.status, seen.message) == (ModelStatus.HOSTING_FAILED, message)


class Hammer:
    """Offers jobs as fast as it can until `done`; counts the answers to each."""

    def __init__(self, line: Line, done: threading.Event) -> None:
        self._line = line
        self._done = done
        self._lock = threading.Lock()
        self.answers: list[int] = []
        self.refused = 0
        self.judged = 0
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self._done.is_set():
            number = len(self.answers)
            self.answers.append(0)
            try:
                self._line.host.offer("m", job(number, self._reply))
            except EdgedError:  # the refusal is the answer
                with self._lock:
                    self.refused += 1
                    self.answers[number] += 1

    def _reply(self, inspection: Inspection) -> None:
        with self._lock:
            self.answers[inspection.frame.sequence] += 1
            self.judged += inspection.verdict is not None


def test_every_job_gets_exactly_one_answer_while_the_model_starts_and_stops() -> None:
    done = threading.Event()

    def adjust() -> None:
        while not done.wait(0.001):  # a pace, far above the daemon's once a second
            line.host.adjust()

    with Line(FakeLoader(batch=2), units=2, max_units=4, queue=4) as line:
        hammers = [Hammer(line, done) for _ in range(3)]
        threading.Thread(target=adjust, daemon=True).start()
        for _ in range(10):
            line.ears.batches.clear()
            assert line.start().status is ModelStatus.HOSTED
            line.ears.until(lambda: len(line.ears.batches) > 5)
            assert line.host.stop("m") is ModelStatus.TRAINED
        done.set()
        for hammer in hammers:
            hammer.thread.join(PATIENCE)
        line.host.close()
        assert line.ears.crashed == []
    for hammer in hammers:
        assert set(hammer.answers) == {1}
        assert hammer.refused > 0
        assert hammer.judged > 0
