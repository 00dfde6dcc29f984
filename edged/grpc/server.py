"""The gRPC servers: what they offer, when they are healthy, and their start and end.

Owns the health service, reflection, and the life of the servers. Must not know what a call means.
There are two, on one loop, with the same services: one of the Unix socket, whose permissions say
who may connect, and one of the TCP port, whose clients may have to show a certificate or a token.
Calls of strangers on the port so never take the places of those on the socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from edged.config import GrpcConfig
from edged.core.errors import ConfigError, EdgedError, MissingDependency
from edged.core.observer import Observer
from edged.core.protocols import Labels, ModelHost, Stations
from edged.grpc import admission, inspections, ports, results, service
from edged.grpc.calls import Calls
from edged.grpc.inspections import InspectionsService
from edged.grpc.results import ResultsStream
from edged.grpc.service import EdgeAgentService
from edged.runtime.loop import LoopThread
from edged.runtime.workers import Crew, Deadline

log = logging.getLogger(__name__)

START_SECONDS = 10.0
GRACE_SECONDS = 5.0
"""What calls in progress get at the end, if the stop deadline leaves as much."""
MARGIN_SECONDS = 5.0
"""For the server's own work after the grace: no client is waited for any more."""
MAX_CALLS = results.MAX_WATCHERS + 96
"""Of a server at once, watchers included; beyond it RESOURCE_EXHAUSTED before a message is read."""
SERVICES = ("", service.NAME, inspections.NAME)


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
        stations: Stations | None = None,
        labels: Labels | None = None,
    ) -> None:
        """stations: those that take triggers by gRPC, labels: who takes them; None = nobody."""
        self._stations = stations
        self._labels = labels
        self._config = config
        self._host = host
        self._results = results
        self._observer = observer
        self._deadline = deadline
        self._loop = LoopThread("doors", crew)
        self._executors: list[ThreadPoolExecutor] = []
        self._calls = Calls(observer)
        self._servers: list[Any] = []
        self._health: Any = None
        self._checks: list[admission.TokenCheck] = []
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
        """Refuse new calls, give those in progress what time is left, end; safe to call twice."""
        self._results.close()  # the app has done so; if not, watchers would use up all the time
        grace = self._deadline.remaining(GRACE_SECONDS)
        try:
            if self._servers:
                self._loop.run(self._shut(grace), grace + MARGIN_SECONDS)
        except EdgedError as error:  # the rest of the stop must go on
            log.error("the gRPC server did not end in order: %s", error)
        finally:
            self._servers = []
            if not self._loop.close(MARGIN_SECONDS):
                log.error("the doors thread did not end in %g s", MARGIN_SECONDS)
            for executor in self._executors:
                executor.shutdown(wait=False, cancel_futures=True)
            self._executors.clear()
            self._remove_socket()

    async def _open(self) -> None:
        config = self._config
        # Executors, not workers: they run short pieces of a request and have no loop to watch.
        pixels = ThreadPoolExecutor(2, "doors-pixels")
        control = ThreadPoolExecutor(2, "doors-control")
        reading = ThreadPoolExecutor(2, "doors-journal")
        labels = ThreadPoolExecutor(1, "doors-labels")  # waits for other writers, and for S3
        self._executors += [pixels, control, reading, labels]
        agent = EdgeAgentService(self._host, pixels, control).handlers(self._calls)
        service_ = InspectionsService(self._results, self._stations, self._labels, reading, labels)
        own = service_.handlers(self._calls)
        handlers = (
            grpc.method_handlers_generic_handler(service.NAME, agent),
            grpc.method_handlers_generic_handler(inspections.NAME, own),
        )
        # Not through `Calls`: probes are not requests, and must be answered to the end.
        self._health = health.aio.HealthServicer()
        await self._set_health(False)
        if config.listen is not None:
            self._checks = admission.interceptors(config, self._observer)
            server = self._add_server(handlers, self._checks)
            self._address = ports.bind_port(server, config.listen, admission.credentials(config))
        if config.socket is not None:
            server = self._add_server(handlers, ())
            self._inode = ports.bind_socket(server, config.socket, config.group)
        for server in self._servers:
            await server.start()

    def _add_server(self, handlers: tuple[Any, ...], checks: Sequence[Any]) -> Any:
        server = grpc.aio.server(
            interceptors=checks,
            options=ports.options(self._config.max_message_bytes),
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        self._servers.append(server)
        server.add_generic_rpc_handlers(handlers)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._config.reflection:
            _reflect(server)
        return server

    async def _set_health(self, serving: bool) -> None:
        status = health_pb2.HealthCheckResponse.ServingStatus
        for check in self._checks:
            check.serving = serving
        for name in SERVICES:
            await self._health.set(name, status.SERVING if serving else status.NOT_SERVING)

    async def _shut(self, grace: float) -> None:
        if self._health is not None:
            await self._health.enter_graceful_shutdown()
        # Not `stop(grace)`: a client watching the health service would hold it up to the last.
        await self._calls.drain(grace)
        await asyncio.gather(*(server.stop(None) for server in self._servers))
        self._servers = []  # the last references must go while the loop still runs

    def _remove_socket(self) -> None:
        """Remove our socket file, and no other's that may have taken its place."""
        path, ours = self._config.socket, self._inode
        if path is not None and ours is not None:
            with contextlib.suppress(OSError):
                if ports.inode(path) == ours:
                    path.unlink()
        self._inode = None


def _reflect(server: Any) -> None:
    try:
        from grpc_reflection.v1alpha import reflection
    except ImportError as error:
        raise MissingDependency("grpcio-reflection", "grpc", "grpc.reflection = true") from error
    names = (service.NAME, inspections.NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server)
