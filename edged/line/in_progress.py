"""What a station keeps of the requests in progress, and how a frame of theirs is made."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from datetime import datetime, timezone

from edged.core.names import TriggerKind
from edged.core.observer import Observer
from edged.core.types import (
    NO_IMAGE,
    Frame,
    Inspection,
    NoVerdict,
    Picture,
    Reason,
    Timing,
    Trigger,
)


@dataclass(frozen=True, slots=True)
class Rules:
    """How a station works; see StationConfig. window: see there, in nanoseconds; 0 = none."""

    name: str
    camera: str
    kind: TriggerKind = "free"
    limit_ns: int = 0
    window_ns: int = 0
    waiting: int = 4
    results: int = 16
    confirm: bool = False


@dataclass(slots=True, eq=False)
class PartInProgress:
    """One request in progress. Under the station's lock."""

    frame: Frame
    deadline_ns: int
    on_answer: Callable[[Inspection], None] | None = None
    """Somebody who waits for this one."""
    pictured: bool = False
    stale: bool = False
    """The camera delivered, but only what it had exposed before."""
    done: bool = False

    @property
    def received_ns(self) -> int:
        """When the request came in."""
        trigger = self.frame.trigger
        return trigger.received_ns if trigger is not None else self.frame.captured_ns

    def is_over(self, at_ns: int, window_ns: int) -> bool:
        """Whether a picture taken then is too late for it, by its deadline or the window."""
        past_window = window_ns > 0 and at_ns > self.received_ns + window_ns
        return past_window or 0 < self.deadline_ns <= at_ns

    def timeout(self) -> NoVerdict:
        """What to say when its deadline has come."""
        if self.pictured:
            return NoVerdict(Reason.TIMEOUT, "no verdict before the deadline")
        if self.stale:
            words = "the camera gave only pictures from before the trigger"
            return NoVerdict(Reason.STALE_FRAME, words)
        return NoVerdict(Reason.TIMEOUT, "the camera gave no picture before the deadline")

    def ended(self, outcome: NoVerdict) -> Inspection:
        """The inspection of a request that no unit answered."""
        timing = Timing(self.frame.captured_ns, decided_ns=time.monotonic_ns())
        return Inspection(self.frame, None, outcome, timing)


class Unconfirmed:
    """Results that the PLC has not yet said to have processed; the newest `most` of them."""

    def __init__(self, rules: Rules, observer: Observer) -> None:
        self._rules = rules
        self._observer = observer
        self._lock = threading.Lock()
        self._sent: deque[tuple[int, int]] = deque()

    def sent(self, number: int) -> None:
        """A result is on its way; if there are too many, the oldest is given up, and counted."""
        with self._lock:
            self._sent.append((number, time.monotonic_ns()))
            overrun = len(self._sent) > self._rules.results
            if overrun:
                self._sent.popleft()
        if overrun:
            self._observer.result_overrun(self._rules.name)

    def confirmed(self, number: int) -> None:
        """The PLC is that far; a number that it never got says nothing."""
        now = time.monotonic_ns()
        waited: list[tuple[int, int]] = []
        with self._lock:
            if any(sent == number for sent, _ in self._sent):
                while not waited or waited[-1][0] != number:
                    waited.append(self._sent.popleft())
        for _, at in waited:
            self._observer.result_confirmed(self._rules.name, (now - at) / 1e9)


def blank(rules: Rules, number: int, at_ns: int, trigger: Trigger) -> Frame:
    """A frame that has no picture yet."""
    now = datetime.now(timezone.utc)
    return Frame(rules.name, number, at_ns, now, NO_IMAGE, trigger, camera=rules.camera)


def inspection_future() -> tuple[Future[Inspection], Callable[[Inspection], None]]:
    """Somewhere to wait for an inspection, and what tells it."""
    future: Future[Inspection] = Future()

    def on_answer(inspection: Inspection) -> None:
        if future.set_running_or_notify_cancel():
            future.set_result(inspection)

    return future, on_answer


def with_picture(frame: Frame, picture: Picture) -> Frame:
    """The same frame, now that the camera has delivered."""
    return replace(
        frame,
        captured_ns=picture.captured_ns,
        captured_at=picture.captured_at,
        image=picture.image,
        name=picture.name,
        simulated=picture.simulated,
        truth=picture.truth,
    )
