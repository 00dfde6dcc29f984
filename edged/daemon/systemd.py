"""What edged tells systemd: sd_notify(3) in plain Python.

Owns the datagrams to $NOTIFY_SOCKET. It must not decide whether the daemon is healthy: whoever
calls `watchdog` has asked the crew first. A supervisor that does not listen is logged and is
never an error of the daemon: inspecting goes on.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping

log = logging.getLogger(__name__)

SEND_SECONDS = 1.0
"""A supervisor with a full socket holds the caller no longer than this."""


class Notifier:
    """Speaks to the service manager that started the process, or to nobody.

    `environ` is read once, here. Methods may be called on any thread, and never raise.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        self._address = environ.get("NOTIFY_SOCKET", "")
        self._interval = _watchdog_seconds(environ)

    @property
    def watchdog_interval(self) -> float | None:
        """Seconds without `watchdog` after which systemd kills the process; None = it does not.

        Call `watchdog` at a third of this, so that one late call is not the end.
        """
        return self._interval

    def ready(self, status: str) -> None:
        """Everything asked for runs: units that wait for edged may start. `status` as below."""
        self._send("READY=1", _status(status))

    def status(self, text: str) -> None:
        """One line of plain words, shown by `systemctl status`."""
        self._send(_status(text))

    def watchdog(self) -> None:
        """All workers were alive a moment ago."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """Start or stop goes on: do not lose patience for another `seconds`. Call it again."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1_000_000)}")

    def stopping(self) -> None:
        """The daemon takes no new work and will exit by itself."""
        self._send("STOPPING=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        # A leading @ stands for the NUL byte of the abstract namespace.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                out.settimeout(SEND_SECONDS)
                out.connect(address)
                out.sendall("\n".join(lines).encode("utf-8", "replace"))
        except OSError as error:
            log.warning(
                "systemd was not told %s: %s does not answer (%s)",
                lines[0],
                self._address,
                error.strerror or error,
            )


def _status(text: str) -> str:
    # A line break would begin another field of the protocol.
    return "STATUS=" + " ".join(text.split())


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    micros = environ.get("WATCHDOG_USEC", "")
    if not micros.isdecimal() or int(micros) == 0:
        return None
    # The variables are inherited: a child process of the one that is watched is not watched.
    pid = environ.get("WATCHDOG_PID", "")
    if pid and pid != str(os.getpid()):
        return None
    return int(micros) / 1_000_000
