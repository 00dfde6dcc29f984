"""Sparkplug B 3.0, the edge node's side: births, data, deaths and their numbers. Pure.

One node, one device for each station. What the specification asks of the payloads is kept here:
`seq` counts all messages of the node from its birth on, modulo 256; each metric has its name and
alias in the births and the alias alone in data; all values of one part travel in one message, so
that a host never mixes two parts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from edged import __version__
from edged.core.errors import InvalidInput, MissingDependency
from edged.core.types import Inspection, Verdict
from edged.wire.results import evaluation, result_number, result_state

try:
    from google.protobuf.message import DecodeError

    from edged.wire.pb import sparkplug_b_pb2 as pb
except ImportError as error:
    raise MissingDependency("protobuf", "sparkplug", "Sparkplug B") from error

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
INT32, INT64, UINT64, FLOAT, BOOLEAN, STRING = 3, 4, 8, 9, 11, 12
DEVICE_METRICS: tuple[tuple[str, int], ...] = (
    ("Inspection/Id", STRING),
    ("Inspection/Sequence", UINT64),
    ("Inspection/Number", UINT64),
    ("Inspection/Part", STRING),
    ("Inspection/Ok", BOOLEAN),
    ("Inspection/State", INT32),
    ("Inspection/Evaluation", INT32),
    ("Inspection/Code", INT32),
    ("Inspection/Score", FLOAT),
    ("Inspection/Threshold", FLOAT),
    ("Inspection/Simulated", BOOLEAN),
)
"""Number is what a PLC knows the part by, Sequence the record's; the others as in `.../result`."""
_VERSION = "Properties/edged Version"
_NODE_ALIAS = 1

Value: TypeAlias = "str | int | float | bool"
Values: TypeAlias = Mapping[str, Value]


class SparkplugMessage(NamedTuple):
    """One message to publish with QoS 0, not retained."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class HostState:
    """What a primary host says of itself; timestamp: milliseconds since 1970."""

    online: bool
    timestamp: int


class Node:
    """The messages of one edge node, numbered. One thread."""

    def __init__(self, group: str, node: str, devices: Iterable[str]) -> None:
        self._group, self._node = group, node
        self._seq = 0
        self._aliases = {
            (device, name): _NODE_ALIAS + 1 + index * len(DEVICE_METRICS) + place
            for index, device in enumerate(devices)
            for place, (name, _) in enumerate(DEVICE_METRICS)
        }
        self._last: dict[str, tuple[Values, int]] = {}

    def topic(self, kind: str, device: str = "") -> str:
        """Of a message of the node, or of one of its devices."""
        base = f"{NAMESPACE}/{self._group}/{kind}/{self._node}"
        return f"{base}/{device}" if device else base

    def death(self, bd_seq: int, now_ms: int) -> bytes:
        """NDEATH: the will, and what a clean end says."""
        payload = pb.Payload(timestamp=now_ms)
        payload.metrics.append(_bd_seq(bd_seq, now_ms))
        return bytes(payload.SerializeToString())

    def birth(self, bd_seq: int, now_ms: int) -> SparkplugMessage:
        """NBIRTH: everything that the node itself will ever report; numbers begin again."""
        self._seq = 255  # so that the birth has 0
        rebirth = pb.Metric(name=REBIRTH, timestamp=now_ms, datatype=BOOLEAN, boolean_value=False)
        version = pb.Metric(name=_VERSION, alias=_NODE_ALIAS, timestamp=now_ms, datatype=STRING)
        version.string_value = __version__
        metrics = [_bd_seq(bd_seq, now_ms), rebirth, version]
        return self._outgoing("NBIRTH", "", metrics, now_ms)

    def device_birth(self, device: str, now_ms: int) -> SparkplugMessage:
        """DBIRTH: every metric of the device, with what was reported last, or null."""
        values, at_ms = self._last.get(device, ({}, now_ms))
        metrics = []
        for name, datatype in DEVICE_METRICS:
            metric = pb.Metric(
                name=name, alias=self._aliases[device, name], timestamp=at_ms, datatype=datatype
            )
            if name in values:
                _set(metric, datatype, values[name])
            else:
                metric.is_null = True
            metrics.append(metric)
        return self._outgoing("DBIRTH", device, metrics, now_ms)

    def device_death(self, device: str, now_ms: int) -> SparkplugMessage:
        """DDEATH: nothing will come from the device until its next birth."""
        return self._outgoing("DDEATH", device, [], now_ms)

    def data(
        self, device: str, values: Values, at_ms: int, now_ms: int, historical: bool
    ) -> SparkplugMessage:
        """DDATA: one part. historical: it was inspected while the host was not listening."""
        metrics = []
        for name, datatype in DEVICE_METRICS:
            metric = pb.Metric(alias=self._aliases[device, name], timestamp=at_ms)
            _set(metric, datatype, values[name])
            if historical:
                metric.is_historical = True
            metrics.append(metric)
        if not historical:
            self._last[device] = values, at_ms
        return self._outgoing("DDATA", device, metrics, now_ms)

    def _outgoing(
        self, kind: str, device: str, metrics: list[pb.Metric], now_ms: int
    ) -> SparkplugMessage:
        self._seq = (self._seq + 1) % 256
        payload = pb.Payload(timestamp=now_ms, seq=self._seq)
        payload.metrics.extend(metrics)
        return SparkplugMessage(self.topic(kind, device), bytes(payload.SerializeToString()))


def values(inspection: Inspection) -> Values:
    """One part as metrics."""
    frame, outcome = inspection.frame, inspection.outcome
    judged = outcome if isinstance(outcome, Verdict) else None
    return {
        "Inspection/Id": inspection.id,
        "Inspection/Sequence": frame.sequence,
        "Inspection/Number": result_number(inspection),
        "Inspection/Part": frame.trigger.part if frame.trigger is not None else "",
        "Inspection/Ok": inspection.ok,
        "Inspection/State": result_state(inspection),
        "Inspection/Evaluation": evaluation(inspection),
        "Inspection/Code": inspection.code,
        "Inspection/Score": judged.score if judged is not None else 0.0,
        "Inspection/Threshold": judged.threshold if judged is not None else 0.0,
        "Inspection/Simulated": frame.simulated,
    }


def asks_for_rebirth(payload: bytes) -> bool:
    """Whether an NCMD asks for the births again. Raises InvalidInput for what is no payload."""
    try:
        command = pb.Payload.FromString(payload)
    except DecodeError:
        raise InvalidInput("the message is no Sparkplug B payload.") from None
    return any(m.name == REBIRTH and m.boolean_value for m in command.metrics)


def host_state(payload: bytes) -> HostState:
    """A primary host's STATE. Raises InvalidInput."""
    try:
        value = json.loads(payload.decode("utf-8"))
    except (ValueError, RecursionError):
        raise InvalidInput("the STATE is not JSON.") from None
    online = value.get("online") if isinstance(value, dict) else None
    timestamp = value.get("timestamp") if isinstance(value, dict) else None
    if (
        not isinstance(online, bool)
        or not isinstance(timestamp, int)
        or isinstance(timestamp, bool)
    ):
        raise InvalidInput('the STATE is not {"online":true,"timestamp":...}.')
    return HostState(online, timestamp)


def _bd_seq(number: int, now_ms: int) -> pb.Metric:
    return pb.Metric(name="bdSeq", timestamp=now_ms, datatype=INT64, long_value=number)


def _set(metric: pb.Metric, datatype: int, value: Value) -> None:
    if datatype == STRING:
        metric.string_value = str(value)
    elif datatype == BOOLEAN:
        metric.boolean_value = bool(value)
    elif datatype == FLOAT:
        metric.float_value = float(value)
    elif datatype == INT32:
        metric.int_value = int(value) % 2**32
    else:
        metric.long_value = int(value) % 2**64
