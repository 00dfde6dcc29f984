"""The small server that shows the metrics to whoever scrapes them, on loopback."""

from __future__ import annotations

import errno
import io
import logging
import socket
import socketserver
import sys
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, TypeAlias

from edged.config import split_address
from edged.core.errors import WrongState
from edged.runtime.workers import Crew, Worker

log = logging.getLogger(__name__)

REQUEST_SECONDS = 2.0
"""A scraper that is slower than this to send its request, or to take the answer, is cut off."""
POLL_SECONDS = 0.2

Page: TypeAlias = Callable[[str], tuple[bytes, str]]
"""What a client accepts -> the page and its content type."""


class MetricsServer:
    """Answers `GET /metrics` on `listen` (host:port on loopback; port 0 takes a free one).

    One worker, `metrics`, one request at a time: a scrape takes milliseconds, and the slowest
    client holds the others for REQUEST_SECONDS at most.
    """

    def __init__(self, listen: str, page: Page, crew: Crew) -> None:
        self._listen, self._page, self._crew = listen, page, crew
        self._server: _Server | None = None
        self._worker: Worker | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one after `start`."""
        return split_address(self._listen) if self._server is None else self._server.bound

    def start(self) -> None:
        """Take the port and begin to answer. Raises WrongState if the port cannot be had."""
        try:
            self._server = _Server(split_address(self._listen), self._page)
        except OSError as error:
            why = {
                errno.EADDRINUSE: "is in use; another edged may be running. Choose another port",
                errno.EACCES: "needs root; choose a port above 1023",
                errno.EADDRNOTAVAIL: "is no address of this machine; use 127.0.0.1",
            }.get(error.errno or 0, f"cannot be used ({error.strerror or error})")
            raise WrongState(f"metrics: {self._listen} {why} ([metrics] listen).") from error
        self._worker = self._crew.start("metrics", self._server.run)

    def close(self) -> None:
        """Give the port back; safe to call twice and before `start`."""
        if self._worker is not None:
            self._worker.stop.set()
            self._worker.join(POLL_SECONDS + 3 * REQUEST_SECONDS)
            self._worker = None
        self._server = None


class _Server(socketserver.TCPServer):
    allow_reuse_address = True  # else a restart waits until old connections are forgotten
    timeout = POLL_SECONDS

    def __init__(self, address: tuple[str, int], page: Page) -> None:
        self.page = page
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, _Scrape)
        self.socket.settimeout(POLL_SECONDS)  # a client that left before accept blocks nobody

    @property
    def bound(self) -> tuple[str, int]:
        """Host and port as the kernel knows them."""
        host, port = self.socket.getsockname()[:2]
        return str(host), int(port)

    def run(self, worker: Worker) -> None:
        """Serve until told to stop, on the worker's thread; gives the port back."""
        with self:
            while not worker.stop.is_set():
                worker.beat()
                self.handle_request()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that left is its own affair; anything else is a fault of ours."""
        gone = isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError))
        log.log(logging.DEBUG if gone else logging.ERROR, "metrics: a scrape failed", exc_info=True)


class _Scrape(BaseHTTPRequestHandler):
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Bounded(self.connection))
        self.connection.settimeout(REQUEST_SECONDS)

    def do_GET(self) -> None:
        """Answer with the counts, in the form that the client prefers."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(HTTPStatus.NOT_FOUND, "The metrics are at /metrics")
            return
        body, kind = self.server.page(self.headers.get("Accept", ""))
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes are not worth a line each."""


class _Bounded(io.RawIOBase):
    """Reads a request with one limit for all of it: a socket's own begins anew at each byte."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + REQUEST_SECONDS

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request did not arrive in time")
        self._connection.settimeout(left)
        count = self._connection.recv_into(buffer)
        self._connection.settimeout(REQUEST_SECONDS)
        return count
