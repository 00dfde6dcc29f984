"""A running model gets another engine: no job waits for it, none is lost, none is done twice."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest

from edged.core.errors import EngineError, WrongState
from edged.core.lifecycle import ModelStatus
from edged.core.protocols import EngineLoader
from edged.core.types import Inspection
from edged.engines.choose import EngineRequest, Engines
from edged.hosting.batch import Batcher
from edged.hosting.host import Host, HostingSpec
from edged.hosting.swap import hand_over
from edged.hosting.units import UnitPool
from edged.runtime.workers import Crew, Deadline
from edged.wire.imaging import read
from edged.wire.spec import read_spec
from tests.support.broker import wait_until
from tests.support.fakes import PATIENCE, SPEC, Ears, FakeLoader, Line

SWAPS, SENDERS = 2, 3
SWAP_SECONDS = 60.0


def settled(line: Line) -> str:
    """What is said of the model when the swap has ended; it is hosted, whatever became of it."""
    seen = line.host.wait("m", PATIENCE)
    assert seen.status is ModelStatus.HOSTED
    return seen.message


def test_units_change_one_by_one_and_the_old_engine_is_closed_after_them() -> None:
    old, new = FakeLoader(), FakeLoader()
    with Line(old, units=3) as line:
        line.start()
        assert line.host.swap("m", lambda: new) is ModelStatus.SYSTEM_UPDATING
        assert settled(line) == "The model is running."
        assert (old.closed, new.closed) == (1, 0)
        assert line.detect(0).result(PATIENCE).passed
        assert new.entered.acquire(timeout=PATIENCE)


def test_a_job_in_the_old_engine_s_hand_is_finished_by_it() -> None:
    old, new = FakeLoader(open_gate=False), FakeLoader()
    with Line(old) as line:
        old.gate.set()
        line.start()
        while old.entered.acquire(blocking=False):
            pass
        old.gate.clear()
        held = line.detect(0)
        assert old.entered.acquire(timeout=PATIENCE)
        line.host.swap("m", lambda: new)
        while new.entered.acquire(blocking=False):
            pass
        assert line.detect(0).result(PATIENCE).passed  # while the old one still holds its own
        assert not held.done() and old.closed == 0
        old.gate.set()
        assert held.result(PATIENCE).passed
        assert settled(line) == "The model is running."
        assert old.closed == 1


@pytest.mark.parametrize("fault", ["load", "open", "second unit"])
def test_an_engine_that_does_not_come_up_changes_nothing(fault: str) -> None:
    old = FakeLoader()
    bad = FakeLoader(opens=lambda n: n == 1 or (fault == "second unit" and n == 2))

    def recipe() -> EngineLoader:
        if fault == "load":
            raise EngineError("The plan is damaged.")
        return bad

    with Line(old, units=2) as line:
        line.start()
        line.host.swap("m", recipe)
        message = settled(line)
        assert message.startswith("The model is running; another engine was refused: ")
        assert {"load": "damaged", "open": "unit 1 of 2"}.get(fault, "unit 2 of 2") in message
        assert old.closed == 0 and bad.closed == (0 if fault == "load" else 1)
        assert [line.detect(n).result(PATIENCE).passed for n in (0, 255)] == [True, False]
        line.host.swap("m", FakeLoader)  # and the next one is welcome
        assert settled(line) == "The model is running."


def test_a_model_that_changes_its_engine_is_neither_stopped_nor_swapped_again() -> None:
    slow = threading.Event()

    def recipe() -> EngineLoader:
        assert slow.wait(PATIENCE)
        return FakeLoader()

    with Line(FakeLoader()) as line:
        with pytest.raises(WrongState):
            line.host.swap("m", FakeLoader)  # it is not hosted
        line.start()
        line.host.swap("m", recipe)
        for deed in (lambda: line.host.stop("m"), lambda: line.host.swap("m", FakeLoader)):
            with pytest.raises(WrongState):
                deed()
        assert line.detect(0).result(PATIENCE).passed
        slow.set()
        settled(line)


def test_jobs_sent_all_the_while_are_each_answered_once(model: Path, parts: Path) -> None:
    """Real engines, ONNX Runtime and OpenVINO by turns, under three senders at full rate."""
    spec, ears = read_spec(model), Ears()
    picture = read(next((parts / "normal").iterdir()))
    named = {
        n: Engines().candidates(model, spec, EngineRequest(n, 1))[0]
        for n in ("onnxruntime", "openvino")
    }
    hosting = HostingSpec(
        "m", lambda: model, read_spec, lambda *_: [named["onnxruntime"]], units=1, queue=64
    )
    host = Host([hosting], Crew(ears.worker_crashed), ears, Deadline())
    host.start("m")
    assert host.wait("m", PATIENCE).status is ModelStatus.HOSTED
    stop, answers = threading.Event(), [list[Future[Inspection]]() for _ in range(SENDERS)]

    def send(mine: list[Future[Inspection]]) -> None:
        while not stop.is_set():
            mine.append(host.detect("m", picture))
            mine[-1].exception(PATIENCE)

    senders = [threading.Thread(target=partial(send, mine)) for mine in answers]
    for sender in senders:
        sender.start()
    for number in range(SWAPS):
        count = sum(map(len, answers))
        host.swap("m", named[("openvino", "onnxruntime")[number % 2]])
        # Behind the senders, who leave it little of a machine that others use, too.
        assert host.wait("m", SWAP_SECONDS).message == "The model is running."
        assert wait_until(lambda: sum(map(len, answers)) > count + SENDERS, PATIENCE)  # noqa: B023
    stop.set()
    for sender in senders:
        sender.join(PATIENCE)
    everything = [future for mine in answers for future in mine]
    assert all(future.exception(0) is None for future in everything)
    assert len({future.result(0).frame.sequence for future in everything}) == len(everything)
    host.close()
    assert ears.crashed == []


def test_pools_of_other_sizes_change_and_a_refused_one_leaves_the_old_as_it_was() -> None:
    ears = Ears()
    crew = Crew()
    batcher = Batcher(SPEC.ref, 16, ears)

    def pool(loader: FakeLoader) -> UnitPool:
        return UnitPool(SPEC, loader, 1, batcher, crew, ears, lambda why: None)

    for had, units in ((4, 1), (1, 3), (2, 2)):
        old, new = pool(FakeLoader()), pool(FakeLoader())
        old.resize(had)
        assert old.wait_open(had, PATIENCE)
        bad = pool(FakeLoader(opens=lambda number: False))
        with pytest.raises(EngineError, match="did not open"):
            hand_over(old, bad, units, lambda: None)
        assert (old.size, bad.size) == (had, 0)
        assert hand_over(old, new, units, lambda: None)
        assert (old.size, new.size) == (0, units) and ears.units[-1] == units
        new.retire(PATIENCE)


def test_the_old_engine_may_die_while_the_new_one_takes_over() -> None:
    """Of two old units one has left, and the last one dies: the new pool answers."""
    dies, second = threading.Event(), threading.Event()

    def opens(number: int) -> bool:
        if number == 3:  # 1 proves, 2 is the first unit
            second.wait(PATIENCE)
        return True

    old, new = (
        FakeLoader(fails=dies.is_set, opens=lambda number: number < 4),
        FakeLoader(opens=opens),
    )
    with Line(old, units=2) as line:
        line.start()
        line.host.swap("m", lambda: new)
        assert wait_until(lambda: line.host.wait("m", 0).status is ModelStatus.SYSTEM_UPDATING, 20)
        while not new.entered.acquire(blocking=False):
            line.detect(0).exception(PATIENCE)
        dies.set()
        for _ in range(200):  # each is answered, by the engine that fails or by the other
            line.detect(0).exception(PATIENCE)
        second.set()
        assert settled(line) == "The model is running."
        assert all(line.detect(0).result(PATIENCE).passed for _ in range(20))
