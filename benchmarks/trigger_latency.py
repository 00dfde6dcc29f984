"""From trigger to result over mosquitto, as the PLC sees it, beyond camera and engine.

A daemon with one station (`trigger = "mqtt"`, QoS 1) whose camera reads a bitmap when it is asked;
mosquitto with configs/mosquitto.conf; a PLC with TCP_NODELAY that sends the next trigger when it
has the last result. Of each trigger: the whole time, the camera's share (trigger sent to picture
there), the engine's (`infer_seconds` of the record), and what is left: broker, twice, transaction,
queue, fsync of the record, publishing. Then a second run with a deadline in the middle of what
was measured: the parts that the PLC got no verdict of must be as many as the metric says.

    python benchmarks/trigger_latency.py [TRIGGERS] [MODEL]      default: 2000, one trained here
"""

from __future__ import annotations

import json
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from pipeline import pictures, train

PORT, METRICS = 18941, 18942
CONF = Path(__file__).parents[1] / "configs" / "mosquitto.conf"
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


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = Path(sys.argv[2]).resolve() if len(sys.argv) > 2 else train(root)
        pictures(root / "line")
        with broker(root):
            with daemon(root, model, 10.0), Plc() as plc:
                plc.run(50, 10.0)
                plc.clear()
                plc.run(count, 10.0)
                whole = report(plc)
            tight = whole["p50_ms"] * 1.02 / 1000
            with daemon(root, model, tight), Plc() as plc:
                misses(plc, count)


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
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))
    return figures


def misses(plc: Plc, count: int) -> None:
    """Print the PLC's count of parts without a verdict in time beside the metric's."""
    plc.run(count, 1.0)
    time.sleep(2.0)
    good = sum(1 for r in plc.results.values() if r["st"] == 1)
    page = urllib.request.urlopen(f"http://127.0.0.1:{METRICS}/metrics").read().decode()
    found = re.search(r'edged_deadline_missed_total\{station="s1"\} ([0-9.e+]+)', page)
    metric = int(float(found[1])) if found else -1
    print(json.dumps({"triggers": count, "missed": count - good, "metric": metric}))
    if metric != count - good:
        raise SystemExit("the metric does not agree with what the PLC got")


def quantile(values: list[float], share: float) -> float:
    """The value below which that share lies."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Plc:
    """Triggers one part after the other and keeps what comes."""

    def __init__(self) -> None:
        self.times: dict[int, tuple[float, float, float]] = {}
        self.results: dict[int, dict[str, Any]] = {}
        self.records: dict[int, dict[str, Any]] = {}
        self._number = 0
        self._there = threading.Condition()
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        client.on_socket_open = _no_delay
        client.on_message = self._message

    def __enter__(self) -> Plc:
        self._client.connect("127.0.0.1", PORT)
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


def _no_delay(_client: Any, _data: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextmanager
def broker(root: Path) -> Iterator[None]:
    """Mosquitto with our settings, on another port and folder."""
    text = CONF.read_text(encoding="utf-8").replace("listener 1883", f"listener {PORT}")
    text = text.replace("/var/lib/mosquitto/", f"{root}/") + "user root\n"
    (root / "mosquitto.conf").write_text(text, encoding="utf-8")
    with subprocess.Popen(
        ["mosquitto", "-c", str(root / "mosquitto.conf")], stderr=subprocess.DEVNULL
    ) as process:
        time.sleep(1.0)
        yield
        process.terminate()


@contextmanager
def daemon(root: Path, model: Path, deadline: float) -> Iterator[None]:
    """`edged run`, from its start to its clean end."""
    text = CONFIG.format(model=model, port=PORT, metrics=METRICS, deadline=deadline)
    (root / "edged.toml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "edged.cli.main", "run", "--config", str(root / "edged.toml")]
    with (root / "log").open("ab") as log, subprocess.Popen(command, stderr=log) as process:
        yield
        process.terminate()


if __name__ == "__main__":
    main()
