"""The REST port: HTTP by uvicorn, answers by the chain.

Owns the socket, the bound of a body, and the start and the end. Runs on a loop of its own; what a
request asks for is done on a few threads, since it touches disk. Loopback only without access keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn

from edged.control.chain import Chain
from edged.control.protocol import Request, Response, failure
from edged.core.errors import EdgedError, InvalidInput, ShuttingDown, WrongState
from edged.core.loop import LoopThread
from edged.core.workers import Crew, Deadline

log = logging.getLogger(__name__)

LARGEST_BODY = 15 * 1024 * 1024
"""Bytes: ten mebibytes of changes in base64, and the rest of the request."""
THREADS = 8
START_SECONDS = 10.0
GRACE_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 60
BACKLOG = 128
MOST_CONNECTIONS = 512

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


class RestServer:
    """The door. `start` and `close` are called on main."""

    def __init__(
        self, address: tuple[str, int], chain: Chain, crew: Crew, deadline: Deadline
    ) -> None:
        self._address = address
        self._chain = chain
        self._deadline = deadline
        self._loop = LoopThread("rest", crew)
        self._threads = ThreadPoolExecutor(THREADS, "rest-call")
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    def start(self) -> None:
        """Bind and serve. Raises WrongState when the address is taken."""
        host, port = self._address
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # With its protocol: asyncio sets TCP_NODELAY only on sockets that name it, and without it
        # an answer waits 40 ms for the client's delayed acknowledgement (measured).
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen(BACKLOG)
        except OSError as error:
            bound.close()
            raise WrongState(
                f"rest.listen: {host}:{port} cannot be bound: {error.strerror}."
            ) from None
        self.port = int(bound.getsockname()[1])
        self._loop.start()
        self._loop.run(self._open(bound), START_SECONDS)

    def close(self) -> None:
        """Refuse new requests, give those in hand what time is left, end; safe to call twice."""
        grace = self._deadline.remaining(GRACE_SECONDS)
        with contextlib.suppress(EdgedError):
            self._loop.run(self._shut(grace), grace + GRACE_SECONDS)
        self._loop.close(GRACE_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _open(self, bound: socket.socket) -> None:
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
        )
        self._server = uvicorn.Server(config)
        self._task = asyncio.ensure_future(self._server.serve(sockets=[bound]))
        while not self._server.started:
            if self._task.done():
                raise WrongState("The REST server did not start.")
            await asyncio.sleep(0.01)

    async def _shut(self, grace: float) -> None:
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._task), grace)
        if not self._task.done():
            self._server.force_exit = True
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._task, GRACE_SECONDS / 2)

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """An ASGI application."""
        if scope["type"] != "http":
            return
        try:
            body = await _body(receive)
        except InvalidInput as error:
            await _send(send, failure(error), close=True)
            return
        if body is None:
            return  # the client has gone
        peer = scope.get("client")
        request = Request(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]),
            body,
            f"{peer[0]}:{peer[1]}" if peer else "",
        )
        try:
            loop = asyncio.get_running_loop()
            response = await loop.run_in_executor(self._threads, self._chain.handle, request)
        except RuntimeError:  # the threads have ended
            response = failure(ShuttingDown("edged is stopping."))
        await _send(send, response)


async def _body(receive: Receive) -> bytes | None:
    """The request's body, or None when the client went away. Raises InvalidInput if too long."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > LARGEST_BODY:
            raise InvalidInput(f"The body has more than the {LARGEST_BODY} bytes that are allowed.")
        if not message.get("more_body"):
            return b"".join(parts)


async def _send(send: Send, response: Response, close: bool = False) -> None:
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    if close:
        headers["Connection"] = "close"
    encoded = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": response.code, "headers": encoded})
    await send({"type": "http.response.body", "body": response.body})
