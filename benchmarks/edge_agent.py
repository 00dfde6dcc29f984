"""What the Edge Agent's door costs a picture, over a bare gRPC echo of the same picture.

The model is of 1280x720 pictures; one that is trained here has a small input. The agent is the
daemon's own doors before its own host, in a process; the echo another process with a grpc.aio
server of the same options, which looks at no message. Both are asked in turn by one client that
serialised its requests before, by Unix socket and TCP, with the pixels in the message and in shared
memory. Of a picture in shared memory the echo opens the object, maps it, copies all of it into
memory of its own, unmaps and closes it, as code does that is written for POSIX shared memory;
beside it is the figure over an echo that reads the object by pread, as edged does, which is
quicker. The echo answers 16 bytes, whatever it was sent. From each of the
agent's times its own resize and engine are taken off, as the pipeline measured them for that very
picture.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import mmap
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import shared_memory
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np

from benchmarks.support.command import add_number, add_optional_model, question
from benchmarks.support.figures import quantile, ratio, show
from benchmarks.support.parts import train
from benchmarks.support.processes import serving
from edged.cameras.simulation.parts import render
from edged.config import GrpcConfig
from edged.core.observer import Observer
from edged.engines.choose import EngineRequest, Engines
from edged.engines.tune import Tuner
from edged.grpc import ports
from edged.grpc.results import ResultsStream
from edged.grpc.server import Doors
from edged.hosting.host import Host, HostingSpec
from edged.runtime.state import StateFolder
from edged.runtime.workers import Crew, Deadline
from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.spec import read_spec

WIDTH, HEIGHT = 1280, 720
SIDE = 96
"""Of the model's input: a long engine only leaves less of everybody's code in the caches."""
WARM = 20
MESSAGE_BYTES = 32 * 1024 * 1024
ECHOES = ("/bare.Echo/Take", "/bare.Echo/Map", "/bare.Echo/Read")
DETECT = "/AWS.LookoutVision.EdgeAgent/DetectAnomalies"


class Engine(Observer):
    """Remembers the seconds of each batch: resize, copy and engine."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def batch_done(self, model: str, size: int, seconds: float) -> None:
        """Count one picture."""
        self.seconds.append(seconds)


def serve_agent(folder: Path, model: Path) -> None:
    """The doors and a host, until SIGTERM; then `engine.json` has the engine's times."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    crew, deadline, engine = Crew(), Deadline(), Engine()
    request = EngineRequest("onnxruntime", 1, 1, False)
    engines = Engines(Tuner(StateFolder(folder)))
    hosting = HostingSpec(
        "part", lambda: model, partial(read_spec, name="part"),
        lambda at, spec: engines.candidates(at, spec, request), 1, 1, 16, None,
    )  # fmt: skip
    host = Host([hosting], crew, engine, deadline)
    config = GrpcConfig(socket=folder / "agent.sock", listen="127.0.0.1:0")
    doors = Doors(config, host, ResultsStream(), crew, engine, deadline)
    host.start("part")
    host.wait("part", 120)
    engine.seconds.clear()
    doors.start()
    (folder / "agent.port").write_text(doors.address or "")
    print("ready", flush=True)
    signal.sigwait({signal.SIGTERM})
    (folder / "engine.json").write_text(json.dumps(engine.seconds))
    doors.close()
    host.close()


async def serve_echo(folder: Path) -> None:
    """A bare server that answers 16 bytes, until SIGTERM."""

    async def take(_: bytes, __: Any) -> bytes:
        return bytes(16)

    async def map_(data: bytes, _: Any) -> bytes:
        handle = pb.SharedMemoryHandle.FromString(data)
        file = os.open("/dev/shm/" + handle.name, os.O_RDONLY)
        with mmap.mmap(file, handle.size, prot=mmap.PROT_READ) as mapped:
            mapped.read()
        os.close(file)
        return bytes(16)

    async def read(data: bytes, _: Any) -> bytes:
        handle = pb.SharedMemoryHandle.FromString(data)
        file = os.open("/dev/shm/" + handle.name, os.O_RDONLY)
        os.preadv(file, [np.empty(handle.size, np.uint8).data], 0)
        os.close(file)
        return bytes(16)

    server = grpc.aio.server(options=ports.options(MESSAGE_BYTES))
    does = {"Take": take, "Map": map_, "Read": read}
    handlers = {name: grpc.unary_unary_rpc_method_handler(do) for name, do in does.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("bare.Echo", handlers),))
    server.add_insecure_port(f"unix:{folder / 'echo.sock'}")
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    (folder / "echo.port").write_text(f"127.0.0.1:{port}")
    print("ready", flush=True)
    await server.wait_for_termination()


def timed(call: Callable[[bytes], bytes], request: bytes) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    call(request)
    return time.perf_counter() - began


def requests(segment: shared_memory.SharedMemory) -> dict[str, tuple[bytes, bytes]]:
    """What the echo and the agent are sent, serialised, by the way of the pixels."""
    image, _ = render("machined", 1, 3, WIDTH, HEIGHT, 0.0)
    pixels = image[..., ::-1].tobytes()
    view: Any = segment.buf
    view[: len(pixels)] = pixels
    handle = pb.SharedMemoryHandle(name=segment.name, size=len(pixels))
    made = {}
    for how, data in (
        ("bytes", {"byte_data": pixels}),
        ("shared memory", {"shared_memory_handle": handle}),
    ):
        bitmap = pb.Bitmap(width=WIDTH, height=HEIGHT, **data)
        request = pb.DetectAnomaliesRequest(model_component="part", bitmap=bitmap)
        bare = pixels if how == "bytes" else handle.SerializeToString()
        made[how] = (bare, request.SerializeToString())
    return made


def ask(folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of the agent's calls and of the echoes', by transport and way of the pixels."""
    options = [("grpc.max_send_message_length", -1)]
    ways: dict[str, dict[str, list[float]]] = {}
    segment = shared_memory.SharedMemory(create=True, size=3 * WIDTH * HEIGHT)
    try:
        made = requests(segment)
        for transport in ("unix", "tcp"):
            channels = {}
            for name in ("echo", "agent"):
                port = (folder / f"{name}.port").read_text()
                target = f"unix:{folder / name}.sock" if transport == "unix" else port
                channels[name] = grpc.insecure_channel(target, options=options)
            agent = channels["agent"].unary_unary(DETECT)
            for how, (bare, request) in made.items():
                echoes = ECHOES[:1] if how == "bytes" else ECHOES[1:]
                calls = {e: channels["echo"].unary_unary(e) for e in echoes}
                times: dict[str, list[float]] = {e: [] for e in ("agent", *echoes)}
                for _ in range(WARM + rounds):
                    for echo, call in calls.items():
                        times[echo].append(timed(call, bare))
                        times["agent"].append(timed(agent, request))
                ways[f"{how}, {transport}"] = times
    finally:
        segment.close()
        segment.unlink()
    return ways


def milliseconds(values: list[float]) -> str:
    """Their middle and their end."""
    p50, p99 = (quantile(values, share) * 1e3 for share in (0.5, 0.99))
    return f"p50 {p50:.2f} p99 {p99:.2f} ms"


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_optional_model(made, " of 1280x720 pictures")
    add_number(made, "rounds", 400, "how often each way is asked")
    return made


def main() -> int:
    """Print a line for each way, and one object."""
    if sys.argv[1:2] == ["agent"]:
        serve_agent(Path(sys.argv[2]), Path(sys.argv[3]))
        return 0
    if sys.argv[1:2] == ["echo"]:
        asyncio.run(serve_echo(Path(sys.argv[2])))
        return 0
    given = parser().parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        model = given.model or train(folder, 20, (WIDTH, HEIGHT), side=SIDE)
        agent = serving("edge_agent", "agent", folder, model)
        echo = serving("edge_agent", "echo", folder)
        try:
            ways = ask(folder, given.rounds)
        finally:
            agent.terminate()
            echo.terminate()
            agent.wait(30)
            echo.wait(30)
        engine = json.loads((folder / "engine.json").read_text())
    ratios, begin = {}, 0
    for way, times in ways.items():
        whole = times.pop("agent")
        own, begin = engine[begin : begin + len(whole)], begin + len(whole)
        door = [all_ - part for all_, part in zip(whole, own, strict=True)]
        # The agent was asked once after each echo: what follows which matters to the caches.
        for number, (method, bare) in enumerate(times.items()):
            after = door[number :: len(times)][WARM:]
            found = ratios[f"{way}, {method}"] = ratio(after, bare[WARM:])
            print(
                f"{way:20} {method:16} {milliseconds(bare[WARM:])}, agent less engine "
                f"{milliseconds(after)}, engine p50 {quantile(own, 0.5) * 1e3:.2f} ms, "
                f"ratio {found:.2f}"
            )
    show(ratios)
    return 0


if __name__ == "__main__":
    sys.exit(main())
