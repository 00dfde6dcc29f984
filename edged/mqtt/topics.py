"""One station's topics, and the form in which its PLC gets results and acks.

<base>/trigger     PLC -> us    see wire/plc.py; not retained
<base>/ack         us -> PLC    the trigger was taken, or missed and why
<base>/result      us -> PLC    the one answer, now or never
<base>/full        us -> MES    the record, from the outbox
<base>/state       us -> PLC    retained, with a heartbeat
<base>/delivered   PLC, MES -> us   how far they are
<base>/cmd, <base>/cmd/reply    start, stop, recipe; only with authentication
"""

from __future__ import annotations

from dataclasses import dataclass

from edged.config import MqttConfig, StationConfig
from edged.core.names import ByteOrder
from edged.core.types import Ack, Inspection, NoVerdict, TriggerRequest
from edged.outbox.writer import Message
from edged.wire import plc, results


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
        if self.byte_order is not None:
            return results.packed_ack(request, answer, self.byte_order)
        return plc.ack(request, answer)

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
