"""Sparkplug B: the box as an edge node, each station as a device, on a connection of its own.

Owns when births, data and deaths leave. Everything travels with QoS 0, as Sparkplug wants it:
SCADA and historians get a live view; a record that must not be lost goes another way. One worker
does everything but dialling. Commands other than a rebirth are not taken.

The birth certificate and the will carry the same `bdSeq`, one more at each CONNECT, also after a
restart, so that a will that comes late is told from the death of the present session.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from edged.config import MqttConfig
from edged.config.sparkplug import SparkplugConfig
from edged.core.errors import InvalidInput, SinkError
from edged.core.observer import Observer
from edged.core.types import Inspection
from edged.mqtt.connection import FAREWELL_SECONDS, Arrival, BrokerWorker, PahoLink, Will
from edged.mqtt.credentials import derived_id, read
from edged.outbox.writer import Inbox
from edged.runtime import durable
from edged.runtime.workers import Crew, Deadline
from edged.wire import sparkplug
from edged.wire.sparkplug import HostState, Node, SparkplugMessage, Values

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_REBIRTH_SECONDS = 1.0
"""Births at most so often, however often a host asks."""
_LIVE = 256
"""Parts that may be on their way to a host that listens."""


class _Part(NamedTuple):
    """One inspection on its way; `at_ms` is its capture."""

    device: str
    values: Values
    at_ms: int


class SparkplugSink:
    """The Sink that speaks Sparkplug B. `accept` and `set_alive`: any thread."""

    name = "sparkplug"

    def __init__(
        self,
        config: MqttConfig,
        options: SparkplugConfig,
        devices: Collection[str],
        bd_seq: Path,
        crew: Crew,
        observer: Observer,
        deadline: Deadline,
    ) -> None:
        """devices: the stations. bd_seq: the file that keeps the number of births and deaths."""
        self._config = config
        self._options = options
        self._path = bd_seq
        self._observer = observer
        self._inbox: Inbox[_Part] = Inbox(max(_LIVE, options.history))
        self._lock = threading.Lock()
        self._alive: dict[str, bool] = dict.fromkeys(devices, False)
        self._broker = BrokerWorker(self.name, self, self._inbox, crew, deadline, _CLOSE_SECONDS)
        # From here on: the worker's own.
        self._node = Node(options.group, options.node, devices)
        self._waiting: deque[tuple[_Part, bool]] = deque()
        """Parts, and whether nobody listened when they came."""
        self._born: dict[str, bool] = {}
        """The devices that have had their birth on this connection; empty before the node's."""
        self._bd_seq = -1
        self._greeting: PahoLink | None = None
        """The newest connection, which has the present bdSeq in its will."""
        self._host: HostState | None = None
        self._host_at = 0
        """The newest timestamp of the primary host; what is older says nothing, also later."""
        self._birth_at = 0.0
        self._wanted = False
        self._complained = False

    def start(self) -> None:
        """Begin to dial; a broker that is away is no error.

        Raises SinkError if a password, a certificate or the state's file cannot be used.
        """
        access = read(self._config)
        place = f"sparkplug/{self._options.group}/{self._options.node}"
        own = f"{access.client_id[:60]}-sp" if self._config.client_id else derived_id(place)
        access = replace(access, client_id=own)
        self._bd_seq = self._read_bd_seq()
        config = self._config

        def link(five: bool) -> PahoLink:
            if self._greeting is None or self._greeting.greeted:
                self._next_bd_seq()  # one more for each CONNECT, not for each try to get through
            death = self._node.death(self._bd_seq, _now_ms())
            will = Will(self._node.topic("NDEATH"), death, qos=1, retain=False)
            self._greeting = PahoLink(config, access, five, will)
            return self._greeting

        self._broker.start(config, link)

    def accept(self, inspection: Inspection) -> None:
        """Take one part; never waits. Beyond `history` parts the newest is counted and left out."""
        if inspection.late_of or inspection.frame.station not in self._alive:
            return
        at_ms = int(inspection.frame.captured_at.timestamp() * 1000)
        part = _Part(inspection.frame.station, sparkplug.values(inspection), at_ms)
        try:
            self._inbox.put(part, 0.0)
        except SinkError:
            self._observer.sink_dropped(self.name, "queue_full")

    def set_alive(self, station: str, alive: bool) -> None:
        """A station can deliver, or cannot: its birth or death is said."""
        with self._lock:
            if station in self._alive:
                self._alive[station] = alive
        self._inbox.wake()

    def close(self) -> None:
        """Deliver what can be within the deadline, say NDEATH, end."""
        self._broker.close()
        self._inbox.close()

    def turned(self, link: PahoLink | None, words: str) -> None:
        """See connection.Conversation."""
        self._born.clear()
        self._host = None
        self._wanted = True
        self._waiting = deque((part, True) for part, _ in self._waiting)
        if link is not None:
            link.subscribe({self._node.topic("NCMD"): 1})
            if self._options.primary_host is not None:
                link.subscribe({self._state_topic: 1}, retained=True)
        self._observer.sink_state(self.name, link is not None, words)

    def work(self, link: PahoLink | None, now: float) -> float:
        """See connection.Conversation."""
        self._take()
        if link is not None and not link.lost:
            self._speak(link, now)
        expected = self._wanted and self._heeded and link is not None
        return self._birth_at if expected else float("inf")

    def heard(self, link: PahoLink) -> None:
        """See connection.Conversation."""
        link.answers.clear()  # with QoS 0 they say no more than that it was written
        arrived, link.arrived = link.arrived, []
        for arrival in arrived:
            self._arrived(link, arrival)

    def finished(self, link: PahoLink | None, stopped: float) -> bool:
        """See connection.Conversation."""
        return link is None or not self._waiting or not self._born

    def farewell(self, link: PahoLink) -> None:
        """See connection.Conversation: say NDEATH; who was not born does not die."""
        if self._born:
            self._die(link)
        else:
            link.end(politely=True)

    def _take(self) -> None:
        """What came; while nobody listens it becomes history, of which the newest is kept."""
        for part in self._inbox.take():
            self._inbox.release(1)
            self._waiting.append((part, not self._born))
        while len(self._waiting) > max(self._options.history, _LIVE if self._born else 0):
            self._waiting.popleft()
            self._observer.sink_dropped(self.name, "history")

    @property
    def _state_topic(self) -> str:
        return f"{sparkplug.NAMESPACE}/STATE/{self._options.primary_host}"

    @property
    def _heeded(self) -> bool:
        """Whether the primary host, if one is named, is there to listen."""
        return self._options.primary_host is None or bool(self._host and self._host.online)

    def _speak(self, link: PahoLink, now: float) -> None:
        if not self._heeded:
            return
        if self._wanted and now >= self._birth_at:
            self._wanted, self._birth_at = False, now + _REBIRTH_SECONDS
            self._born = {"": True}
            self._publish(link, self._node.birth(self._bd_seq, _now_ms()))
        if not self._born or self._wanted:
            return  # after the wish for a rebirth no data may leave before it
        with self._lock:
            alive = dict(self._alive)
        for device, lives in alive.items():
            if lives and not self._born.get(device):
                self._publish(link, self._node.device_birth(device, _now_ms()))
                self._born[device] = True
            elif not lives and self._born.get(device):
                self._publish(link, self._node.device_death(device, _now_ms()))
                self._born[device] = False
        while self._waiting and not link.blocked and not link.lost:
            part, historical = self._waiting.popleft()
            if not self._born.get(part.device):  # its last parts, decided as it was lost
                self._publish(link, self._node.device_birth(part.device, _now_ms()))
                self._born[part.device] = True
            self._publish(link, self._node.data(*part, _now_ms(), historical))

    def _publish(self, link: PahoLink, message: SparkplugMessage) -> None:
        link.publish(message.topic, message.payload, 0, False, 0)

    def _arrived(self, link: PahoLink, arrival: Arrival) -> None:
        try:
            if arrival.topic == self._node.topic("NCMD"):
                if sparkplug.asks_for_rebirth(arrival.payload):
                    self._wanted = True
                else:
                    self._complain("commands other than a rebirth are not taken")
            elif self._options.primary_host and arrival.topic == self._state_topic:
                self._heed(link, sparkplug.host_state(arrival.payload))
        except InvalidInput as error:
            self._complain(str(error))

    def _heed(self, link: PahoLink, state: HostState) -> None:
        """The primary host came or went; a word older than the last one says nothing."""
        if state.timestamp < self._host_at:
            return
        before, self._host, self._host_at = self._host, state, state.timestamp
        if before is not None and before.online and not state.online:
            self._die(link)
            link.lost = f"the primary host {self._options.primary_host} is offline"

    def _die(self, link: PahoLink) -> None:
        """Say NDEATH, wait a moment until the broker has it, part politely."""
        until = time.monotonic() + FAREWELL_SECONDS
        link.answers.clear()
        mid = link.publish(
            self._node.topic("NDEATH"), self._node.death(self._bd_seq, _now_ms()), 1, False, 0
        )
        while mid and not link.lost and time.monotonic() < until:
            if any(answered == mid for answered, _, _ in link.answers):
                break
            link.wait(until - time.monotonic())
        self._born.clear()
        link.end(politely=True)

    def _complain(self, words: str) -> None:
        if not self._complained:
            self._complained = True
            log.warning("Sparkplug: a message is not taken (said once): %s", words)

    def _next_bd_seq(self) -> None:
        self._bd_seq = (self._bd_seq + 1) % 256
        try:
            durable.replace(self._path, f"{self._bd_seq}\n".encode())
        except OSError as error:  # it counts on in memory; only a restart would begin again
            log.warning("Sparkplug: bdSeq cannot be kept in %s (%s)", self._path, error.strerror)

    def _read_bd_seq(self) -> int:
        try:
            return int(self._path.read_text(encoding="ascii")) % 256
        except (OSError, ValueError):
            return -1


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
