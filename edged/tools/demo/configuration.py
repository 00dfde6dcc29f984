"""The box of the demo: its two products, the stations that wait for a trigger, and its file.

The free-running cameras are the demo; they run at a fixed rate and their parts are what it counts.
The triggered stations are for those who try to be a PLC or an MES (examples/): each has a camera of
rate 0, which renders a part when somebody asks for one, so that a station that nobody triggers
costs next to nothing.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

CAMERAS = {"flange": "machined", "carton": "printed"}
WIDTH, HEIGHT, RATE, DEFECT_RATE = 640, 480, 10.0, 0.2
LINE_SEED = 2


class Triggered(NamedTuple):
    """A station that inspects a flange when it is told to; its camera bears the same name."""

    name: str
    trigger: str
    payload: str = "json"
    confirm: bool = False
    seed: int = 4
    defect_rate: float = 0.5


STATIONS = (
    # One seed: the same parts in the same order, so that JSON and struct can be compared.
    Triggered("plc-json", "mqtt", confirm=True),
    Triggered("plc-struct", "mqtt", "struct", confirm=True),
    Triggered("rework", "grpc", seed=9),
)
DEADLINE = 5.0
"""Seconds; long, since a demo may share its cores with a training by the API."""


def configure(output: Path, port: int) -> Path:
    """Write `demo.toml` into the demo's folder; port: of its broker."""
    rest, metrics = free_ports(2)
    lines = ['state_dir = "state"']
    for name, part in CAMERAS.items():
        lines += ["[[models]]", f'name = "{name}"', f'path = "models/{name}"', "units = 1"]
        lines += ["[[cameras]]", f'name = "{name}"', 'kind = "simulated"', f'model = "{name}"']
        lines += [f'part = "{part}"', f"seed = {LINE_SEED}", f"rate = {RATE}"]
        lines += [f"width = {WIDTH}", f"height = {HEIGHT}", f"defect_rate = {DEFECT_RATE}"]
    for station in STATIONS:
        lines += ["[[cameras]]", f'name = "{station.name}"', 'kind = "simulated"']
        lines += ['part = "machined"', f"seed = {station.seed}", "rate = 0.0"]
        lines += [f"width = {WIDTH}", f"height = {HEIGHT}", f"defect_rate = {station.defect_rate}"]
        lines += ["[[stations]]", f'name = "{station.name}"', f'camera = "{station.name}"']
        lines += ['model = "flange"', f'trigger = "{station.trigger}"', f"deadline = {DEADLINE}"]
        lines += [f'payload = "{station.payload}"', f"confirm = {str(station.confirm).lower()}"]
    lines += ["[mqtt]", f"port = {port}", 'version = "3.1.1"', "[grpc]", 'socket = "edge.sock"']
    lines += ["[archive]", "max_gb = 0.5", "min_free_gb = 0.5"]
    # Every program of this machine may use the API for as long as the demo runs.
    lines += ["[rest]", f'listen = "127.0.0.1:{rest}"', "anonymous = true", 'buckets = "images"']
    lines += ["[metrics]", f'listen = "127.0.0.1:{metrics}"']
    lines += ["[log]", 'level = "warning"', 'format = "text"']
    path = output / "demo.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def free_ports(count: int) -> list[int]:
    """TCP ports of loopback that nobody uses now, all different."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
