"""What comes in by MQTT: triggers, deliveries, commands; and what is answered to each.

Owns which topics are subscribed and how a message becomes a call. It runs on the sink's worker and
must not wait. A message that is not understood is answered with a sentence, counted, and costs
nothing else; a retained one is never acted upon: its part has gone long ago.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edged.core.errors import EdgedError, InvalidInput
from edged.core.observer import Observer
from edged.core.protocols import Stations
from edged.mqtt.connection import Arrival
from edged.mqtt.topics import StationTopics
from edged.wire import plc

log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """Something to publish at once, not retained."""

    topic: str
    payload: bytes
    qos: int


@dataclass(frozen=True, slots=True)
class _Route:
    topics: StationTopics
    handle: Callable[[StationTopics, Arrival], list[Answer]]
    qos: int


class Incoming:
    """The subscriptions of all stations. Worker thread.

    commands: take `.../cmd`; only when the broker knows who sends. confirm: what hears of records
    that their receiver has processed, (topic of the records, number).
    """

    def __init__(
        self,
        topics: Sequence[StationTopics],
        stations: Stations,
        observer: Observer,
        commands: bool,
        confirm: Callable[[str, int], None] = lambda *_: None,
    ) -> None:
        self._stations = stations
        self._observer = observer
        self._confirm = confirm
        self._complained: set[str] = set()
        self._routes: dict[str, _Route] = {}
        for each in topics:
            if each.triggered:
                self._routes[each.topic("trigger")] = _Route(each, self._trigger, each.qos)
            self._routes[each.topic("delivered")] = _Route(each, self._delivered, 1)
            if commands:
                self._routes[each.topic("cmd")] = _Route(each, self._command, 1)

    @property
    def topics(self) -> Mapping[str, int]:
        """What to subscribe to, and at which QoS."""
        return {topic: route.qos for topic, route in self._routes.items()}

    def handle(self, arrival: Arrival) -> list[Answer]:
        """Act on one message; what to answer. Raises nothing."""
        route = self._routes.get(arrival.topic)
        if route is None:
            return []
        if arrival.retained:
            self._complain(arrival.topic, "it is retained: publish it without")
            return []
        try:
            return route.handle(route.topics, arrival)
        except Exception:  # a stranger's message must not end the lane of the others
            log.exception("a message on %s could not be handled", arrival.topic)
            return []

    def _trigger(self, topics: StationTopics, arrival: Arrival) -> list[Answer]:
        try:
            request = plc.trigger(arrival.payload, topics.byte_order)
        except InvalidInput as error:
            self._observer.triggered(topics.station, "bad_trigger")
            self._complain(arrival.topic, str(error))
            with contextlib.suppress(EdgedError):  # the station is not built yet
                self._stations.trigger(topics.station, None, arrival.at_ns)
            return self._refusal(topics, error)
        try:
            answer = self._stations.trigger(topics.station, request, arrival.at_ns)
        except EdgedError as error:  # the station is not built yet
            self._complain(arrival.topic, str(error))
            return self._refusal(topics, error)
        return [Answer(topics.topic("ack"), topics.ack(request, answer), topics.qos)]

    def _refusal(self, topics: StationTopics, error: EdgedError) -> list[Answer]:
        if topics.byte_order is not None:
            return []  # who reads structs cannot read a sentence
        return [Answer(topics.topic("ack"), plc.refusal(str(error)), topics.qos)]

    def _delivered(self, topics: StationTopics, arrival: Arrival) -> list[Answer]:
        try:
            delivery = plc.delivery(arrival.payload)
            if delivery.seq is not None:
                self._stations.delivered(topics.station, delivery.seq)
            if delivery.rec is not None:
                self._confirm(topics.topic("full"), delivery.rec)
        except EdgedError as error:
            self._complain(arrival.topic, str(error))
        return []

    def _command(self, topics: StationTopics, arrival: Arrival) -> list[Answer]:
        command = plc.Command("", "", "")
        try:
            command = plc.command(arrival.payload)
            text = self._stations.command(topics.station, command.word, command.model)
            reply = plc.reply(command, text, done=True)
        except EdgedError as error:
            self._complain(arrival.topic, str(error))
            reply = plc.reply(command, str(error), done=False)
        return [Answer(topics.topic("cmd/reply"), reply, 1)]

    def _complain(self, topic: str, words: str) -> None:
        """Say it once for each topic: a PLC that is wrong is wrong many times a second."""
        if topic not in self._complained:
            self._complained.add(topic)
            log.warning("a message on %s is not taken (said once): %s", topic, words)
