"""All stations: who may trigger them, what time it is for them, and how they stand.

One worker, `stations`, is the clock: it answers requests whose deadline has come, gives interval
stations their requests, and moves each station's state (core/stations.py) as camera, model and
record lane come and go. It must not judge nor read a camera; what it watches it asks for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeAlias

from edged.core.errors import InvalidInput, NotFound, WrongState
from edged.core.lifecycle import advance
from edged.core.names import TriggerKind
from edged.core.observer import Observer
from edged.core.stations import STATION_LIFE, WORDS, StationEvent, StationState
from edged.core.types import Ack, Inspection, Reason, TriggerRequest
from edged.line.in_progress import inspection_future
from edged.line.station import Station
from edged.runtime.workers import Crew, Worker

log = logging.getLogger(__name__)

StateChanged: TypeAlias = Callable[[str, str, StationState, int, str], None]
WATCH_SECONDS = 0.25
"""So often the conditions are looked at; a trigger does not wait for it."""
_E = StationEvent


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a station needs, asked for on the clock's thread; each answers at once.

    hosted: whether a model is there to judge. model: which. choose: let another judge, or raise.
    record_trouble: why records cannot be kept, empty if they can. halt: remember that it was told
    to stop, or to start. halted: what was remembered.
    """

    hosted: Callable[[], bool]
    choose: Callable[[str], str]
    record_trouble: Callable[[], str] = lambda: ""
    model: Callable[[], str] = lambda: ""
    halt: Callable[[bool], None] = lambda _: None
    halted: bool = False


@dataclass(slots=True)
class _Place:
    """A station, its conditions, and how it stands. Clock's thread, but for `halted`."""

    station: Station
    conditions: Conditions
    interval: float = 0.0
    halted: bool = False
    state: StationState = StationState.PREOPERATIONAL
    said: tuple[str, int, str] = ("", -1, "")
    next_request: float = 0.0
    requests: int = 0
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.station.rules.name


class StationClock:
    """Implements core.protocols.Stations. `add` before `start`, both on main."""

    def __init__(self, crew: Crew, observer: Observer) -> None:
        self._crew = crew
        self._observer = observer
        self._changed = threading.Condition()
        self._nudged = False
        self._watch_at = 0.0
        self._places: dict[str, _Place] = {}
        self._worker: Worker | None = None
        self._on_state: StateChanged = lambda *_: None

    def add(self, station: Station, conditions: Conditions, interval: float = 0.0) -> None:
        """One more station; interval: seconds between the requests that it gives itself."""
        place = _Place(station, conditions, interval, conditions.halted)
        self._places[station.rules.name] = place

    def start(self, on_state: StateChanged | None = None) -> None:
        """Start the clock; `on_state` hears (station, word, state, reason code, model), if new."""
        self._on_state = on_state or self._on_state
        self._worker = self._crew.start("stations", self._run)

    def wake(self) -> None:
        """Something is due that was not (any thread)."""
        with self._changed:
            self._nudged = True
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more requests; those without a picture are answered. Main, before the models."""
        for place in self._places.values():
            place.station.close()

    def end(self, seconds: float) -> None:
        """Stop the clock, after the models have answered. Main."""
        if self._worker is not None:
            self._worker.stop.set()
            self.wake()
            self._worker.join(seconds)

    def ready(self, station: str) -> bool:
        """Whether it would take a request now."""
        return WORDS[self._place(station).state] == "ready"

    def trigger(self, station: str, request: TriggerRequest | None, received_ns: int) -> Ack:
        """See core.protocols.Stations."""
        if request is None:
            self._triggered_by(station, "mqtt").spoil()
            return Ack(Reason.BAD_TRIGGER)
        return self._triggered_by(station, "mqtt").request(request, received_ns, "mqtt")

    def inspect(
        self, station: str, request: TriggerRequest, received_ns: int
    ) -> Future[Inspection]:
        """See core.protocols.Stations."""
        future, on_answer = inspection_future()
        ack = self._triggered_by(station, "grpc").request(request, received_ns, "grpc", on_answer)
        if ack.reason in (Reason.DUPLICATE, Reason.NO_RECORD):
            raise WrongState(f"Station {station} does not inspect {request.part!r}: {ack.detail}.")
        return future

    def delivered(self, station: str, sequence: int) -> None:
        """See core.protocols.Stations."""
        self._place(station).station.delivered(sequence)

    def command(self, station: str, word: str, model: str = "") -> str:
        """See core.protocols.Stations."""
        place = self._place(station)
        if word == "recipe":
            text = place.conditions.choose(model)
        elif word in ("start", "stop"):
            place.conditions.halt(word == "stop")
            place.halted = word == "stop"
            if place.halted:
                place.station.refusal = Reason.HALTED, "the station was told to stop"
            text = f"Station {station} {'stops' if place.halted else 'starts'}."
        else:
            raise InvalidInput(f"{word!r} is no command: start, stop or recipe.")
        self._watch_at = 0.0
        log.info("command %s for station %s: %s", word, station, text)
        self.wake()
        return text

    def _place(self, station: str) -> _Place:
        try:
            return self._places[station]
        except KeyError:
            have = ", ".join(sorted(self._places)) or "none"
            raise NotFound(f"No station is called {station!r} here (stations: {have}).") from None

    def _triggered_by(self, station: str, kind: TriggerKind) -> Station:
        found = self._place(station).station
        if found.rules.kind != kind:
            raise NotFound(
                f'Station {station} takes no triggers by {kind}: its trigger is "'
                f'{found.rules.kind}" in the configuration.'
            )
        return found

    def _run(self, worker: Worker) -> None:
        while not worker.stop.is_set():
            worker.beat()
            now = time.monotonic()
            if now >= self._watch_at:
                self._watch_at = now + WATCH_SECONDS
                for place in self._places.values():
                    self._watch(place)
            due = [self._watch_at, *(self._attend(place, now) for place in self._places.values())]
            with self._changed:
                wait = min(due) - time.monotonic()
                if not self._nudged and wait > 0:
                    self._changed.wait(wait)
                self._nudged = False
        for place in self._places.values():
            place.station.abandon()
            place.station.expire(time.monotonic_ns())

    def _attend(self, place: _Place, now: float) -> float:
        """Do what is due; when to come again."""
        again = float("inf")
        if place.interval:
            if now >= place.next_request:
                late = now - place.next_request
                place.next_request = now + place.interval - (late % place.interval)
                place.requests += 1
                request = TriggerRequest("", place.requests)
                if place.station.refusal is None:
                    place.station.request(request, time.monotonic_ns(), "interval")
            again = place.next_request
        deadline = place.station.expire(time.monotonic_ns())
        return min(again, deadline / 1e9) if deadline else again

    def _watch(self, place: _Place) -> None:
        """Move the state to where the conditions are, and say so when it changed."""
        station = place.station
        refusal = self._refusal(place)
        station.refusal = refusal
        while (event := _next_event(place, refusal)) is not None:
            place.state = advance(STATION_LIFE, place.state, event, f"Station {place.name}")
            self._observer.station_state(place.name, place.state)
        word = WORDS[place.state]
        if word == "ready" and station.in_progress >= station.rules.waiting:
            word = "busy" if not station.each else word
        code, model = refusal[0].code if refusal else 0, place.conditions.model()
        if (word, code, model) != place.said:
            place.said = word, code, model
            self._on_state(place.name, word, place.state, code, model)

    def _refusal(self, place: _Place) -> tuple[Reason, str] | None:
        if place.halted:
            return Reason.HALTED, "the station was told to stop"
        if not place.station.camera_up:
            return Reason.CAMERA_LOST, f"camera {place.station.rules.camera} does not deliver"
        if why := place.conditions.record_trouble():
            return Reason.NO_RECORD, why
        if not place.conditions.hosted():
            return Reason.MODEL_MISSING, "no model is hosted that could judge"
        return None


def _next_event(place: _Place, refusal: tuple[Reason, str] | None) -> StationEvent | None:
    """The next step from the present state to the one that the conditions ask for."""
    state, reason = place.state, refusal[0] if refusal else None
    if state is StationState.PREOPERATIONAL:
        known = place.station.camera_known or reason is Reason.HALTED
        return _E.INITIALIZE if known else None
    if reason is Reason.HALTED:
        return None if state is StationState.HALTED else _E.HALT
    if state is StationState.HALTED:
        return _E.RESET
    if reason in (Reason.CAMERA_LOST, Reason.NO_RECORD):
        return None if state is StationState.ERROR else _E.FAIL
    if state is StationState.ERROR:
        return _E.RESOLVE
    if reason is not None:
        return None if state is StationState.INITIALIZED else _E.UNPREPARED
    if state is StationState.INITIALIZED:
        return _E.PREPARED
    busy = place.station.in_progress > 0
    if place.station.rules.kind not in ("mqtt", "grpc"):
        return _E.START_CONTINUOUS if state is StationState.READY else None
    if state is StationState.READY:
        return _E.START_SINGLE if busy else None
    return None if busy else _E.DONE
