"""A Sparkplug host, and the sink of a box `box7` for it to hear. For tests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edged.config import MqttConfig, SparkplugConfig
from edged.core.types import Frame, Inspection, Timing, Trigger, Verdict
from edged.mqtt.sparkplug import SparkplugSink
from edged.runtime.state import StateFolder
from edged.runtime.workers import Crew, Deadline
from edged.wire.pb import sparkplug_b_pb2 as pb
from tests.support.broker import Subscriber, wait_until
from tests.support.fakes import Ears

TOPICS = "spBv1.0/#"
WISH = pb.Payload(
    metrics=[pb.Metric(name="Node Control/Rebirth", boolean_value=True)]
).SerializeToString()


class Message(NamedTuple):
    """One Sparkplug message as a host sees it."""

    kind: str
    device: str
    payload: Any
    qos: int
    retained: bool

    def metric(self, name: str) -> Any:
        return next(m for m in self.payload.metrics if m.name == name)


def heard(host: Subscriber) -> list[Message]:
    found = []
    for message in list(host.messages):
        parts = message.topic.split("/")
        if parts[1] == "STATE" or parts[2] == "NCMD":
            continue
        assert parts[1] == "plant1", "tck-id-topic-structure-namespace-valid-group-id"
        payload = pb.Payload.FromString(message.payload)
        device = parts[4] if len(parts) > 4 else ""
        found.append(Message(parts[2], device, payload, message.qos, message.retained))
    return found


def wait(host: Subscriber, kind: str, count: int = 1, seconds: float = 15.0) -> list[Message]:
    """The messages of a kind, once there are so many."""
    of = lambda: [m for m in heard(host) if m.kind == kind]  # noqa: E731
    if not wait_until(lambda: len(of()) >= count, seconds):
        pytest.fail(f"{len(of())} of {count} {kind}; heard {[m.kind for m in heard(host)]}")
    return of()


def part(number: int, device: str = "s1", good: bool = True) -> Inspection:
    now = datetime.now(timezone.utc)
    trigger = Trigger(f"P-{number}", number, 1, kind="mqtt")
    image = np.zeros((2, 2, 3), np.uint8)
    frame = Frame(device, number, 1, now, image, trigger)
    outcome = Verdict(not good, 0.9, 0.1 if good else 0.9, 0.5)
    return Inspection(frame, None, outcome, Timing(1))


@contextmanager
def node(folder: Path, port: int, **options: Any) -> Iterator[SparkplugSink]:
    """The sink with stations s1 and s2, of which s1 is alive."""
    folder.mkdir(exist_ok=True)
    ears = Ears()
    crew = Crew(ears.worker_crashed)
    chosen = SparkplugConfig(group="plant1", node="box7", **options)
    config = MqttConfig(port=port, keepalive=2)
    sink = SparkplugSink(
        config, chosen, ["s1", "s2"], StateFolder(folder).bd_seq, crew, ears, Deadline()
    )
    sink.start()
    sink.set_alive("s1", True)
    try:
        yield sink
    finally:
        sink.close()
    assert ears.crashed == []


def command(port: int, topic: str, payload: bytes, retain: bool = False) -> None:
    """A host publishes."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(topic, payload, 1, retain).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


if __name__ == "__main__":
    with node(Path(sys.argv[1]), int(sys.argv[2])):
        threading.Event().wait()
