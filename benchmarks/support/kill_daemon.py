"""The daemon of kill_table.py: makes inspections through the real sink until it is killed.

Its arguments: HOST PORT OUTBOX FIRST LAST.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from benchmarks.support.processes import ROOT
from edged.config import MqttConfig
from edged.core.observer import Observer
from edged.core.types import Frame, Inspection, Timing, Verdict
from edged.mqtt.sink import MqttSink
from edged.outbox.store import Outbox
from edged.runtime.workers import Crew, Deadline

RATE = 200.0
"""Inspections a second."""
CAMERAS = ("cam1", "cam2")
_PAUSE = threading.Event()


class Safe(Observer):
    """Tells on standard output how many records are on disk or with the broker."""

    def __init__(self, before: int) -> None:
        self.taken = 0
        self._before = before

    def sink_delivered(self, sink: str, reason: str) -> None:
        """Count what the broker has."""
        self.taken += reason == "success"

    def sink_backlog(self, sink: str, rows: int) -> None:
        """Tell. In-memory ones are only in it while the disk refuses, and the pump waits then."""
        print(rows + self.taken - self._before, flush=True)


def publish(host: str, port: int, outbox: str, first: int, last: int) -> None:
    """The daemon's part: inspections `first` to `last`, then life until it is killed."""
    os.environ.pop("LD_PRELOAD", None)
    config = MqttConfig(
        host=host, port=port, plaintext=True, keepalive=2, replay_rate=500, max_days=1
    )
    left = Outbox(Path(outbox))
    left.open()
    safe = Safe(left.count)
    left.close()
    sink = MqttSink(config, Path(outbox), Crew(), safe, Deadline())
    sink.start()
    picture = np.zeros((1, 1, 3), np.uint8)
    begun = time.monotonic()
    for number in range(first, last + 1):
        _PAUSE.wait(max(0.0, begun + (number - first) / RATE - time.monotonic()))
        source = CAMERAS[number % 2]
        now = datetime.now(timezone.utc)
        frame = Frame(source, number, time.monotonic_ns(), now, picture, simulated=True)
        part = Inspection(frame, None, Verdict(False, 0.9, 0.1, 0.5), Timing(time.monotonic_ns()))
        while True:
            try:
                sink.accept(part)
                break
            except Exception as error:
                print(error, file=sys.stderr, flush=True)
    sys.stdin.read()


class Daemon:
    """That process, and what it told last."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.told = 0
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def kill(self) -> None:
        """SIGKILL; `told` is its last word then."""
        self._process.kill()
        self._process.wait(10)
        self._reader.join(5)

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in self._process.stdout:
            self.told = max(self.told, int(line))


if __name__ == "__main__":
    publish(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
