"""The REST port: HTTP by uvicorn, answers by the chain.

Owns the socket, the bound of a body, and the start and the end. Runs on a loop of its own; what a
request asks for is done on a few threads, since it touches disk. The configuration sees to it that
what leaves loopback has a certificate and asks for access keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from edged.core.errors import (
    Busy,
    ConfigError,
    EdgedError,
    InvalidInput,
    ShuttingDown,
    WrongState,
)
from edged.rest.chain import Chain
from edged.rest.protocol import Request, Response, failure
from edged.runtime.loop import LoopThread
from edged.runtime.workers import Crew, Deadline

log = logging.getLogger(__name__)

LARGEST_BODY = 15 * 1024 * 1024
"""Bytes: ten mebibytes of changes in base64, and the rest of the request."""
MOST_HELD = 256 * 1024 * 1024
"""Bytes of all bodies at once, on their way or in progress."""
HEAD_SECONDS = 20.0
"""For the head of a request, from its first byte or from the connection."""
BODY_SECONDS = 120.0
TOO_SLOW = f"The body did not come within {BODY_SECONDS:g} s."
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
        self,
        address: tuple[str, int],
        chain: Chain,
        crew: Crew,
        deadline: Deadline,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        """certificate: PEM files of it and of its key; with it, HTTPS."""
        self._address = address
        self._chain = chain
        self._deadline = deadline
        self._certificate = certificate
        self._held = 0
        self._loop = LoopThread("rest", crew)
        self._threads = ThreadPoolExecutor(THREADS, "rest-call")
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.port = 0

    @property
    def held(self) -> int:
        """Bytes of all bodies, on their way or in progress; any thread."""
        return self._held

    def start(self) -> None:
        """Bind and serve. Raises WrongState when the address is taken, ConfigError."""
        host, port = self._address
        tls = None if self._certificate is None else _tls(*self._certificate)
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
        self._loop.run(self._open(bound, tls), START_SECONDS)

    def close(self) -> None:
        """Refuse new requests, give the others what time is left, end; safe to call twice."""
        grace = self._deadline.remaining(GRACE_SECONDS)
        with contextlib.suppress(EdgedError):
            self._loop.run(self._shut(grace), grace + GRACE_SECONDS)
        self._loop.close(GRACE_SECONDS)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _open(self, bound: socket.socket, tls: ssl.SSLContext | None) -> None:
        config = uvicorn.Config(
            self._answer,
            interface="asgi3",
            http=_Connection,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            limit_concurrency=MOST_CONNECTIONS,
        )
        config.load()
        config.ssl = tls
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
        held = [0]
        try:
            body = await asyncio.wait_for(self._body(receive, held), BODY_SECONDS)
            if body is not None:  # else the client has gone
                await _send(send, await self._call(self._chain.handle, _request(scope, body)))
        except (asyncio.TimeoutError, TimeoutError):
            await self._refuse(scope, send, InvalidInput(TOO_SLOW))
        except EdgedError as error:
            await self._refuse(scope, send, error)
        finally:
            self._held -= held[0]

    async def _refuse(self, scope: dict[str, Any], send: Send, error: EdgedError) -> None:
        """The answer to a body that is not taken; the connection ends with it."""
        answer = await self._call(self._chain.refuse, _request(scope, b""), error)
        await _send(send, answer, close=True)

    async def _call(self, what: Callable[..., Response], *arguments: Any) -> Response:
        """What the chain answers, on one of the threads."""
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, what, *arguments)
        except RuntimeError:  # the threads have ended
            return failure(ShuttingDown("edged is stopping."))

    async def _body(self, receive: Receive, held: list[int]) -> bytes | None:
        """The request's body, or None when the client went away; its bytes count as held.

        Raises InvalidInput if it is too long, Busy when too much is held already: a body comes
        before it can be known who sends it.
        """
        parts: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            parts.append(part)
            held[0] += len(part)
            self._held += len(part)
            if held[0] > LARGEST_BODY:
                raise InvalidInput(
                    f"The body has more than the {LARGEST_BODY} bytes that are allowed."
                )
            if self._held > MOST_HELD:
                raise Busy("Too many requests with large bodies at once: try again.")
            if not message.get("more_body"):
                return b"".join(parts)


class _Connection(H11Protocol):
    """uvicorn's, which would wait for ever for a request that never comes, or never whole."""

    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE and self.conn.our_state is h11.IDLE:
            self._wait()  # the head of a request is not whole yet
        else:
            self._stop_waiting()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None


def _request(scope: dict[str, Any], body: bytes) -> Request:
    peer = scope.get("client")
    return Request(
        scope["method"],
        scope["raw_path"].decode("latin-1"),
        scope["query_string"].decode("latin-1"),
        tuple((k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]),
        body,
        f"{peer[0]}:{peer[1]}" if peer else "",
    )


def _tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """What serves HTTPS with a certificate. Raises ConfigError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    for path in (certificate, key):
        try:
            path.read_bytes()
        except OSError as error:
            raise ConfigError(
                f"rest.cert_file, rest.key_file: {path} cannot be read ({error.strerror})."
            ) from error
    try:
        context.load_cert_chain(certificate, key, lambda: "")
    except OSError as error:  # an SSLError, or whatever errno OpenSSL left behind (seen: EAGAIN)
        why = getattr(error, "reason", None) or "unreadable"
        raise ConfigError(
            f"rest.cert_file, rest.key_file: {certificate} and {key} are no certificate and its "
            f"unencrypted key in PEM form ({why})."
        ) from error
    return context


async def _send(send: Send, response: Response, close: bool = False) -> None:
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    if close:
        headers["Connection"] = "close"
    encoded = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    await send({"type": "http.response.start", "status": response.code, "headers": encoded})
    await send({"type": "http.response.body", "body": response.body})
