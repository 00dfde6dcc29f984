"""What stands around the daemon in the demo: a PLC's view by MQTT, an MES's view by gRPC."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from edged.core.errors import MissingDependency
from edged.runtime.workers import Crew, Worker

try:
    import grpc
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
except ImportError as error:
    raise MissingDependency("paho-mqtt or grpcio", "demo", "The demo's subscribers") from error

from edged.wire.pb import results_pb2, results_pb2_grpc


@dataclass
class CameraTally:
    """What arrived of one camera."""

    received: int = 0
    judged: int = 0
    anomalous: int = 0
    right: int = 0
    first: float = 0.0
    last: float = 0.0
    last_anomaly: str = ""
    recent: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=6))


class MqttListener:
    """Counts `.../full` records, holds them against the truth, measures capture to arrival.

    confirming: stations whose records it says to have processed, as a historian must.
    """

    def __init__(self, port: int, confirming: Collection[str] = ()) -> None:
        self.lock = threading.Lock()
        self.cameras: dict[str, CameraTally] = {}
        self.latencies: list[float] = []
        self.keys: set[tuple[str, int]] = set()
        self._subscribed = threading.Event()
        self._port = port
        self._confirming = confirming
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="demo-plc", protocol=paho.MQTTv311
        )
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._message

    @property
    def received(self) -> int:
        """Different records received."""
        with self.lock:
            return len(self.keys)

    def start(self) -> bool:
        """Connect and subscribe; False if the broker did not answer within 10 s."""
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        return self._subscribed.wait(10.0)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: paho.Client, *_: Any) -> None:
        client.subscribe("edged/+/full", qos=1)

    def _message(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        now = time.time()
        record = json.loads(message.payload)
        if record["station"] in self._confirming:
            processed = json.dumps({"rec": record["seq"]})
            client.publish(f"edged/{record['station']}/delivered", processed, qos=1)
        if "late_of" in record:  # its part was counted with the timeout that it got
            return
        key = (record["camera"], record["seq"])
        captured = datetime.fromisoformat(record["captured_at"]).timestamp()
        with self.lock:
            if key in self.keys:
                return
            self.keys.add(key)
            self.latencies.append(now - captured)
            tally = self.cameras.setdefault(record["camera"], CameraTally(first=now))
            tally.received += 1
            tally.last = now
            tally.recent.append(record)
            result = record.get("DetectAnomalyResult")
            if result is not None:
                tally.judged += 1
                tally.anomalous += result["IsAnomalous"]
                tally.right += result["IsAnomalous"] == record["truth"]["anomalous"]
                if result["IsAnomalous"]:
                    tally.last_anomaly = record["name"]


class GrpcListener:
    """Counts the inspections of `edged.v1.Inspections.Watch`."""

    def __init__(self, socket: Path) -> None:
        self.received = 0
        self.ended = threading.Event()
        self._channel = grpc.insecure_channel(f"unix:{socket}")

    def start(self, crew: Crew) -> None:
        """Watch on a thread of its own until the daemon ends the stream."""
        crew.start("demo-mes", self._watch)

    def close(self) -> None:
        """End the channel."""
        self._channel.close()

    def _watch(self, worker: Worker) -> None:
        try:
            stub: Any = results_pb2_grpc.InspectionsStub(self._channel)  # type: ignore[no-untyped-call]
            request = results_pb2.WatchRequest(since=0)
            for inspection in stub.Watch(request, wait_for_ready=True):
                worker.beat()
                self.received += not inspection.late_of
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE):
                raise
        finally:
            self.ended.set()
