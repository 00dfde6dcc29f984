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
from edged.mqtt.connection import Arrival, PahoLink, Will
from edged.mqtt.credentials import derived_id, read
from edged.mqtt.dialling import Dialler
from edged.outbox.writer import Inbox
from edged.runtime import durable
from edged.runtime.workers import Crew, Deadline, Worker
from edged.wire import sparkplug
from edged.wire.sparkplug import HostState, Node, SparkplugMessage, Values

log = logging.getLogger(__name__)

_CLOSE_SECONDS = 5.0
_FAREWELL_SECONDS = 1.0
_REBIRTH_SECONDS = 1.0
"""Births at most so often, however often a host asks."""
_TICK_SECONDS = 0.02
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
        self._crew = crew
        self._observer = observer
        self._deadline = deadline
        self._inbox: Inbox[_Part] = Inbox(max(_LIVE, options.history))
        self._lock = threading.Lock()
        self._alive: dict[str, bool] = dict.fromkeys(devices, False)
        self._worker: Worker | None = None
        self._give_up = float("inf")
        # From here on: the worker's own.
        self._node = Node(options.group, options.node, devices)
        self._dialler: Dialler[PahoLink] | None = None
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
        self._inbox.open()
        config = self._config

        def link(five: bool) -> PahoLink:
            speaks = five if config.version == "auto" else config.version == "5"
            if self._greeting is None or self._greeting.greeted:
                self._next_bd_seq()  # one more for each CONNECT, not for each try to get through
            death = self._node.death(self._bd_seq, _now_ms())
            will = Will(self._node.topic("NDEATH"), death, qos=1, retain=False)
            self._greeting = PahoLink(config, access, speaks, will)
            return self._greeting

        self._dialler = Dialler(
            f"{config.host}:{config.port}",
            link,
            self._crew,
            self._inbox.wake,
            falls_back=config.version == "auto",
        )
        self._worker = self._crew.start(f"outbox-{self.name}", self._run)

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
        worker, self._worker = self._worker, None
        if worker is None:
            return
        seconds = self._deadline.remaining(_CLOSE_SECONDS)
        self._give_up = time.monotonic() + max(0.0, seconds - _FAREWELL_SECONDS)
        worker.stop.set()
        self._inbox.wake()
        if not worker.join(seconds + 2 * _FAREWELL_SECONDS):
            log.error("Sparkplug: the worker is stuck in the network; leaving it")
        self._inbox.close()

    def _run(self, worker: Worker) -> None:
        dialler = self._dialler
        if dialler is None:
            raise SinkError("The Sparkplug sink is not started.")
        try:
            while True:
                worker.beat()
                now = time.monotonic()
                self._take()
                self._attend(dialler, now, worker.stop.is_set())
                link = dialler.link
                if link is not None and not link.lost:
                    self._speak(link, now)
                if worker.stop.is_set() and (now >= self._give_up or self._said(link)):
                    break
                self._rest(dialler, now)
            if dialler.link is not None and self._born:
                self._farewell(dialler.link)
            elif dialler.link is not None:
                dialler.link.end(politely=True)  # who was not born does not die
        finally:
            dialler.put_down()

    def _take(self) -> None:
        """What came; while nobody listens it becomes history, of which the newest is kept."""
        for part in self._inbox.take():
            self._inbox.release(1)
            self._waiting.append((part, not self._born))
        while len(self._waiting) > max(self._options.history, _LIVE if self._born else 0):
            self._waiting.popleft()
            self._observer.sink_dropped(self.name, "history")

    def _attend(self, dialler: Dialler[PahoLink], now: float, stopping: bool) -> None:
        change = dialler.attend(now, stopping)
        if change is None:
            return
        connected, words = change
        self._born.clear()
        self._host = None
        self._wanted = True
        self._waiting = deque((part, True) for part, _ in self._waiting)
        if connected and dialler.link is not None:
            dialler.link.subscribe({self._node.topic("NCMD"): 1})
            if self._options.primary_host is not None:
                dialler.link.subscribe({self._state_topic: 1}, retained=True)
        self._observer.sink_state(self.name, connected, words)

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

    def _said(self, link: PahoLink | None) -> bool:
        return link is None or not self._waiting or not self._born

    def _rest(self, dialler: Dialler[PahoLink], now: float) -> None:
        until = min(now + 1.0, dialler.due)
        if self._wanted and self._heeded and dialler.link is not None:
            until = min(until, self._birth_at)
        until = max(until, now + _TICK_SECONDS)
        asleep = self._inbox.rest()
        dialler.wait(until - time.monotonic() if asleep else 0.0, self._inbox.fileno)
        if asleep:
            self._inbox.rise()
        link = dialler.link
        if link is not None:
            link.answers.clear()  # with QoS 0 they say no more than that it was written
            arrived, link.arrived = link.arrived, []
            for arrival in arrived:
                self._arrived(link, arrival)

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
            self._farewell(link)
            link.lost = f"the primary host {self._options.primary_host} is offline"

    def _farewell(self, link: PahoLink) -> None:
        """Say NDEATH, wait a moment until the broker has it, part politely."""
        until = time.monotonic() + _FAREWELL_SECONDS
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
