"""Frames per second from camera to MQTT arrival, over a bare script without edged in between.

The bare script reads the same files (bitmaps: next to nothing to decode), scales them, runs the
same engine with as many units and publishes a record of the same size with paho at QoS 1. Both run
in turn, several rounds, against one mosquitto; the median of the rounds' ratios is the figure. The
engine alone is beside.

    python benchmarks/pipeline.py [MODEL]       a model folder; default: one trained here
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edged.cameras.simulation.parts import render
from edged.engines.choose import Engines
from edged.hosting.units import predict
from edged.tools import judge
from edged.wire import imaging
from edged.wire.spec import read_spec

FRAMES, DISTINCT, ROUNDS = 1200, 20, 3
WIDTH, HEIGHT = 640, 480


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else train(root)
        files = pictures(root / "line")
        with broker(root) as port:
            rounds = []
            for _ in range(ROUNDS):
                whole = daemon(root, model, port)
                bare, alone = script(model, files, port), engine(model)
                rounds.append((whole, bare, alone))
                print(f"edged {whole:.0f}/s, bare script {bare:.0f}/s, engine alone {alone:.0f}/s")
        ratio = statistics.median(w / b for w, b, _ in rounds)
        beside = statistics.median(w / a for w, _, a in rounds)
        print(json.dumps({"over_bare_script": round(ratio, 3), "over_engine": round(beside, 3)}))


def train(root: Path) -> Path:
    for index in range(30):
        image, _ = render("machined", 1, index, WIDTH, HEIGHT, 0.0)
        (root / "parts" / "normal").mkdir(parents=True, exist_ok=True)
        imaging.write_png(root / "parts" / "normal" / f"{index}.png", image)
    judge.train(root / "parts", root / "model", "part", 0, lambda *_a, **_f: None)
    return root / "model"


def pictures(folder: Path) -> list[Path]:
    """FRAMES names of a few bitmaps."""
    folder.mkdir()
    files = [folder / f"{index:05}.bmp" for index in range(FRAMES)]
    for index, file in enumerate(files):
        if index < DISTINCT:
            image, _ = render("machined", 5, index, WIDTH, HEIGHT, 0.0)
            cv2.imwrite(str(file), image)
        else:
            file.hardlink_to(files[index % DISTINCT])
    return files


class broker:  # noqa: N801 - used as a function
    """A mosquitto for the benchmark."""

    def __init__(self, root: Path) -> None:
        self._conf = root / "mosquitto.conf"

    def __enter__(self) -> int:
        port = 18931
        lines = f"listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\n"
        self._conf.write_text(lines + "max_queued_messages 0\n", encoding="utf-8")
        self._process = subprocess.Popen(["mosquitto", "-c", str(self._conf)])
        time.sleep(1.0)
        return port

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()


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
    command = [sys.executable, "-m", "edged.cli.main", "run", "--until-cameras-end", "--config"]
    with subprocess.Popen([*command, str(config)]):
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
