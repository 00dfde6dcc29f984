"""When to call the broker, in which version of MQTT, and what to say when it does not answer.

Owns the connection under way: back-off with jitter, the fall-back from MQTT 5 to 3.1.1, and each
complaint logged once until the broker is there again. Knows no MQTT library. Dialling itself
blocks (resolver, TCP, TLS), so it happens on a short-lived thread; everything else on the sink's
worker. A broker that is away is a state, never a reason to stop or to be restarted.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

from edged.runtime.workers import Crew, Worker

log = logging.getLogger(__name__)

_ANSWER_SECONDS = 5.0
_REDIAL_SECONDS = 0.5, 5.0  # doubling, with jitter: stations must not come back in step
_MUTE = 2  # times a broker may hang up on MQTT 5 without a word before 3.1.1 is tried
_NO_ANSWER = "no answer"
_BAD_VERSION = 0x84
_TAKEN_OVER = 0x8E
_CREDENTIALS = (0x85, 0x86, 0x87, 0x8A, 0x8C)


class Connection(Protocol):
    """One connection from dialling to its end; the dialling thread has it until `dialled`."""

    five: bool
    """MQTT 5, or else 3.1.1."""
    dialled: bool
    since: float
    """`time.monotonic()` when dialling ended."""
    up: bool
    """The broker has accepted it."""
    lost: str
    """Why it has ended, in words; empty while it lives."""
    refusal: int
    """The reason code the broker gave, if it gave one."""
    hung_up: bool
    """It was ended from outside, not by us."""
    abandoned: bool
    """Nobody waits for the dialling to end any more."""

    def dial(self) -> None:
        """Resolve, connect, greet; blocks for seconds, sets `dialled` last, raises nothing."""

    def wait(self, seconds: float, *wakes: int) -> None:
        """Sleep until the broker, a readable descriptor of `wakes` or the time comes; read."""

    def end(self, politely: bool) -> None:
        """Close it."""


Wake: TypeAlias = Callable[[], None]

C = TypeVar("C", bound=Connection)


class Dialler(Generic[C]):
    """Keeps one connection to the broker; worker thread only. Times are `time.monotonic()`.

    falls_back: try MQTT 3.1.1 with a broker that does not speak 5.
    """

    def __init__(
        self, broker: str, make: Callable[[bool], C], crew: Crew, wake: Wake, falls_back: bool
    ) -> None:
        self._broker = broker
        self._may_fall_back = falls_back
        self._make = make
        self._crew = crew
        self._wake = wake
        self._current: C | None = None
        self._up = False
        self._caller: Worker | None = None
        self._five = True
        self._mute = 0
        self._failures = 0
        self._dial_at = 0.0
        self._said: set[str] = set()

    @property
    def link(self) -> C | None:
        """The live connection, if there is one."""
        return self._current if self._up else None

    @property
    def readable(self) -> C | None:
        """The connection that there is something to read of, accepted by the broker or not yet."""
        current = self._current
        return current if current is not None and current.dialled and not current.lost else None

    @property
    def under_way(self) -> bool:
        """A connection is being made and may be there soon."""
        return self._current is not None and not self._up

    @property
    def due(self) -> float:
        """When to attend again, if nothing comes before."""
        current = self._current
        if current is None:
            return self._dial_at
        if current.dialled and current.lost:
            return 0.0
        return float("inf") if self._up or not current.dialled else current.since + _ANSWER_SECONDS

    def attend(self, now: float, stopping: bool) -> tuple[bool, str] | None:
        """Move on by one step; (connected?, words) when that changed or was tried in vain."""
        current = self._current
        if current is None:
            if now >= self._dial_at and not stopping:
                self._dial()
            return None
        if not current.dialled:
            if self._caller is not None:
                # It is in the resolver or in connect, both of which end: no reason for alarm.
                self._caller.beat()
            return None
        if not current.up and not current.lost and now >= current.since + _ANSWER_SECONDS:
            current.lost = f"{_NO_ANSWER} within {_ANSWER_SECONDS:g} s"
        if current.lost:
            return self._hang_up(current, now)
        if current.up and not self._up:
            return self._came_up(current)
        return None

    def put_down(self) -> None:
        """Let go of whatever there is; the end of the worker."""
        current, self._current = self._current, None
        self._up = False
        if current is not None:
            current.abandoned = True
            if current.dialled:
                current.end(politely=False)

    def _dial(self) -> None:
        current = self._current = self._make(self._five)

        def call(worker: Worker) -> None:
            current.dial()
            self._wake()

        self._caller = self._crew.start(f"dial-{self._broker}", call)

    def _came_up(self, current: C) -> tuple[bool, str]:
        self._up = True
        self._failures = self._mute = 0
        self._said.clear()
        words = "MQTT 5" if current.five else "MQTT 3.1.1"
        log.info("connected to the MQTT broker %s (%s)", self._broker, words)
        return True, words

    def _hang_up(self, current: C, now: float) -> tuple[bool, str]:
        was_up, self._up, self._current = self._up, False, None
        current.end(politely=False)
        if not was_up and self._falls_back(current):
            self._five = False
            self._dial_at = now
            return False, f"{current.lost}; trying MQTT 3.1.1"
        self._five = True  # the broker may have been replaced by one that can
        low, high = _REDIAL_SECONDS
        delay = min(high, low * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1.0)
        self._failures += 1
        if current.refusal == _TAKEN_OVER or current.refusal in _CREDENTIALS:
            delay = high
        self._dial_at = now + delay
        self._complain(current, was_up)
        return False, current.lost

    def _falls_back(self, current: C) -> bool:
        if not (current.five and self._may_fall_back):
            return False
        if current.refusal == _BAD_VERSION or current.lost.startswith(_NO_ANSWER):
            return True  # some 3.1.1 brokers wait for the rest of a CONNECT they misread
        if current.hung_up and not current.refusal:
            self._mute += 1
        if self._mute < _MUTE:
            return False
        self._mute = 0
        return True

    def _complain(self, current: C, was_up: bool) -> None:
        words = current.lost
        if current.refusal == _TAKEN_OVER:
            words += "; another client uses the same client id: set mqtt.client_id"
        elif current.refusal in _CREDENTIALS and not was_up:
            words += "; check mqtt.username, password_file, client_id and the broker's access list"
        if words in self._said:
            return
        if not was_up:
            self._said.add(words)
        level = logging.ERROR if current.refusal else logging.WARNING
        log.log(level, "MQTT broker %s: %s (trying again, records are kept)", self._broker, words)
