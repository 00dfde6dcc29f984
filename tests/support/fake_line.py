"""FAKE stations and a FAKE journal in memory, which keep the promises of core.protocols."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from dataclasses import replace
from datetime import datetime, timezone

import numpy as np

from edged.core.errors import NotFound, WrongState
from edged.core.protocols import JournalEntry, Label
from edged.core.types import (
    NO_IMAGE,
    Ack,
    Frame,
    Inspection,
    NoVerdict,
    Reason,
    Timing,
    Trigger,
    TriggerRequest,
    Verdict,
)
from edged.wire.results import full


class FakeStations:
    """FAKE: one station, `gate`, which answers each order once, when it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[TriggerRequest, int]] = []
        self.hold = False
        self.futures: list[Future[Inspection]] = []

    def inspect(
        self, station: str, request: TriggerRequest, received_ns: int
    ) -> Future[Inspection]:
        if station != "gate":
            raise NotFound(f"No station is called {station!r} (stations: gate).")
        if any((o.part, o.sequence) == (request.part, request.sequence) for o, _ in self.requests):
            raise WrongState(f"Part {request.part} with sequence {request.sequence} came before.")
        self.requests.append((request, received_ns))
        future: Future[Inspection] = Future()
        self.futures.append(future)
        if not self.hold:
            future.set_result(self.judged(request, received_ns))
        return future

    def judged(self, request: TriggerRequest, received_ns: int, late: bool = False) -> Inspection:
        trigger = Trigger(request.part, request.sequence, received_ns, kind="grpc")
        frame = Frame("gate", 7, time.monotonic_ns(), datetime.now(timezone.utc), NO_IMAGE, trigger)
        outcome: Verdict | NoVerdict = Verdict(False, 0.75, 0.25, 0.5)
        if late:
            outcome = NoVerdict(Reason.TIMEOUT, "its deadline passed")
        return Inspection(frame, None, outcome, Timing(1), engine="fake")

    def trigger(self, station: str, request: TriggerRequest, received_ns: int) -> Ack:
        raise NotImplementedError

    def delivered(self, station: str, sequence: int) -> None:
        raise NotImplementedError

    def command(self, station: str, word: str, model: str = "") -> str:
        raise NotImplementedError


class FakeJournal:
    """FAKE: entries in a list. One that lives on is what a restarted daemon finds on disk."""

    def __init__(self) -> None:
        self.entries: list[JournalEntry] = []
        self.pictures: dict[str, bytes] = {}
        self.callbacks: list[Callable[[Sequence[JournalEntry]], None]] = []
        self.newest = 0

    def add(self, *sequences: int, station: str = "top", tell: bool = True) -> list[JournalEntry]:
        made = []
        for sequence in sequences:
            self.newest += 1
            image = np.zeros((64, 64, 3), np.uint8)
            frame = Frame(station, sequence, 1, datetime.now(timezone.utc), image)
            record = full(Inspection(frame, None, Verdict(True, 0.75, 0.75, 0.5), Timing(1)))
            made.append(JournalEntry(self.newest, record))
        self.entries += made
        if tell:
            for callback in self.callbacks:
                callback(made)
        return made

    def restarted(self) -> FakeJournal:
        self.callbacks.clear()
        return self

    def prune(self, count: int) -> None:
        del self.entries[:count]

    def since(
        self, position: int, limit: int, stations: Collection[str] = (), until: int | None = None
    ) -> list[JournalEntry]:
        found = [
            e
            for e in self.entries
            if e.position > position
            and (until is None or e.position <= until)
            and (not stations or e.record["camera"] in stations)
        ]
        return found[:limit]

    def find(self, id: str) -> JournalEntry:
        for entry in self.entries:
            if entry.record["id"] == id:
                return replace(entry, picture=id in self.pictures)
        raise NotFound(f"No inspection has the id {id}.")

    def picture(self, id: str) -> tuple[bytes, str]:
        if id not in self.pictures:
            raise NotFound(f"The picture of inspection {id} is not kept (any more).")
        return self.pictures[id], "image/png"

    def subscribe(self, callback: Callable[[Sequence[JournalEntry]], None]) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)


class FakeLabels:
    """FAKE: remembers what was said of which inspection."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Label]] = []

    def label(self, id: str, label: Label) -> str:
        if id == "0" * 32:
            raise NotFound(f"No inspection {id} is in the archive.")
        self.said.append((id, label))
        return f"s3://edged-line/top/{id}.png"
