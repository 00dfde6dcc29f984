"""A PLC, as far as MQTT shows it: gives triggers, keeps acks and results. For tests."""

from __future__ import annotations

import json
import threading
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.broker import Received, Subscriber


class Plc:
    """Listens to one station's topics and triggers it; `with Plc(port, "edged/s1") as plc`."""

    def __init__(
        self,
        port: int,
        base: str,
        qos: int = 1,
        username: str | None = None,
        password: str | None = None,
    ) -> None:
        self._base = base
        self._qos = qos
        words = ("ack", "result", "full", "state", "cmd/reply")
        topics = [f"{base}/{word}" for word in words]
        self._ears = Subscriber(port, *topics, username=username, password=password)
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        if username is not None:
            self._client.username_pw_set(username, password)
        self._connected = threading.Event()
        self._client.on_connect = lambda *_: self._connected.set()
        self._client.connect_async("127.0.0.1", port, 10)

    def __enter__(self) -> Plc:
        self._ears.__enter__()
        self._client.loop_start()
        assert self._connected.wait(10)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._ears.__exit__(kind, error, trace)

    def send(self, word: str, payload: bytes | dict[str, Any], retain: bool = False) -> None:
        """Publish on one of the station's topics."""
        data = json.dumps(payload).encode() if isinstance(payload, dict) else payload
        self._client.publish(f"{self._base}/{word}", data, self._qos, retain)

    def trigger(self, number: int, part: str = "P", **more: Any) -> None:
        """Ask for one part."""
        self.send("trigger", {"part": part, "seq": number, **more})

    def wait(self, word: str, count: int, seconds: float = 10.0) -> list[Any]:
        """The messages of a topic, decoded, once there are so many; fails if too few come."""
        return [_decoded(m) for m in self._ears.wait_for(count, seconds, f"/{word}")]

    def got(self, word: str) -> list[Any]:
        """The messages of a topic so far, decoded."""
        return [_decoded(m) for m in self._ears.of(f"/{word}")]

    def raw(self, word: str) -> list[Received]:
        """The same as they came."""
        return self._ears.of(f"/{word}")

    def wait_state(self, word: str) -> Any:
        """Until `.../state` says so."""
        found = self._ears.wait_match(
            lambda m: m.topic.endswith("/state") and _decoded(m)["st"] == word, 20.0
        )
        assert found is not None, f"state is never {word}: {self.got('state')}"
        return _decoded(found)


def _decoded(message: Received) -> Any:
    return json.loads(message.payload) if message.payload[:1] == b"{" else message.payload
