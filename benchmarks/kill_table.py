"""Records lost when the broker, the daemon, the network, the disk or the clock fails.

Each row: a process of its own makes 2,000 inspections at 200 a second through the real sink, a
real mosquitto with configs/mosquitto.conf (its paths and port replaced) takes them, a subscriber
with a lasting session counts them. Failures come at fixed shares of the way. Accepted is what the
sink said is on disk or delivered; each life of the daemon has numbers of its own, as in one that
never uses a number again. Records that were on disk and not told of may come besides.
Exits 1 if a row loses one, or reorders one. Network, disk and clock need root, `ip`, `faketime`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from benchmarks.support.command import question
from benchmarks.support.kill_daemon import CAMERAS, Daemon
from benchmarks.support.processes import module
from edged.mqtt.outgoing import EXPIRY_SECONDS
from tests.support.broker import Mosquitto, wait_until

YEAR = 365 * 86_400
LIFE = 100_000
_PAUSE = threading.Event()


@dataclass
class Receiver:
    """The subscriber: a lasting session on the broker."""

    host: str
    port: int
    records: list[dict[str, Any]] = field(default_factory=list)
    results: int = 0
    late: int = 0

    def start(self) -> paho.Client:
        """Connect, and go on connecting."""
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id="mes", protocol=paho.MQTTv5, clean_session=None
        )
        client.reconnect_delay_set(1, 1)
        client.on_connect = lambda c, *_: c.subscribe([("edged/+/full", 1), ("edged/+/result", 1)])
        client.on_message = self._arrived
        session = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        session.SessionExpiryInterval = 3600
        client.connect_async(self.host, self.port, 5, clean_start=False, properties=session)
        client.loop_start()
        return client

    def _arrived(self, client: Any, userdata: Any, message: Any) -> None:
        value = json.loads(message.payload)
        if message.topic.endswith("/full"):
            self.records.append({**value, "at": time.monotonic()})
            return
        self.results += 1
        # `ts` is the daemon's wall clock: with a stepped one, years are taken off.
        age = (time.time() - value["ts"] / 1000 + YEAR / 2) % YEAR - YEAR / 2
        self.late += age > EXPIRY_SECONDS


class Line:
    """One row's broker, daemon and receiver, and what can be done to them."""

    def __init__(self, folder: Path, stack: ExitStack, network: bool = False) -> None:
        self.folder = folder
        self.prefix: list[str] = []
        self.env = dict(os.environ)
        self.outbox = folder / "outbox" / "outbox.sqlite"
        self.outbox.parent.mkdir()
        self.lives: list[range] = []
        """Accepted numbers of each life of the daemon."""
        self._first = 0
        self._daemon: Daemon | None = None
        if network:
            stack.enter_context(_namespace())
            self.prefix = ["ip", "netns", "exec", "edgedkill"]
        host = "10.213.7.1" if network else "127.0.0.1"
        self.broker = stack.enter_context(Mosquitto(shipped=True, host=host))
        stack.callback(self.kill_daemon)
        self.receiver = Receiver(host, self.broker.port)
        client = self.receiver.start()
        stack.callback(client.loop_stop)
        stack.callback(client.disconnect)
        if not wait_until(client.is_connected, 20):
            raise SystemExit("the subscriber cannot connect")
        _PAUSE.wait(0.5)

    def start_daemon(self, records: int) -> None:
        """A new life that makes so many inspections."""
        self._first = len(self.lives) * LIFE + 1
        where = [self.broker.host, self.broker.port, self.outbox]
        command = module("support.kill_daemon", *where, self._first, self._first + records - 1)
        self._daemon = Daemon([*self.prefix, *command], self.env)

    def kill_daemon(self) -> int:
        """How many records it had accepted."""
        daemon, self._daemon = self._daemon, None
        if daemon is None:
            return 0
        daemon.kill()
        self.lives.append(range(self._first, self._first + daemon.told))
        return daemon.told

    @property
    def told(self) -> int:
        """How many records this life has on disk or delivered."""
        return 0 if self._daemon is None else self._daemon.told

    def wait_told(self, records: float) -> None:
        """Return when so many are; after a minute in any case."""
        wait_until(lambda: self.told >= records, 60)

    @property
    def missing(self) -> set[int]:
        """Accepted numbers that have not arrived."""
        lives = [*self.lives, range(self._first, self._first + self.told)]
        return {n for life in lives for n in life} - {r["seq"] for r in self.receiver.records}


@contextmanager
def _namespace() -> Iterator[None]:
    """A network namespace `edgedkill` whose only way out is a cable to this side."""
    for command in (
        "ip netns add edgedkill",
        "ip link add edgedk0 type veth peer name edgedk1",
        "ip link set edgedk1 netns edgedkill",
        "ip addr add 10.213.7.1/24 dev edgedk0",
        "ip link set edgedk0 up",
        "ip -n edgedkill addr add 10.213.7.2/24 dev edgedk1",
        "ip -n edgedkill link set edgedk1 up",
        "ip -n edgedkill link set lo up",
    ):
        subprocess.run(command.split(), check=True)
    try:
        yield
    finally:
        subprocess.run(["ip", "netns", "del", "edgedkill"], check=False)
        subprocess.run(["ip", "link", "del", "edgedk0"], check=False, stderr=subprocess.DEVNULL)


def row_broker(line: Line, records: int) -> None:
    line.start_daemon(records)
    for share in (0.3, 0.6):
        line.wait_told(records * share)
        line.broker.kill()
        _PAUSE.wait(3)
        line.broker.start()


def row_daemon(line: Line, records: int, broker: bool = False) -> None:
    left = records
    for _ in range(2):
        line.start_daemon(left)
        line.wait_told(records * 0.3)
        if broker:
            line.broker.kill()
            _PAUSE.wait(0.3)
        left -= line.kill_daemon()
        if broker:
            _PAUSE.wait(2)
            line.broker.start()
    line.start_daemon(left)


def row_both(line: Line, records: int) -> None:
    row_daemon(line, records, broker=True)


def row_network(line: Line, records: int) -> None:
    line.start_daemon(records)
    for share in (0.3, 0.6):
        line.wait_told(records * share)
        subprocess.run(["ip", "link", "set", "edgedk0", "down"], check=True)
        _PAUSE.wait(3)
        subprocess.run(["ip", "link", "set", "edgedk0", "up"], check=True)


def row_disk(line: Line, records: int) -> None:
    filler = line.outbox.parent / "filler"
    line.start_daemon(records)
    for share in (0.3, 0.6):
        line.wait_told(records * share)
        line.broker.kill()  # so that rows must be written, and the space runs out
        with filler.open("wb", buffering=0) as full, suppress(OSError):
            while True:
                full.write(bytes(4096))
        _PAUSE.wait(2)
        line.broker.start()
        _PAUSE.wait(2)
        filler.unlink()


def row_clock(line: Line, records: int) -> None:
    stamp = line.folder / "stamp"
    stamp.write_text("+0", encoding="ascii")
    line.env |= {
        "FAKETIME_TIMESTAMP_FILE": str(stamp),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    line.env["LD_PRELOAD"] = str(library)
    line.start_daemon(records)
    for share, step in ((0.3, f"+{YEAR}"), (0.6, f"-{YEAR}")):
        line.wait_told(records * share)
        stamp.write_text(step, encoding="ascii")
        line.broker.kill()
        _PAUSE.wait(2)
        line.broker.start()


ROWS: dict[str, Callable[[Line, int], None]] = {
    "kill -9 broker": row_broker,
    "kill -9 daemon": row_daemon,
    "kill -9 both": row_both,
    "network cut": row_network,
    "disk full": row_disk,
    "clock step": row_clock,
}


def run(name: str, records: int) -> bool:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edged-kill-")))
        line = Line(folder, stack, name == "network cut")
        if name == "disk full":
            subprocess.run(
                ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(line.outbox.parent)],
                check=True,
            )
            stack.callback(subprocess.run, ["umount", "-l", str(line.outbox.parent)], check=False)
            stack.callback(line.kill_daemon)
        ROWS[name](line, records)
        earlier = sum(map(len, line.lives))
        line.wait_told(records - earlier)
        wait_until(lambda: not line.missing, 60)
        return report(name, line)


def report(name: str, line: Line) -> bool:
    found = line.receiver.records
    firsts: dict[str, dict[str, Any]] = {}
    for record in found:
        firsts.setdefault(record["id"], record)
    lost = len(line.missing)
    accepted = sum(map(len, line.lives)) + line.told
    inversions = 0
    for camera in CAMERAS:
        order = [r["seq"] for r in firsts.values() if r["camera"] == camera]
        inversions += sum(b < a for a, b in pairwise(order))
    years = ", ".join(sorted({r["captured_at"][:4] for r in firsts.values()}))
    print(
        f"{name:16}{accepted:9}{len(found):9}{lost:6}{len(found) - len(firsts):11}"
        f"{inversions:11}{line.receiver.results:9}{line.receiver.late:6}   {years}",
        flush=True,
    )
    return lost == 0 and inversions == 0


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    said = f"quoted, for they have blanks: {', '.join(ROWS)} (default: all)"
    made.add_argument("rows", metavar="ROW", nargs="*", type=row, help=said)
    said = "how many inspections a row makes (default: %(default)s)"
    made.add_argument("--records", metavar="RECORDS", type=int, default=2000, help=said)
    return made


def row(name: str) -> str:
    """The name, if there is such a row. Not by `choices`, which refuse that none is given."""
    if name not in ROWS:
        raise argparse.ArgumentTypeError(f"no row is called {name!r}")
    return name


def main() -> int:
    asked = parser().parse_args()
    print(
        f"{'':16}{'accepted':>9}{'received':>9}{'lost':>6}{'duplicates':>11}{'inversions':>11}"
        f"{'results':>9}{'late':>6}   years"
    )
    good = [run(name, asked.records) for name in asked.rows or ROWS]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
