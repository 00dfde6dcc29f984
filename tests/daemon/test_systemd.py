"""What a service manager hears: a real socket of the test is its ear."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edged.daemon.systemd import Notifier
from tests.conftest import HEIGHT, WIDTH

SECONDS = 60


class Manager:
    """The socket of a service manager, and the environment it gives to a service."""

    def __init__(self, address: str) -> None:
        self.environ = {"NOTIFY_SOCKET": address}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(SECONDS)

    def heard(self) -> list[str]:
        """The lines of the next datagram."""
        return self._socket.recv(4096).decode().split("\n")

    def nothing(self) -> bool:
        """Whether no datagram waits."""
        self._socket.setblocking(False)
        try:
            self._socket.recv(4096)
        except BlockingIOError:
            return True
        finally:
            self._socket.settimeout(SECONDS)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    name = f"edged-test-{uuid.uuid4().hex}"
    ear = Manager(f"@{name}" if request.param == "abstract" else str(tmp_path / "notify"))
    yield ear
    ear.close()


SAID: list[tuple[Callable[[Notifier], None], list[str]]] = [
    (lambda n: n.ready("2 models hosted"), ["READY=1", "STATUS=2 models hosted"]),
    (lambda n: n.status("inspecting"), ["STATUS=inspecting"]),
    (lambda n: n.status("Stra\u00dfe \u2713"), ["STATUS=Stra\u00dfe \u2713"]),
    (lambda n: n.status("one\nREADY=1\r\n two "), ["STATUS=one READY=1 two"]),
    (lambda n: n.status("half \udc80"), ["STATUS=half ?"]),
    (lambda n: n.watchdog(), ["WATCHDOG=1"]),
    (lambda n: n.extend_timeout(1.5), ["EXTEND_TIMEOUT_USEC=1500000"]),
    (lambda n: n.stopping(), ["STOPPING=1"]),
]


def test_each_word_arrives_as_one_datagram_of_the_protocol(manager: Manager) -> None:
    notifier = Notifier(manager.environ)
    for say, lines in SAID:
        say(notifier)
        assert manager.heard() == lines
    assert manager.nothing()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_service_manager_nothing_is_said(
    environ: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier(environ)
    for say, _ in SAID:
        say(notifier)
    assert caplog.records == []


def test_a_service_manager_that_is_gone_is_a_warning_and_no_error(
    manager: Manager, caplog: pytest.LogCaptureFixture
) -> None:
    manager.close()
    with caplog.at_level(logging.WARNING):
        Notifier(manager.environ).ready("hosted")
    (record,) = caplog.records
    address = manager.environ["NOTIFY_SOCKET"]
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"systemd was not told READY=1: {address} does not")


def fill(address: str) -> None:
    """Send until the listener's queue is full also for a sender that has sent nothing yet."""
    sent = 1
    while sent:
        sent = 0
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.connect(address)
            out.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while out.send(b"WATCHDOG=1"):
                    sent += 1


def test_a_service_manager_that_does_not_listen_holds_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    address = str(tmp_path / "notify")
    manager = Manager(address)
    fill(address)
    with caplog.at_level(logging.WARNING):
        Notifier(manager.environ).watchdog()
    manager.close()
    assert "systemd was not told WATCHDOG=1" in caplog.text


def test_the_environment_is_read_once(manager: Manager, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in manager.environ.items():
        monkeypatch.setenv(name, value)
    notifier = Notifier()
    monkeypatch.delenv("NOTIFY_SOCKET")
    notifier.watchdog()
    assert manager.heard() == ["WATCHDOG=1"]
    Notifier().watchdog()
    assert manager.nothing()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 10.0),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getpid())}, 0.5),
        ({"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(os.getppid())}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_watches_only_the_process_it_names(
    environ: dict[str, str], seconds: float | None
) -> None:
    assert Notifier(environ).watchdog_interval == seconds


def test_a_daemon_is_ready_pings_and_says_that_it_stops(
    manager: Manager, model: Path, tmp_path: Path
) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(
        f'state_dir = "state"\n[[models]]\nname = "flange"\npath = "{model}"\n'
        'engine = "onnxruntime"\nunits = 1\n'
        '[[cameras]]\nname = "cam1"\nmodel = "flange"\nkind = "simulated"\n'
        f"width = {WIDTH}\nheight = {HEIGHT}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "edged.cli", "run", "--config", str(config), "--json"]
    environ = {**os.environ, **manager.environ, "WATCHDOG_USEC": "900000"}
    environ.pop("WATCHDOG_PID", None)
    daemon = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
    try:
        assert manager.heard()[0].startswith("EXTEND_TIMEOUT_USEC=")
        assert manager.heard() == ["READY=1", "STATUS=1 of 1 models hosted, 0 of 1 cameras deliver"]
        delivers = ["STATUS=1 of 1 models hosted, 1 of 1 cameras deliver"]
        pings = [lines for _ in range(4) if (lines := manager.heard()) != delivers]
        assert pings == [["WATCHDOG=1"]] * len(pings)
        assert len(pings) >= 3
        daemon.send_signal(signal.SIGINT)
        while (lines := manager.heard()) in (["WATCHDOG=1"], delivers):
            continue
        assert lines == ["STOPPING=1"]
        assert manager.heard()[0].startswith("EXTEND_TIMEOUT_USEC=")
        said, _ = daemon.communicate(timeout=SECONDS)
    finally:
        daemon.kill()
        daemon.wait()
    assert daemon.returncode == 0
    assert json.loads(said)["inspections"] > 0
    assert manager.nothing()
