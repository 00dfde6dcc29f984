"""What fifty idle watchers and a slow one cost a unary call and the health service.

Two processes with the doors of the daemon and no engine: one has 50 clients that watch a station
without results and one that watches everything and never reads; the other has none. In both, a
thread adds results of 1 KB, 50 a second. They are asked in turn by one client: a detection of
640x480 pixels, judged by a rule in no time (FAKE host, for there is nothing to measure in it), and
the health. The figures are the ratios of the medians.
"""

from __future__ import annotations

import argparse
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.support.command import add_number, question
from benchmarks.support.figures import ratio, show
from benchmarks.support.processes import serving
from edged.config import GrpcConfig
from edged.core.lifecycle import ModelStatus
from edged.core.observer import Observer
from edged.core.protocols import HostedModel
from edged.core.types import Frame, Image, Inspection, NoVerdict, Reason, Timing, Verdict
from edged.grpc.results import ResultsStream
from edged.grpc.server import Doors
from edged.runtime.workers import Crew, Deadline, Worker
from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc, results_pb2, results_pb2_grpc

IDLE, WARM = 50, 100
WIDTH, HEIGHT = 640, 480


class FakeHost:
    """FAKE: every picture is good at once."""

    def start(self, name: str) -> ModelStatus:
        """Nothing to start."""
        return ModelStatus.HOSTED

    def stop(self, name: str) -> ModelStatus:
        """Nothing to stop."""
        return ModelStatus.HOSTED

    def models(self) -> Sequence[HostedModel]:
        """None."""
        return []

    def detect(self, name: str, image: Image, deadline_ns: int = 0) -> Future[Inspection]:
        """A good verdict."""
        future: Future[Inspection] = Future()
        future.set_result(inspection(image, Verdict(False, 0.9, 0.1, 0.5)))
        return future


def inspection(image: Image, outcome: Verdict | NoVerdict) -> Inspection:
    """A record of the station `top`."""
    frame = Frame("top", 1, 1, datetime.now(timezone.utc), image)
    return Inspection(frame, None, outcome, Timing(1))


def serve(socket: Path) -> None:
    """The doors, with results coming in, until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    crew, deadline, results = Crew(), Deadline(), ResultsStream()
    config = GrpcConfig(socket=socket)
    doors = Doors(config, FakeHost(), results, crew, Observer(), deadline)

    def feed(worker: Worker) -> None:
        image = np.zeros((64, 64, 3), np.uint8)
        while not worker.stop.wait(0.02):
            worker.beat()
            results.accept(inspection(image, NoVerdict(Reason.OVERLOAD, "x" * 1000)))

    doors.start()
    feeder = crew.start("feed", feed)
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    feeder.stop.set()
    deadline.set(1.0)
    results.close()
    doors.close()


def watch(socket: Path) -> list[Any]:
    """Fifty streams of nothing and one that nobody reads, each on a connection of its own."""
    open_ = []
    for number in range(IDLE + 1):
        options = [("grpc.use_local_subchannel_pool", 1)]
        line = grpc.insecure_channel(f"unix:{socket}", options=options)
        cameras = ["nowhere"] if number < IDLE else []
        stub: Any = results_pb2_grpc.InspectionsStub(line)  # type: ignore[no-untyped-call]
        call = stub.Watch(results_pb2.WatchRequest(cameras=cameras))
        call.initial_metadata()
        open_ += [line, call]
    return open_


def asks(socket: Path) -> dict[str, Callable[[], object]]:
    """What is asked of a server, by its name."""
    line = grpc.insecure_channel(f"unix:{socket}")
    bitmap = pb.Bitmap(width=WIDTH, height=HEIGHT, byte_data=bytes(3 * WIDTH * HEIGHT))
    request = pb.DetectAnomaliesRequest(model_component="part", bitmap=bitmap)
    agent: Any = edge_agent_pb2_grpc.EdgeAgentStub(line)  # type: ignore[no-untyped-call]
    health = health_pb2_grpc.HealthStub(line)
    return {
        "detection": lambda: agent.DetectAnomalies(request),
        "health": lambda: health.Check(health_pb2.HealthCheckRequest()),
    }


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_number(made, "rounds", 1500, "how often each of the two is asked")
    return made


def main() -> int:
    """Print one object."""
    if sys.argv[1:2] == ["serve"]:
        serve(Path(sys.argv[2]))
        return 0
    rounds = parser().parse_args().rounds
    times: dict[str, tuple[list[float], list[float]]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        sockets = [Path(scratch) / name for name in ("alone", "watched")]
        servers = [serving("watchers", "serve", socket) for socket in sockets]
        watchers = watch(sockets[1])
        both = [asks(socket) for socket in sockets]
        for _ in range(rounds + WARM):
            for name in both[0]:
                for side in (0, 1):
                    began = time.perf_counter()
                    both[side][name]()
                    times.setdefault(name, ([], []))[side].append(time.perf_counter() - began)
        for each in watchers:
            if isinstance(each, grpc.Channel):
                each.close()
        for server in servers:
            server.terminate()
            server.wait(30)
    found: dict[str, float] = {}
    for name, sides in times.items():
        alone, watched = (side[WARM:] for side in sides)
        found[f"{name}_alone_p50_ms"] = statistics.median(alone) * 1e3
        found[f"{name}_watched_p50_ms"] = statistics.median(watched) * 1e3
        found[f"{name}_ratio"] = ratio(watched, alone)
    show(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
