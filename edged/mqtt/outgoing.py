"""Which message leaves next on a live connection, and what the broker's answer means.

    result   first; dropped and counted when there is no connection or it does not take them
    state    retained heartbeat
    full     from SendOrder, within what is left of the window

Knows the rules of delivery and no MQTT library. All of it runs on the sink's worker thread. It
must never let a result out late, nor forget a record that the broker did not confirm.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from edged.core.names import ByteOrder
from edged.core.observer import Observer
from edged.core.types import Reason
from edged.outbox.records import OutboxRow
from edged.outbox.send_order import SendOrder
from edged.wire import results

log = logging.getLogger(__name__)

State: TypeAlias = Literal["ready", "error", "offline"]

HEARTBEAT_SECONDS = 5.0
OFFLINE = b'{"v":1,"st":"offline","hb":0}'
"""The last will: the connection broke."""
GOODBYE = b'{"v":1,"st":"offline","hb":0,"code":7}'
"""The last word of a clean stop."""
EXPIRY_SECONDS = 10
"""A result that the broker could not hand on for so long is for a part that is gone."""
STATE_EXPIRY_SECONDS = 20
"""Of a station's state: the will speaks for the daemon only, so what is not renewed must go."""
NO_SUBSCRIBER = 0x10
_RESERVE = 2  # of the window, for results and state
_LATE_SECONDS = 2.0  # a result that could not leave for so long is no longer wanted
_STUCK_SECONDS = 30.0
_HOLD_SECONDS = 0.5
_PARK_SECONDS = 30.0


class Message(NamedTuple):
    """One inspection, ready for both lanes; or an ack, which has no record (`full` empty).

    flat: the result, empty = none is sent. number: the record's, in its station. ok: an OK that
    may be acted on. deadline_ns: monotonic; after it there is no verdict; 0 = none. limit: how
    many results of its station may wait to leave.
    """

    result_topic: str
    flat: bytes
    full_topic: str
    full: bytes
    number: int = 0
    ok: bool = False
    deadline_ns: int = 0
    qos: int = 1
    limit: int = 1024
    station: str = ""
    byte_order: ByteOrder | None = None
    """Of a struct; None = JSON."""

    @classmethod
    def answer(cls, topic: str, payload: bytes, qos: int) -> Message:
        """Something to say to the PLC at once, which is no record."""
        return cls(topic, payload, "", b"", qos=qos)

    def withheld(self, reason: Reason) -> Message:
        """The same for the PLC when its verdict, whatever it is, cannot be acted on."""
        flat = results.withhold(self.flat, reason, self.byte_order)
        return self._replace(flat=flat, ok=False, deadline_ns=0)

    def without_ok(self, reason: Reason) -> Message:
        """The same when its OK cannot be acted on: record and result then say why, and agree."""
        if not self.ok:
            return self
        record = json.loads(self.full) | {"ok": False, "code": reason.code}
        return self.withheld(reason)._replace(full=results.dumps(record))


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


@dataclass(slots=True)
class _Beat:
    """One retained state: when it is due again, what was said last, and the answer awaited."""

    due: float
    sent: dict[str, Any] | None = None
    mid: int = 0
    count: int = 0


class Outgoing:
    """The three lanes of one sink. Times are `time.monotonic()`; the link may be None = away."""

    def __init__(self, prefix: str, send_order: SendOrder, observer: Observer, name: str) -> None:
        self._state_topic = f"{prefix}/state"
        self._send_order = send_order
        self._observer = observer
        self._name = name
        self._results: deque[tuple[float, Message]] = deque()
        self._flight: dict[int, OutboxRow | None] = {}
        self._progress = 0.0
        self._said: set[tuple[str, str]] = set()
        self._beats: dict[str, _Beat] = {}

    @property
    def idle(self) -> bool:
        """Everything that can be sent is sent and answered."""
        return not self._results and not self._flight and self._send_order.idle

    @property
    def due(self) -> float:
        """When there is something to do besides new messages and answers."""
        late = self._results[0][0] + _LATE_SECONDS if self._results else float("inf")
        beats = (beat.due for beat in self._beats.values() if not beat.mid)
        return min(self._send_order.due(), late, *beats)

    def stuck(self, now: float) -> bool:
        """The broker is there and has answered nothing for long."""
        return bool(self._flight) and now - self._progress > _STUCK_SECONDS

    def connected(self, now: float) -> None:
        """A new connection: the records start over, each state is said at once."""
        self._send_order.restart()
        self._progress = now
        self._said.clear()
        for beat in self._beats.values():
            beat.due, beat.sent = now, None

    def disconnected(self) -> None:
        """The connection is gone. Records stay; results are never sent again."""
        for _ in self._results:
            self._drop("not_connected")
        self._results.clear()
        states = {beat.mid for beat in self._beats.values()}
        for mid, row in self._flight.items():
            if row is None and mid not in states:
                self._drop("unconfirmed")
        self._flight.clear()
        for beat in self._beats.values():
            beat.mid = 0

    def results(
        self, messages: Sequence[Message], link: Link | None, now: float, safe: bool = True
    ) -> None:
        """Send what the PLC waits for: results and acks. An OK only when its record is `safe`."""
        messages = [m for m in messages if m.flat]
        if link is None:
            for _ in messages:
                self._drop("not_connected")
            return
        for message in messages:
            if message.ok and not safe:
                message = message.withheld(Reason.NO_RECORD)
            self._results.append((now, message))
        while self._results and len(self._flight) < link.window and not link.blocked:
            since, message = self._results.popleft()
            if now - since > _LATE_SECONDS:
                self._drop("late")
                continue
            message = self._in_time(message)
            left = (message.deadline_ns - time.monotonic_ns()) / 1e9
            expiry = max(1, math.ceil(left)) if message.deadline_ns else EXPIRY_SECONDS
            mid = link.publish(message.result_topic, message.flat, message.qos, False, expiry)
            if not mid:
                self._drop("not_connected")
            elif message.qos:
                self._out(mid, None, now)
        late = [m for at, m in self._results if now - at > _LATE_SECONDS]
        for _ in late:
            self._drop("late")
        waiting = [(at, m) for at, m in self._results if now - at <= _LATE_SECONDS]
        self._results = deque(self._newest(waiting))

    def _newest(self, waiting: list[tuple[float, Message]]) -> list[tuple[float, Message]]:
        """Of a station whose PLC or broker is slow the oldest results go, not the newest."""
        room: dict[str, int] = {}
        kept = []
        for at, message in reversed(waiting):
            left = room.setdefault(message.station, message.limit)
            room[message.station] = left - 1
            if left > 0:
                kept.append((at, message))
            else:
                self._drop("overrun")
                self._observer.result_overrun(message.station)
        return kept[::-1]

    def _in_time(self, message: Message) -> Message:
        """The message, or after its deadline the word that there is no verdict; counted."""
        if not 0 < message.deadline_ns <= time.monotonic_ns():
            return message
        self._observer.deadline_missed(message.station)
        return message.withheld(Reason.TIMEOUT)

    def states(self, words: Mapping[str, Mapping[str, Any]], link: Link, now: float) -> None:
        """Say each topic's state when it changed or its heartbeat is due."""
        for topic, fields in words.items():
            beat = self._beats.setdefault(topic, _Beat(now))
            if beat.mid or (fields == beat.sent and now < beat.due):
                continue
            beat.count += 1
            beat.due = now + HEARTBEAT_SECONDS
            beat.sent = dict(fields)
            payload = {"v": 1, "st": fields["st"], "hb": beat.count, **fields}
            expiry = 0 if topic == self._state_topic else STATE_EXPIRY_SECONDS
            self._say(topic, json.dumps(payload, separators=(",", ":")).encode(), link, now, expiry)

    def goodbye(self, link: Link, now: float) -> None:
        """Say that this station is offline, on purpose."""
        for topic in self._beats:
            self._say(topic, GOODBYE, link, now, 0)

    @property
    def said(self) -> bool:
        """The broker has confirmed the last states."""
        return not any(beat.mid for beat in self._beats.values())

    def records(self, link: Link, now: float) -> None:
        """Send records while the window has room. Raises SinkError if the disk cannot be read."""
        room = max(1, link.window - _RESERVE)
        while len(self._flight) < room and not link.blocked:
            row = self._send_order.next(now)
            if row is None:
                return
            mid = link.publish(row.topic, row.payload, 1, False, 0)
            if not mid:
                return
            self._out(mid, row, now)

    def answered(self, mid: int, code: int, words: str, now: float) -> None:
        """The broker answered message `mid` with an MQTT 5 reason code."""
        for beat in self._beats.values():
            beat.mid = 0 if beat.mid == mid else beat.mid
        if mid not in self._flight:
            return  # QoS 0: written, not answered
        self._progress = now
        row = self._flight.pop(mid)
        if row is None:
            if code >= 0x80:
                self._shout("result or state", words)
            return
        if code >= 0x80:
            self._shout(row.topic, words)
            self._send_order.refused(row, now + _PARK_SECONDS)
            reason = words.lower().replace(" ", "_")
        elif code == NO_SUBSCRIBER:
            self._send_order.refused(row, now + _HOLD_SECONDS)
            reason = "no_subscriber"
        else:
            self._send_order.taken(row, now)
            reason = "success"
        self._observer.sink_delivered(self._name, reason)

    def _say(self, topic: str, payload: bytes, link: Link, now: float, expiry: int) -> None:
        mid = link.publish(topic, payload, 1, True, expiry)
        if mid:
            self._beats[topic].mid = mid
            self._out(mid, None, now)

    def _out(self, mid: int, row: OutboxRow | None, now: float) -> None:
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
