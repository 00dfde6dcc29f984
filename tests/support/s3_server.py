"""moto's S3 server in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ANSWER_SECONDS = 30.0


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """A server on a free port, its log in `folder`; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "moto.log").open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=out, stderr=out,
        )  # fmt: skip
        try:
            _until_it_answers(port, server)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.kill()
            server.wait()


def _until_it_answers(port: int, server: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            continue
    pytest.fail("moto's S3 server did not start")
