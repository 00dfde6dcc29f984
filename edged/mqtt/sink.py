"""Results by MQTT.

    <prefix>/<station>/...   see topics.py
    <prefix>/state           retained: {"v":1,"st":"ready","hb":n}, n rising every 5 s; last will

Everything but `accept` happens on the one worker of its connection (connection.py). It must not
block the inspecting threads or take the broker's word for the PLC's: an acknowledgement says that
the broker has the record, no more. The outbox is the only memory there is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edged.config import MqttConfig, StationConfig
from edged.core.errors import SinkError
from edged.core.observer import Observer
from edged.core.protocols import Stations
from edged.core.stations import StationState
from edged.core.types import Inspection, Reason
from edged.mqtt.connection import FAREWELL_SECONDS, BrokerWorker, PahoLink, Will
from edged.mqtt.credentials import read
from edged.mqtt.outgoing import OFFLINE, Message, Outgoing, State
from edged.mqtt.topics import Incoming, StationTopics, station_topics
from edged.outbox.bounds import DAY, Bounds
from edged.outbox.send_order import SendOrder
from edged.outbox.store import Outbox
from edged.outbox.writer import Inbox, Writer
from edged.runtime.workers import Crew, Deadline

log = logging.getLogger(__name__)

_ACCEPT_SECONDS = 1.0
_CLOSE_SECONDS = 10.0
_UNDERWAY_SECONDS = 0.5


class MqttSink:
    """The Sink that publishes by MQTT. See the module for topics, `start` for errors.

    `accept` and `set_state` may be called on any thread, `start` and `close` on main.
    """

    def __init__(
        self,
        config: MqttConfig,
        outbox_path: Path,
        crew: Crew,
        observer: Observer,
        deadline: Deadline,
        name: str = "mqtt",
    ) -> None:
        self._config = config
        self._observer = observer
        self._name = name
        self._inbox: Inbox[Message] = Inbox()
        self._outbox = Outbox(outbox_path, _bounds(config))
        self._send_order = SendOrder(
            self._outbox, config.replay_rate, seconds=config.confirm_seconds
        )
        self._writer = Writer(self._inbox, self._send_order, observer, name)
        self._outgoing = Outgoing(config.prefix, self._send_order, observer, name)
        self._states: dict[str, dict[str, Any]] = {}
        self.set_state("offline")
        self._topics: dict[str, StationTopics] = {}
        self._incoming: Incoming | None = None
        self._broker = BrokerWorker(name, self, self._inbox, crew, deadline, _CLOSE_SECONDS)
        self._backlog = -1

    @property
    def name(self) -> str:
        """Labels metrics; the thread is `outbox-<name>`."""
        return self._name

    def start(self) -> None:
        """Open the outbox and begin to dial; a broker that is away is no error.

        Raises SinkError if the outbox, the password or a certificate cannot be used.
        """
        config, access = self._config, read(self._config)
        self._outbox.open()
        will = Will(f"{config.prefix}/state", OFFLINE)
        self._broker.start(config, lambda five: PahoLink(config, access, five, will))

    def accept(self, inspection: Inspection) -> None:
        """Take one record. Waits at most 1 s for a stalled disk, then raises SinkError.

        One that is refused is not published at all. The result of one taken leaves when its record
        is on disk; if the disk does not take it, what leaves says so and is no OK.
        """
        if refusal := self._writer.refusal:
            self._observer.sink_dropped(self._name, "refused")
            raise SinkError(refusal)
        message = self._topics_of(inspection.frame.station).message(inspection)
        try:
            self._inbox.put(message, _ACCEPT_SECONDS)
        except SinkError:
            self._observer.sink_dropped(self._name, "queue_full")
            raise

    def serve(self, configs: Sequence[StationConfig], stations: Stations) -> None:
        """Take triggers and commands for these stations; before `start`."""
        self._topics = {config.name: station_topics(self._config, config) for config in configs}
        # A name alone is nothing that a broker could check.
        known = self._config.password_file is not None or self._config.cert_file is not None
        awaited = [self._topics[c.name].topic("full") for c in configs if c.confirm]
        self._send_order.await_confirmations(awaited)
        topics = list(self._topics.values())
        self._incoming = Incoming(topics, stations, self._observer, known, self._writer.confirm)

    def set_state(self, word: State) -> None:
        """What `<prefix>/state` says from now on; `offline` until the first call."""
        self._states[f"{self._config.prefix}/state"] = {"st": word}
        self._inbox.wake()

    def set_station(
        self, station: str, word: str, state: StationState, code: int, model: str = ""
    ) -> None:
        """What a station's `.../state` says from now on; see core/stations.py."""
        fields = {"st": word, "op": state.value, "code": code, "model": model}
        self._states[self._topics_of(station).topic("state")] = fields
        self._inbox.wake()

    def trouble(self) -> str:
        """Why records cannot be kept now; empty if they can. Any thread."""
        return self._writer.fails or self._writer.refusal

    def close(self) -> None:
        """Put everything accepted on disk, deliver what can be within the deadline, end."""
        if self._broker.close():
            self._writer.write_the_rest()
            self._inbox.close()
            self._outbox.close()

    def turned(self, link: PahoLink | None, words: str) -> None:
        """See Conversation."""
        if link is None:
            self._outgoing.disconnected()
        else:
            self._outgoing.connected(time.monotonic())
            if self._incoming is not None:
                link.subscribe(self._incoming.topics)
        self._observer.sink_state(self._name, link is not None, words)

    def work(self, link: PahoLink | None, now: float) -> float:
        """See Conversation: what came in is written, then its results leave, then records."""
        if link is not None and not link.lost and self._outgoing.stuck(now):
            link.lost = "the broker answers, but acknowledges nothing"
        self._take(link, now)
        if link is not None:
            self._send(link, now)
        self._report()
        return self._writer.due if link is None else min(self._writer.due, self._outgoing.due)

    def heard(self, link: PahoLink) -> None:
        """See Conversation: triggers first, for somebody waits for them."""
        now = time.monotonic()
        if link.arrived and self._incoming is not None:
            arrived, link.arrived = link.arrived, []
            said = [answer for arrival in arrived for answer in self._incoming.handle(arrival)]
            self._outgoing.results(said, link, now)
        answers, link.answers = link.answers, []
        for mid, code, words in answers:
            self._outgoing.answered(mid, code, words, now)

    def finished(self, link: PahoLink | None, stopped: float) -> bool:
        """See Conversation."""
        if self._writer.waiting:
            return False
        if link is not None:
            return self._outgoing.idle
        soon = self._broker.under_way and self._send_order.backlog > 0
        return not soon or stopped >= _UNDERWAY_SECONDS

    def farewell(self, link: PahoLink) -> None:
        """See Conversation: say `offline`, wait a moment until the broker has it, part politely."""
        now = time.monotonic()
        until = now + FAREWELL_SECONDS
        self._outgoing.goodbye(link, now)
        while not self._outgoing.said and not link.lost and now < until:
            link.wait(until - now)
            self.heard(link)
            now = time.monotonic()
        link.end(politely=True)

    def _take(self, link: PahoLink | None, now: float) -> None:
        """One transaction for all records that came meanwhile; then their results leave.

        So a PLC never acts on an OK of which there is no record.
        """
        messages = [self._in_time(message) for message in self._inbox.take()]
        safe = self._writer.write(messages, now)
        self._outgoing.results(messages, link, now, safe)

    def _in_time(self, message: Message) -> Message:
        """An OK whose deadline has come is none, in its record either."""
        if not 0 < message.deadline_ns <= time.monotonic_ns():
            return message
        kept = message.without_ok(Reason.TIMEOUT)
        if kept is not message:
            self._observer.deadline_missed(message.station)
        return kept

    def _send(self, link: PahoLink, now: float) -> None:
        self._outgoing.states(dict(self._states), link, now)
        if now >= self._writer.retry_at:
            try:
                self._outgoing.records(link, now)
            except SinkError as trouble:
                self._writer.trouble(trouble, now)

    def _report(self) -> None:
        backlog = self._send_order.backlog + self._writer.waiting
        if backlog != self._backlog:
            self._backlog = backlog
            self._observer.sink_backlog(self._name, backlog)

    def _topics_of(self, station: str) -> StationTopics:
        found = self._topics.get(station)
        if found is None:
            config = self._config
            found = self._topics[station] = StationTopics(
                station, f"{config.prefix}/{station}", config.qos
            )
        return found


def _bounds(config: MqttConfig) -> Bounds:
    """What the configuration asks of the outbox."""
    return Bounds(
        config.max_rows,
        config.max_bytes,
        None if config.max_days is None else config.max_days * DAY,
        config.when_full == "refuse",
    )
