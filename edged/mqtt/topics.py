"""One station's topics: what comes in on them and is done, and the form of what goes out.

<base>/trigger     PLC -> us    see wire/plc.py; not retained
<base>/ack         us -> PLC    the trigger was taken, or missed and why
<base>/result      us -> PLC    the one answer, now or never
<base>/full        us -> MES    the record, from the outbox
<base>/state       us -> PLC    retained, with a heartbeat
<base>/delivered   PLC, MES -> us   how far they are
<base>/cmd, <base>/cmd/reply    start, stop, recipe; only with authentication

Runs on the sink's worker and must not wait. A message that is not understood is answered with a
sentence, counted, and costs nothing else; a retained one is never acted upon: its part has gone
long ago.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from edged.config import MqttConfig, StationConfig
from edged.core.errors import EdgedError, InvalidInput
from edged.core.names import ByteOrder
from edged.core.observer import Observer
from edged.core.protocols import Stations
from edged.core.types import Ack, Inspection, NoVerdict, TriggerRequest
from edged.mqtt.connection import Arrival
from edged.mqtt.outgoing import Message
from edged.wire import plc, results

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class StationTopics:
    """See the module. limit: results that may wait to leave; the oldest make room."""

    station: str
    base: str
    qos: int
    limit: int = 1024
    byte_order: ByteOrder | None = None
    """Of the struct; None = JSON."""
    triggered: bool = False
    """Somebody outside gives it triggers by MQTT."""

    def topic(self, word: str) -> str:
        """One of the topics."""
        return f"{self.base}/{word}"

    def message(self, inspection: Inspection) -> Message:
        """An inspection for both lanes; a verdict that came too late has a record only."""
        trigger = inspection.frame.trigger
        judged = not isinstance(inspection.outcome, NoVerdict)
        return Message(
            self.topic("result"),
            b"" if inspection.late_of else self._result(inspection),
            self.topic("full"),
            results.dumps(results.full(inspection)),
            inspection.frame.sequence,
            inspection.ok,
            trigger.deadline_ns if trigger is not None and judged else 0,
            self.qos,
            self.limit,
            self.station,
            self.byte_order,
        )

    def ack(self, request: TriggerRequest, answer: Ack) -> bytes:
        """The answer to a trigger."""
        return plc.ack(request, answer, self.byte_order)

    def _result(self, inspection: Inspection) -> bytes:
        if self.byte_order is not None:
            return results.packed(inspection, self.byte_order)
        return results.flat(inspection)


def station_topics(config: MqttConfig, station: StationConfig) -> StationTopics:
    """The topics of a configured station."""
    return StationTopics(
        station.name,
        station.topic or f"{config.prefix}/{station.name}",
        config.qos if station.qos is None else station.qos,
        station.results,
        station.byte_order if station.payload == "struct" else None,
        station.trigger == "mqtt",
    )


@dataclass(frozen=True, slots=True)
class _Route:
    topics: StationTopics
    handle: Callable[[StationTopics, Arrival], list[Message]]
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

    def handle(self, arrival: Arrival) -> list[Message]:
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

    def _trigger(self, topics: StationTopics, arrival: Arrival) -> list[Message]:
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
        return [Message.answer(topics.topic("ack"), topics.ack(request, answer), topics.qos)]

    def _refusal(self, topics: StationTopics, error: EdgedError) -> list[Message]:
        if topics.byte_order is not None:
            return []  # who reads structs cannot read a sentence
        return [Message.answer(topics.topic("ack"), plc.refusal(str(error)), topics.qos)]

    def _delivered(self, topics: StationTopics, arrival: Arrival) -> list[Message]:
        try:
            delivery = plc.delivery(arrival.payload)
            if delivery.seq is not None:
                self._stations.delivered(topics.station, delivery.seq)
            if delivery.rec is not None:
                self._confirm(topics.topic("full"), delivery.rec)
        except EdgedError as error:
            self._complain(arrival.topic, str(error))
        return []

    def _command(self, topics: StationTopics, arrival: Arrival) -> list[Message]:
        command = plc.Command("", "", "")
        try:
            command = plc.command(arrival.payload)
            text = self._stations.command(topics.station, command.word, command.model)
            reply = plc.reply(command, text, done=True)
        except EdgedError as error:
            self._complain(arrival.topic, str(error))
            reply = plc.reply(command, str(error), done=False)
        return [Message.answer(topics.topic("cmd/reply"), reply, 1)]

    def _complain(self, topic: str, words: str) -> None:
        """Say it once for each topic: a PLC that is wrong is wrong many times a second."""
        if topic not in self._complained:
            self._complained.add(topic)
            log.warning("a message on %s is not taken (said once): %s", topic, words)
