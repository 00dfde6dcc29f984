"""The stations together: their clock, who may trigger them, and the states they say."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from edged.core.errors import InvalidInput, NotFound, WrongState
from edged.core.lifecycle import advance
from edged.core.stations import STATION_LIFE, WORDS, StationEvent, StationState
from edged.core.types import NoVerdict, Reason, TriggerRequest
from edged.line.clock import Conditions, StationClock
from edged.line.in_progress import Rules
from tests.support.fakes import PATIENCE, FakeLoader, Line, Waiting
from tests.support.step_camera import StepCamera

S = StationState


class Said(Waiting):
    """Keeps what the stations tell the PLC."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, StationState, int]] = []

    def __call__(self, station: str, word: str, state: StationState, code: int, model: str) -> None:
        with self.changed:
            self.all.append((word, state, code))
            self.changed.notify_all()

    def wait(self, word: str, code: int) -> None:
        self.until(lambda: bool(self.all) and self.all[-1][::2] == (word, code))


class Place:
    """One station `s1` of a real `StationClock`, with the test's hand on its conditions."""

    def __init__(self, line: Line, stations: StationClock, camera: StepCamera) -> None:
        self.line, self.stations, self.camera = line, stations, camera
        self.said = Said()
        self.trouble = ""
        self.hosted = True
        self.recipes: list[str] = []

    def recipe(self, model: str) -> str:
        self.recipes.append(model)
        return model

    def request(self, number: int, deadline: float | None = None) -> Any:
        return self.stations.inspect(
            "s1", TriggerRequest("P", number, deadline), time.monotonic_ns()
        )


@contextmanager
def place(kind: str = "grpc", interval: float = 0.0, **rules: Any) -> Iterator[Place]:
    with Line(FakeLoader()) as line:
        line.start()
        stations = StationClock(line.crew, line.ears)
        made = Place(line, stations, StepCamera())
        station = line.station(
            Rules("s1", "cam", kind, 10**10, **rules),  # type: ignore[arg-type]
            stations.wake,
        )
        conditions = Conditions(lambda: made.hosted, made.recipe, lambda: made.trouble)
        stations.add(station, conditions, interval)
        line.read(made.camera, station)
        stations.start(made.said)
        yield made
        stations.close()
        stations.end(PATIENCE)


def test_the_table_has_no_way_into_work_past_ready_and_every_state_has_a_word() -> None:
    assert set(WORDS) == set(S)
    for (state, _), after in STATION_LIFE.items():
        if after in (S.SINGLE_EXECUTION, S.CONTINUOUS_EXECUTION):
            assert state is S.READY
        if state in (S.ERROR, S.HALTED):
            assert WORDS[after] != "ready"
    with pytest.raises(WrongState, match="Station s1 is HALTED: cannot begin a part now"):
        advance(STATION_LIFE, S.HALTED, StationEvent.START_SINGLE, "Station s1")


def test_somebody_who_asks_gets_the_one_inspection_of_the_order() -> None:
    with place() as made:
        made.said.wait("ready", 0)
        found = made.request(1).result(PATIENCE)
        assert found.passed
        with pytest.raises(WrongState, match="came before"):
            made.request(1)
        with pytest.raises(NotFound, match="no triggers by mqtt"):
            made.stations.trigger("s1", TriggerRequest("P", 2), 1)
        with pytest.raises(NotFound, match=r"No station is called 'x' here \(stations: s1\)"):
            made.stations.inspect("x", TriggerRequest("P", 2), 1)


def test_the_clock_answers_a_deadline_by_itself() -> None:
    with place() as made:
        made.said.wait("ready", 0)
        made.camera.stall()
        found = made.request(1, deadline=0.05).result(PATIENCE)
        assert isinstance(found.outcome, NoVerdict)
        assert found.outcome.reason in (Reason.TIMEOUT, Reason.STALE_FRAME)


def test_a_station_gives_itself_orders_at_its_interval() -> None:
    with place("interval", interval=0.02) as made:
        made.said.wait("ready", 0)
        made.line.records.wait(10)
        made.said.until(lambda: made.said.all[-1][1] is S.CONTINUOUS_EXECUTION)
    times = [i.frame.captured_ns / 1e9 for i in made.line.records.all[:10]]
    assert times[-1] - times[0] >= 8 * 0.02, "no faster than asked for"


@pytest.mark.parametrize("kind", ["free", "hardware"])
def test_with_a_camera_that_triggers_itself_every_picture_is_a_part(kind: str) -> None:
    with place(kind) as made:
        made.line.records.wait(5)
    found = made.line.records.sequences
    assert found == sorted(found)


def test_what_a_station_lacks_is_its_state_and_its_reason() -> None:
    with place() as made:
        made.said.wait("ready", 0)
        made.hosted = False
        made.said.wait("error", Reason.MODEL_MISSING.code)
        assert made.said.all[-1][1] is S.INITIALIZED
        made.hosted, made.trouble = True, "the disk is full"
        made.said.wait("error", Reason.NO_RECORD.code)
        with pytest.raises(WrongState, match="the disk is full"):
            made.request(1)
        made.trouble = ""
        made.said.wait("ready", 0)
        assert made.request(2).result(PATIENCE).passed
        made.camera.lose()
        made.said.wait("error", Reason.CAMERA_LOST.code)
        assert made.said.all[-1][1] is S.ERROR


def test_commands_stop_start_and_change_the_recipe() -> None:
    with place() as made:
        made.said.wait("ready", 0)
        assert made.stations.command("s1", "stop") == "Station s1 stops."
        made.said.wait("halted", Reason.HALTED.code)
        found = made.request(1).result(PATIENCE)
        assert isinstance(found.outcome, NoVerdict)
        assert found.outcome.reason is Reason.HALTED
        made.stations.command("s1", "start")
        made.said.wait("ready", 0)
        made.stations.command("s1", "recipe", "other")
        assert made.recipes == ["other"]
        with pytest.raises(InvalidInput, match="'jump' is no command"):
            made.stations.command("s1", "jump")


def test_after_the_answer_to_stop_nothing_is_taken_any_more() -> None:
    with place() as made:
        made.said.wait("ready", 0)
        for number in range(1, 6):
            made.stations.command("s1", "stop")
            found = made.request(number).result(PATIENCE)
            assert isinstance(found.outcome, NoVerdict)


def test_a_station_whose_camera_has_its_own_trigger_is_ready_before_the_first_part() -> None:
    with place("hardware") as made:
        made.camera.stall()
        made.said.wait("ready", 0)


def test_a_station_says_busy_while_no_further_trigger_fits() -> None:
    with place(waiting=1) as made:
        made.said.wait("ready", 0)
        made.camera.stall()
        made.request(1)
        made.said.wait("busy", 0)


def test_a_stop_answers_whoever_still_waits() -> None:
    with place() as made:
        made.said.wait("ready", 0)
        made.camera.stall()
        waiting = made.request(1)
        made.stations.close()
        found = waiting.result(PATIENCE)
        assert isinstance(found.outcome, NoVerdict)
        assert found.outcome.reason is Reason.SHUTDOWN


def test_a_camera_that_never_comes_up_is_an_error_and_no_start_that_lasts_for_ever() -> None:
    with place() as made:
        made.camera.lose()
        made.said.wait("error", Reason.CAMERA_LOST.code)
    states = [state for _, state, _ in made.said.all]
    assert states[-1] is S.ERROR
