"""Which message leaves next on a live connection, and what the broker's answer means.

    result   first; dropped and counted when there is no connection or it does not take them
    state    retained heartbeat
    full     from Replay, within what is left of the window

Knows the rules of delivery and no MQTT library. All of it runs on the sink's worker thread. It
must never let a result out late, nor forget a record that the broker did not confirm.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

from edged.core.observer import Observer
from edged.sinks.delivery import Message, Replay
from edged.sinks.outbox import Row

log = logging.getLogger(__name__)

State: TypeAlias = Literal["ready", "error", "offline"]

HEARTBEAT_SECONDS = 5.0
OFFLINE = b'{"v":1,"st":"offline","hb":0}'
"""The last will, and the last word of a clean stop."""
EXPIRY_SECONDS = 10
"""A result that the broker could not hand on for so long is for a part that is gone."""
NO_SUBSCRIBER = 0x10
_RESERVE = 2  # of the window, for results and state
_LATE_SECONDS = 2.0  # a result that could not leave for so long is no longer wanted
_STUCK_SECONDS = 30.0
_HOLD_SECONDS = 0.5
_PARK_SECONDS = 30.0


class Link(Protocol):
    """A live connection, as the courier sees it. Worker thread."""

    @property
    def window(self) -> int:
        """How many messages may be out and unanswered; at least 1."""

    @property
    def blocked(self) -> bool:
        """The broker does not take what was sent already."""

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, expires: int) -> int:
        """Send; the number that the answer will bear, or 0 if the connection is gone.

        expires: seconds after which the broker may let go of it; 0 = never.
        """


class Courier:
    """The three lanes of one sink. Times are `time.monotonic()`; the link may be None = away."""

    def __init__(
        self, prefix: str, qos: int, replay: Replay, observer: Observer, name: str
    ) -> None:
        self._state_topic = f"{prefix}/state"
        self._qos = qos
        self._replay = replay
        self._observer = observer
        self._name = name
        self._results: deque[tuple[float, Message]] = deque()
        self._flight: dict[int, Row | None] = {}
        self._progress = 0.0
        self._said: set[tuple[str, str]] = set()
        self._state_sent: State | None = None
        self._state_mid = 0
        self._beats = 0
        self._beat_at = 0.0

    @property
    def idle(self) -> bool:
        """Everything that can be sent is sent and answered."""
        return not self._results and not self._flight and self._replay.idle

    @property
    def due(self) -> float:
        """When there is something to do besides new messages and answers."""
        late = self._results[0][0] + _LATE_SECONDS if self._results else float("inf")
        beat = float("inf") if self._state_mid else self._beat_at
        return min(beat, self._replay.due(), late)

    def stuck(self, now: float) -> bool:
        """The broker is there and has answered nothing for long."""
        return bool(self._flight) and now - self._progress > _STUCK_SECONDS

    def connected(self, now: float) -> None:
        """A new connection: the records start over, the state is said at once."""
        self._replay.restart()
        self._progress = now
        self._said.clear()
        self._beat_at = now
        self._state_sent = None

    def disconnected(self) -> None:
        """The connection is gone. Records stay; results are never sent again."""
        for _ in self._results:
            self._drop("not_connected")
        self._results.clear()
        for mid, row in self._flight.items():
            if row is None and mid != self._state_mid:
                self._drop("unconfirmed")
        self._flight.clear()
        self._state_mid = 0

    def results(self, messages: Sequence[Message], link: Link | None, now: float) -> None:
        """Send the results of these inspections at once, before the disk is asked."""
        if link is None:
            for _ in messages:
                self._drop("not_connected")
            return
        self._results.extend((now, message) for message in messages)
        while self._results and len(self._flight) < link.window and not link.blocked:
            _, message = self._results.popleft()
            mid = link.publish(message.result_topic, message.flat, self._qos, False, EXPIRY_SECONDS)
            if not mid:
                self._drop("not_connected")
            elif self._qos:
                self._out(mid, None, now)
        while self._results and now - self._results[0][0] > _LATE_SECONDS:
            self._results.popleft()
            self._drop("late")

    def state(self, word: State, link: Link, now: float) -> None:
        """Say the state when it changed or the heartbeat is due."""
        if self._state_mid or (word == self._state_sent and now < self._beat_at):
            return
        self._beats += 1
        self._beat_at = now + HEARTBEAT_SECONDS
        self._state_sent = word
        payload = json.dumps({"v": 1, "st": word, "hb": self._beats}, separators=(",", ":"))
        self._say(payload.encode(), link, now)

    def goodbye(self, link: Link, now: float) -> None:
        """Say that this station is offline, on purpose."""
        self._say(OFFLINE, link, now)

    @property
    def said(self) -> bool:
        """The broker has confirmed the last state."""
        return not self._state_mid

    def records(self, link: Link, now: float) -> None:
        """Send records while the window has room. Raises SinkError if the disk cannot be read."""
        room = max(1, link.window - _RESERVE)
        while len(self._flight) < room and not link.blocked:
            row = self._replay.next(now)
            if row is None:
                return
            mid = link.publish(row.topic, row.payload, 1, False, 0)
            if not mid:
                return
            self._out(mid, row, now)

    def answered(self, mid: int, code: int, words: str, now: float) -> None:
        """The broker answered message `mid` with an MQTT 5 reason code."""
        self._progress = now
        if mid == self._state_mid:
            self._state_mid = 0
        if mid not in self._flight:
            return  # QoS 0: written, not answered
        row = self._flight.pop(mid)
        if row is None:
            if code >= 0x80:
                self._shout("result or state", words)
            return
        if code >= 0x80:
            self._shout(row.topic, words)
            self._replay.refused(row, now + _PARK_SECONDS)
            reason = words.lower().replace(" ", "_")
        elif code == NO_SUBSCRIBER:
            self._replay.refused(row, now + _HOLD_SECONDS)
            reason = "no_subscriber"
        else:
            self._replay.taken(row, now)
            reason = "success"
        self._observer.sink_delivered(self._name, reason)

    def _say(self, payload: bytes, link: Link, now: float) -> None:
        mid = link.publish(self._state_topic, payload, 1, True, 0)
        if mid:
            self._state_mid = mid
            self._out(mid, None, now)

    def _out(self, mid: int, row: Row | None, now: float) -> None:
        if not self._flight:
            self._progress = now
        self._flight[mid] = row

    def _drop(self, policy: str) -> None:
        self._observer.sink_dropped(self._name, policy)

    def _shout(self, what: str, words: str) -> None:
        if (what, words) in self._said:
            return
        self._said.add((what, words))
        log.error(
            "the MQTT broker refuses %s: %s; records are kept and tried again every %d s: "
            "check the broker's access list",
            what,
            words,
            _PARK_SECONDS,
        )
