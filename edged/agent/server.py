"""Sockets and ports: where gRPC clients come in.

Owns the addresses, the health service, and the start and the end of the server. Must not know
what a call means. Unix socket and loopback only: leaving this machine needs TLS and
authentication, which the configuration refuses to do without.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edged.agent import results, service
from edged.agent.calls import Calls
from edged.agent.results import ResultsStream
from edged.agent.service import EdgeAgentService
from edged.config import GrpcConfig, split_address
from edged.core.errors import ConfigError, EdgedError, WrongState
from edged.core.loop import LoopThread
from edged.core.observer import Observer
from edged.core.protocols import ModelHost
from edged.core.workers import Crew, Deadline

log = logging.getLogger(__name__)

START_SECONDS = 10.0
GRACE_SECONDS = 5.0
"""What calls in hand get at the end, if the stop deadline leaves as much."""
MARGIN_SECONDS = 5.0
"""For the server's own work after the grace: no client is waited for any more."""
MAX_CALLS = results.MAX_WATCHERS + 96
"""At once, watchers included; beyond it RESOURCE_EXHAUSTED before the message is read."""
MAX_PATH_BYTES = 107
SOCKET_MODE = 0o660
SERVICES = ("", service.NAME, results.NAME)


class Doors:
    """The gRPC servers, on one loop thread called `doors`. Methods are called on main."""

    def __init__(
        self,
        config: GrpcConfig,
        host: ModelHost,
        results: ResultsStream,
        crew: Crew,
        observer: Observer,
        deadline: Deadline,
    ) -> None:
        self._config = config
        self._host = host
        self._results = results
        self._observer = observer
        self._deadline = deadline
        self._loop = LoopThread("doors", crew)
        self._executors: list[ThreadPoolExecutor] = []
        self._calls = Calls(observer)
        self._server: Any = None
        self._health: Any = None
        self._address: str | None = None
        self._inode: tuple[int, int] | None = None

    @property
    def address(self) -> str | None:
        """The TCP address that was bound, `127.0.0.1:50051`; None without one."""
        return self._address

    def start(self) -> None:
        """Bind and serve; the health service says NOT_SERVING until `set_serving(True)`.

        Raises ConfigError and WrongState with a sentence, and leaves nothing behind then.
        """
        if self._config.socket is None and self._config.listen is None:
            raise ConfigError("grpc: neither socket nor listen is set: nobody could connect.")
        self._loop.start()
        try:
            self._loop.run(self._open(), START_SECONDS)
        except BaseException:
            self.close()
            raise

    def set_serving(self, serving: bool) -> None:
        """What the health service answers for the daemon and for both services."""
        self._loop.run(self._set_health(serving), MARGIN_SECONDS)

    def close(self) -> None:
        """Refuse new calls, give those in hand the time that is left, end; safe to call twice."""
        self._results.close()  # the app has done so; if not, watchers would use up all the time
        grace = self._deadline.remaining(GRACE_SECONDS)
        try:
            if self._server is not None:
                self._loop.run(self._shut(grace), grace + MARGIN_SECONDS)
        except EdgedError as error:  # the rest of the stop must go on
            log.error("the gRPC server did not end in order: %s", error)
        finally:
            self._server = None
            if not self._loop.close(MARGIN_SECONDS):
                log.error("the doors thread did not end in %g s", MARGIN_SECONDS)
            for executor in self._executors:
                executor.shutdown(wait=False, cancel_futures=True)
            self._executors.clear()
            self._remove_socket()

    async def _open(self) -> None:
        # Executors, not workers: they run short pieces of a request and have no loop to watch.
        pixels = ThreadPoolExecutor(2, "doors-pixels")
        control = ThreadPoolExecutor(2, "doors-control")
        self._executors += [pixels, control]
        agent = EdgeAgentService(self._host, pixels, control)
        server = self._server = grpc.aio.server(
            options=_options(self._config.max_message_bytes), maximum_concurrent_rpcs=MAX_CALLS
        )
        server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(service.NAME, agent.handlers(self._calls)),
                grpc.method_handlers_generic_handler(
                    results.NAME, self._results.handlers(self._calls)
                ),
            )
        )
        # Not through `Calls`: probes are not requests, and must be answered to the end.
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        await self._set_health(False)
        if self._config.listen is not None:
            self._address = _bind_port(server, self._config.listen)
        if self._config.socket is not None:
            self._inode = _bind_socket(server, self._config.socket)
        await server.start()

    async def _set_health(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        for name in SERVICES:
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def _shut(self, grace: float) -> None:
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        # Not `stop(grace)`: a client watching the health service would hold it up to the last.
        await self._calls.drain(grace)
        await self._server.stop(None)
        self._server = None  # its last reference must go while the loop still runs

    def _remove_socket(self) -> None:
        """Remove our socket file, and no other's that may have taken its place."""
        path, ours = self._config.socket, self._inode
        if path is not None and ours is not None:
            with contextlib.suppress(OSError):
                if _inode(path) == ours:
                    path.unlink()
        self._inode = None


def _options(max_message_bytes: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        # On, a second daemon would share the port silently and take half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]


def _bind_port(server: Any, listen: str) -> str:
    """Bind `host:port`, 0 = any free one; the bound address. Raises WrongState."""
    host, port = split_address(listen)
    shown = f"[{host}]" if ":" in host else host
    try:
        bound = server.add_insecure_port(f"{shown}:{port}")
    except RuntimeError:
        raise WrongState(f"grpc.listen: {listen} cannot be bound: {_why(host, port)}.") from None
    return f"{shown}:{bound}"


def _why(host: str, port: int) -> str:
    """The reason that gRPC keeps to itself, found by trying again."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "another process uses the port; stop it or choose another port"
        return error.strerror or str(error)
    return "it was in use a moment ago; try again"


def _bind_socket(server: Any, path: Path) -> tuple[int, int]:
    """Bind a Unix socket that owner and group may use. Raises ConfigError, WrongState."""
    path = path.absolute()
    if len(bytes(path)) > MAX_PATH_BYTES:
        raise ConfigError(
            f"grpc.socket: {path} is longer than the {MAX_PATH_BYTES} bytes a socket's path may "
            "have: choose a shorter one."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        server.add_insecure_port(f"unix:{quote(str(path))}")
        path.chmod(SOCKET_MODE)
        return _inode(path)
    except OSError as error:
        raise ConfigError(f"grpc.socket: {path} cannot be used: {error.strerror}.") from None
    except RuntimeError:
        raise ConfigError(
            f"grpc.socket: {path} cannot be bound: may edged write in its folder?"
        ) from None


def _clear(path: Path) -> None:
    """Remove a socket file that nobody answers any more; gRPC would take a live one, too."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise WrongState(
            f"grpc.socket: {path} is there and is no socket: remove it or choose another path."
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except (TimeoutError, BlockingIOError):
            pass  # somebody listens, and is too busy to answer
    raise WrongState(
        f"grpc.socket: {path} is in use by another process: stop it or choose another path."
    )


def _inode(path: Path) -> tuple[int, int]:
    status = path.lstat()
    return status.st_dev, status.st_ino
