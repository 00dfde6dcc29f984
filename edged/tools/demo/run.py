"""The demo from start to end: render, train, run, watch, report."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.live import Live
from rich.table import Table

from edged.cameras.simulation.parts import render
from edged.core.errors import EdgedError, SinkError
from edged.runtime.workers import Crew
from edged.tools import judge, training_job
from edged.tools.demo.configuration import (
    CAMERAS,
    DEFECT_RATE,
    HEIGHT,
    STATIONS,
    WIDTH,
    configure,
    free_ports,
)
from edged.tools.demo.listeners import CameraTally, GrpcListener, MqttListener
from edged.wire import imaging
from edged.wire.imaging import Decoded

NORMAL, ANOMALY = 80, 30
TRAIN_SEED = 1


def demo(seconds: float, output: Path) -> dict[str, Any]:
    """Run for `seconds`, or to the first Ctrl-C; the object that is the demo's last line.

    Raises an EdgedError.
    """
    console = Console(stderr=True)
    output.mkdir(parents=True, exist_ok=True)
    for stale in ("state", "images"):  # an outbox with an earlier demo's records would be replayed
        shutil.rmtree(output / stale, ignore_errors=True)
    for name, part in CAMERAS.items():
        console.print(
            f"{name}: rendering and training on {NORMAL} good, {ANOMALY} bad {part} parts"
        )
        report = _train(name, part, output)
        console.print(f"{name}: trained in {report['seconds']:.1f} s")
    (port,) = free_ports(1)
    config = configure(output, port)
    with ExitStack() as stack:
        _spawn(stack, ["-m", "edged.tools.demo.broker", str(port)], "ready")
        mqtt = MqttListener(port, {each.name for each in STATIONS if each.confirm})
        if not mqtt.start():
            raise SinkError("The demo's broker did not answer within 10 s.")
        stack.callback(mqtt.close)
        mes = GrpcListener(output / "edge.sock")
        stack.callback(mes.close)
        mes.start(Crew())
        command = ["-m", "edged.cli", "run", "--config", str(config), "--json"]
        daemon = _spawn(stack, command, None)
        _watch(console, daemon, mqtt, seconds)
        daemon.send_signal(signal.SIGTERM)
        said, _ = daemon.communicate(timeout=60)
        summary = json.loads(said.strip().splitlines()[-1])
        mes.ended.wait(10.0)
        until = time.monotonic() + 10.0
        while mqtt.received < summary["inspections"] and time.monotonic() < until:
            time.sleep(0.05)
    pictures = _heatmaps(mqtt, output)
    for name, path in pictures.items():
        console.print(f"{name}: heatmap of the last rejected part: {path}")
    return _report(summary, mqtt, mes, pictures)


def _train(name: str, part: str, output: Path) -> dict[str, Any]:
    images = output / "images" / name
    for index in range(NORMAL):
        image, _ = render(part, TRAIN_SEED, index * 11, WIDTH, HEIGHT, 0.0)
        _write(images / "normal" / f"{index:04}.png", image)
    for index in range(ANOMALY):
        image, truth = render(part, TRAIN_SEED, 5000 + index, WIDTH, HEIGHT, 1.0)
        _write(images / "anomaly" / str(truth.defect) / f"{index:04}.png", image)
    quiet = lambda *_args, **_facts: None  # noqa: E731 - one word of a protocol
    return training_job.train(images, output / "models" / name, name, TRAIN_SEED, quiet)


def _write(path: Path, image: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    imaging.write_png(path, image)


def _spawn(stack: ExitStack, arguments: list[str], wait_for: str | None) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, *arguments], stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )
    stack.callback(_end, process)
    if wait_for and process.stdout and process.stdout.readline().strip() != wait_for:
        raise EdgedError(f"{' '.join(arguments[:2])} did not start.")
    return process


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout:
        process.stdout.close()


def _watch(
    console: Console, daemon: subprocess.Popen[str], mqtt: MqttListener, seconds: float
) -> None:
    started = time.monotonic()
    until = started + 60.0
    running = False
    with Live(_table(mqtt), console=console, refresh_per_second=4, transient=False) as live:
        try:
            while time.monotonic() < until:
                if daemon.poll() is not None:
                    raise EdgedError(f"The daemon ended early with exit code {daemon.returncode}.")
                if not running and mqtt.received:
                    running, until = True, time.monotonic() + seconds
                live.update(_table(mqtt))
                time.sleep(0.2)
        except KeyboardInterrupt:  # enough seen; what was inspected is still reported
            if not running:
                raise
    if not console.is_terminal:
        console.print()  # Live leaves the last line open
    if not running:
        raise EdgedError("No inspection arrived within 60 s.")


def _table(mqtt: MqttListener) -> Table:
    table = Table("camera", "inspected", "not OK", "right", "latest verdicts", title="simulated")
    with mqtt.lock:
        for name, tally in sorted(mqtt.cameras.items()):
            words = " ".join(_word(record) for record in tally.recent)
            right = f"{tally.right / max(1, tally.judged):.1%}"
            table.add_row(name, str(tally.received), str(tally.anomalous), right, words)
    return table


def _word(record: dict[str, Any]) -> str:
    good = record["eval"] == "OK"
    return f"[{'green' if good else 'red'}]{record.get('score', 0.0):.2f}[/]"


def _free_running(mqtt: MqttListener) -> list[tuple[str, CameraTally]]:
    """Those that have a rate of their own; the others saw as many parts as were asked for."""
    return [(name, tally) for name, tally in sorted(mqtt.cameras.items()) if name in CAMERAS]


def _heatmaps(mqtt: MqttListener, output: Path) -> dict[str, str]:
    pictures = {}
    for name, tally in _free_running(mqtt):
        shown = tally.last_anomaly or (tally.recent[-1]["name"] if tally.recent else "")
        part, seed, index = shown.rsplit("-", 2)
        image, _ = render(part, int(seed), int(index), WIDTH, HEIGHT, DEFECT_RATE)
        with judge.Judge(output / "models" / name, "onnxruntime") as opened:
            verdict = opened(Decoded.whole(image))
        if verdict.heatmap is not None:
            path = output / f"{name}-heatmap.png"
            overlay = imaging.heatmap_overlay(image, verdict.heatmap)
            imaging.write_png(path, np.hstack([image, overlay]))
            pictures[name] = str(path)
    return pictures


def _report(
    summary: dict[str, Any], mqtt: MqttListener, mes: GrpcListener, pictures: dict[str, str]
) -> dict[str, Any]:
    cameras = mqtt.cameras
    judged = sum(t.judged for t in cameras.values())
    latencies = np.asarray(mqtt.latencies) * 1e3
    return {
        "simulated": True,
        "inspections": summary["inspections"],
        "inspections_per_second": {
            name: round((t.received - 1) / (t.last - t.first), 2) if t.last > t.first else 0.0
            for name, t in _free_running(mqtt)
        },
        "accuracy": round(sum(t.right for t in cameras.values()) / max(1, judged), 4),
        "mqtt_received": mqtt.received,
        "grpc_received": mes.received,
        "latency_p50_ms": round(float(np.percentile(latencies, 50)), 2),
        "latency_p99_ms": round(float(np.percentile(latencies, 99)), 2),
        "no_verdict": sum(c["no_verdict"] for c in summary["cameras"].values()),
        "heatmaps": pictures,
    }
