"""From trigger to result over mosquitto, as the PLC sees it, beyond camera and engine.

A daemon with one station (`trigger = "mqtt"`, QoS 1) whose camera reads a bitmap when it is asked;
mosquitto with configs/mosquitto.conf; a PLC with TCP_NODELAY that sends the next trigger when it
has the last result. Of each trigger: the whole time, the camera's share (trigger sent to picture
there), the engine's (`infer_seconds` of the record), and what is left: broker, twice, transaction,
queue, fsync of the record, publishing. Then a second run with a deadline in the middle of what
was measured: the parts that the PLC got no verdict of must be as many as the metric says.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.support.command import add_number, add_optional_model, question
from benchmarks.support.figures import quantile, show
from benchmarks.support.parts import bitmaps, train
from benchmarks.support.processes import edged_run, metrics
from tests.support.broker import Mosquitto, free_port, no_delay

FRAMES = 1200
CONFIG = """
state_dir = "state"
[[models]]
name = "m"
path = "{model}"
[[cameras]]
name = "cam"
kind = "folder"
path = "line"
loop = true
[[stations]]
name = "s1"
camera = "cam"
model = "m"
trigger = "mqtt"
deadline = {deadline}
[mqtt]
port = {port}
[metrics]
listen = "127.0.0.1:{metrics}"
"""


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_number(made, "triggers", 2000, "how many each of the two runs has")
    add_optional_model(made)
    return made


def main() -> None:
    given = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = given.model or train(root)
        bitmaps(root / "line", FRAMES)
        with Mosquitto(shipped=True) as broker:
            with daemon(root, model, broker.port, 10.0), Plc(broker.port) as plc:
                plc.run(50, 10.0)
                plc.clear()
                plc.run(given.triggers, 10.0)
                whole = report(plc)
            tight = whole["p50_ms"] * 1.02 / 1000
            with daemon(root, model, broker.port, tight) as page, Plc(broker.port) as plc:
                misses(plc, page, given.triggers)


def report(plc: Plc) -> dict[str, float]:
    """Print the shares in milliseconds."""
    whole, camera, engine, rest = [], [], [], []
    for number, (sent, sent_at, received) in sorted(plc.times.items()):
        record = plc.records[number]
        total = (received - sent) * 1000
        taken = datetime.fromisoformat(record["captured_at"]).timestamp() - sent_at
        infer = record["timing"]["infer_seconds"] * 1000
        whole.append(total)
        camera.append(taken * 1000)
        engine.append(infer)
        rest.append(total - taken * 1000 - infer)
    figures = {
        "triggers": len(whole),
        "p50_ms": statistics.median(whole),
        "p99.9_ms": quantile(whole, 0.999),
        "camera_p50_ms": statistics.median(camera),
        "engine_p50_ms": statistics.median(engine),
        "rest_p50_ms": statistics.median(rest),
        "rest_p99.9_ms": quantile(rest, 0.999),
    }
    show(figures)
    return figures


def misses(plc: Plc, page: int, count: int) -> None:
    """Print the PLC's count of parts without a verdict in time beside the metric's."""
    plc.run(count, 1.0)
    time.sleep(2.0)
    good = sum(1 for r in plc.results.values() if r["st"] == 1)
    found = re.search(r'edged_deadline_missed_total\{station="s1"\} ([0-9.e+]+)', metrics(page))
    metric = int(float(found[1])) if found else -1
    show({"triggers": count, "missed": count - good, "metric": metric})
    if metric != count - good:
        raise SystemExit("the metric does not agree with what the PLC got")


class Plc:
    """Triggers one part after the other and keeps what comes."""

    def __init__(self, port: int) -> None:
        self.times: dict[int, tuple[float, float, float]] = {}
        self.results: dict[int, dict[str, Any]] = {}
        self.records: dict[int, dict[str, Any]] = {}
        self._port, self._number = port, 0
        self._there = threading.Condition()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.on_socket_open = no_delay
        client.on_message = self._message

    def __enter__(self) -> Plc:
        self._client.connect("127.0.0.1", self._port)
        self._client.subscribe([("edged/s1/result", 1), ("edged/s1/full", 1), ("edged/state", 1)])
        self._client.loop_start()
        with self._there:
            if not self._there.wait_for(lambda: self._ready, 120):
                raise SystemExit("the daemon is not ready")
        return self

    _ready = False

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def clear(self) -> None:
        """Forget the warm-up."""
        self.times.clear()

    def run(self, count: int, patience: float) -> None:
        """So many triggers, each after the last one's result and record."""
        for _ in range(count):
            self._number += 1
            number = self._number
            sent_at, sent = time.time(), time.perf_counter()
            payload = json.dumps({"part": f"P-{number}", "seq": number})
            self._client.publish("edged/s1/trigger", payload, 1)
            with self._there:
                self._there.wait_for(lambda: number in self.records, patience)  # noqa: B023
                if number in self.results:
                    self.times[number] = (sent, sent_at, self.results[number]["at"])

    def _message(self, _client: Any, _data: Any, message: Any) -> None:
        now = time.perf_counter()
        value = json.loads(message.payload)
        with self._there:
            if message.topic.endswith("/result"):
                self.results[value["seq"]] = value | {"at": now}
            elif message.topic.endswith("/full"):
                if "late_of" not in value:
                    self.records[value["trigger"]["seq"]] = value
            else:
                self._ready = self._ready or value["st"] == "ready"
            self._there.notify_all()


@contextmanager
def daemon(root: Path, model: Path, port: int, deadline: float) -> Iterator[int]:
    """`edged run`, from its start to its clean end; the port of its metrics."""
    page, config = free_port(), root / "edged.toml"
    text = CONFIG.format(model=model, port=port, metrics=page, deadline=deadline)
    config.write_text(text, encoding="utf-8")
    with (root / "log").open("ab") as log, edged_run(config, stderr=log) as process:
        yield page
        process.terminate()


if __name__ == "__main__":
    main()
