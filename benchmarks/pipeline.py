"""Frames per second from camera to MQTT arrival, over a bare script without edged in between.

The bare script reads the same files (bitmaps: next to nothing to decode), scales them, runs the
same engine with as many units and publishes a record of the same size with paho at QoS 1. Both run
in turn, several rounds, against one mosquitto; the median of the rounds' ratios is the figure. The
engine alone is beside.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.support.command import add_optional_model, question
from benchmarks.support.figures import show
from benchmarks.support.parts import bitmaps, train
from benchmarks.support.processes import edged_run
from edged.engines.choose import Engines
from edged.hosting.units import predict
from edged.wire import imaging
from edged.wire.spec import read_spec
from tests.support.broker import Mosquitto

FRAMES, ROUNDS = 1200, 3


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_optional_model(made)
    return made


def main() -> None:
    given = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = given.model or train(root)
        files = bitmaps(root / "line", FRAMES)
        with Mosquitto(["max_queued_messages 0"]) as broker:
            rounds = []
            for _ in range(ROUNDS):
                whole = daemon(root, model, broker.port)
                bare, alone = script(model, files, broker.port), engine(model)
                rounds.append((whole, bare, alone))
                print(f"edged {whole:.0f}/s, bare script {bare:.0f}/s, engine alone {alone:.0f}/s")
        ratio = statistics.median(w / b for w, b, _ in rounds)
        beside = statistics.median(w / a for w, _, a in rounds)
        show({"over_bare_script": ratio, "over_engine": beside})


class Arrivals:
    """Counts arrivals of one topic filter and when the first and the last came."""

    def __init__(self, port: int, topic: str) -> None:
        self.count, self.first, self.last = 0, 0.0, 0.0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._arrived
        self._client.connect("127.0.0.1", port)
        self._client.subscribe(topic, qos=1)
        self._client.loop_start()
        time.sleep(0.3)

    def _arrived(self, _client: Any, _data: Any, _message: Any) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.count += 1

    def rate(self, frames: int) -> float:
        """Frames per second once `frames` have arrived."""
        until = time.perf_counter() + 120
        while self.count < frames and time.perf_counter() < until:
            time.sleep(0.05)
        self._client.disconnect()
        self._client.loop_stop()
        return (self.count - 1) / (self.last - self.first)


def daemon(root: Path, model: Path, port: int) -> float:
    """Frames per second of the whole daemon, its camera read as fast as it is judged."""
    arrivals = Arrivals(port, "edged/cam/full")
    config = root / "edged.toml"
    config.write_text(
        f"""
state_dir = "state-{time.monotonic_ns()}"
[[models]]
name = "part"
path = "{model}"
engine = "onnxruntime"
[[cameras]]
name = "cam"
model = "part"
kind = "folder"
path = "line"
[mqtt]
port = {port}
[log]
level = "error"
""",
        encoding="utf-8",
    )
    with edged_run(config, "--until-cameras-end"):
        return arrivals.rate(FRAMES)


def script(model: Path, files: list[Path], port: int) -> float:
    """The same work with nothing in between: read, scale, infer, publish."""
    arrivals = Arrivals(port, "bare/full")
    spec = read_spec(model)
    loader = Engines().candidates(model, spec, "onnxruntime")[0]()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    record = b"x" * 600

    def work(unit: int) -> None:
        opened = loader.open()
        for file in files[unit::2]:
            predict(opened, [imaging.read(file)])
            client.publish("bare/full", record, qos=1)
        opened.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
        rate = arrivals.rate(FRAMES)
    client.disconnect()
    client.loop_stop()
    return rate


def engine(model: Path) -> float:
    """Two units of the engine on rows that are already there."""
    loader = Engines().candidates(model, read_spec(model), "onnxruntime")[0]()

    def work(_unit: int) -> None:
        opened = loader.open()
        np.copyto(opened.input[0], 127)
        for _ in range(FRAMES // 2):
            opened.infer(1)
        opened.close()

    start = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))
    return FRAMES / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
