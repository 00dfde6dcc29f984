"""A real MQTT broker and a subscriber, for tests. Loopback only, nothing is left behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

SHIPPED = Path(__file__).parents[2] / "configs" / "mosquitto.conf"


def require_mosquitto() -> str:
    """The broker's executable, or skip the test (fail it when EDGED_REQUIRE_ALL=1)."""
    path = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if path is None:
        missing = "mosquitto (Debian package) is not installed"
        if os.environ.get("EDGED_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether somebody takes connections there."""
    try:
        with socket.create_connection((host, port), timeout=1):
            return True
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Whether `true()` became true in time; for things in other processes that tell nobody."""
    pause = threading.Event()
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        pause.wait(0.01)
    return True


class Mosquitto:
    """A mosquitto of its own in a temporary folder; `with Mosquitto() as broker: broker.port`.

    extra: further lines of its configuration (`acl_file`, `password_file`, ...).
    persistence: keep messages across `kill`, saved at each change.
    started: False = choose the port, but stay away until `start`.
    shipped: with configs/mosquitto.conf, whose port and folder alone are replaced; `persistence`
    and `anonymous` are then the file's. host: the address it listens on.
    """

    def __init__(
        self,
        extra: Sequence[str] = (),
        *,
        persistence: bool = False,
        anonymous: bool = True,
        started: bool = True,
        shipped: bool = False,
        host: str = "127.0.0.1",
    ) -> None:
        self.host, self.port = host, 0
        self._executable = require_mosquitto()
        self._extra = tuple(extra)
        self._persistence = persistence
        self._anonymous = anonymous
        self._started = started
        self._shipped = shipped
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path()

    def __enter__(self) -> Mosquitto:
        self._folder = Path(tempfile.mkdtemp(prefix="edged-broker-"))
        self.port = free_port()
        lines = [
            *(self._shipped_lines() if self._shipped else self._own_lines()),
            # Run by root it would become `mosquitto`, who cannot read the test's folders.
            *(["user root"] if os.geteuid() == 0 else []),
            *self._extra,
        ]
        (self._folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        if self._started:
            self.start()
        return self

    def _own_lines(self) -> list[str]:
        return [
            f"listener {self.port} {self.host}",
            f"allow_anonymous {str(self._anonymous).lower()}",
            "set_tcp_nodelay true",
            "log_dest stderr",
            f"persistence {str(self._persistence).lower()}",
            f"persistence_location {self._folder}/",
            *(["autosave_on_changes true", "autosave_interval 1"] if self._persistence else []),
        ]

    def _shipped_lines(self) -> list[str]:
        text = SHIPPED.read_text(encoding="utf-8")
        text = text.replace("listener 1883 127.0.0.1", f"listener {self.port} {self.host}")
        return text.replace("/var/lib/mosquitto/", f"{self._folder}/").splitlines()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def log(self) -> str:
        """What the broker has said."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Run it, on the same port as before; returns when it takes connections."""
        with (self._folder / "log").open("ab") as sink:
            self._process = subprocess.Popen(
                [self._executable, "-c", str(self._folder / "mosquitto.conf")],
                stdout=sink,
                stderr=sink,
            )
        process = self._process
        if not wait_until(lambda: process.poll() is not None or answers(self.port, self.host)):
            pytest.fail(f"mosquitto does not answer on port {self.port}:\n{self.log}")
        if process.poll() is not None:
            pytest.fail(f"mosquitto ended with {process.returncode}:\n{self.log}")

    def stop(self) -> None:
        """End it in order (SIGTERM)."""
        self._end(lambda process: process.terminate())

    def kill(self) -> None:
        """End it as a power cut would (SIGKILL)."""
        self._end(lambda process: process.kill())

    def pause(self) -> None:
        """Stop answering, connections stay open (SIGSTOP)."""
        if self._process is not None:
            self._process.send_signal(19)

    def resume(self) -> None:
        """Go on after `pause`."""
        if self._process is not None:
            self._process.send_signal(18)

    def _end(self, how: Callable[[subprocess.Popen[bytes]], None]) -> None:
        process, self._process = self._process, None
        if process is not None:
            how(process)
            process.wait(10)


class Received(NamedTuple):
    """One message as the subscriber got it; `expires` in seconds or None."""

    topic: str
    payload: bytes
    retained: bool
    qos: int
    expires: int | None
    at_ns: int
    """`time.monotonic_ns()` at arrival."""


class Subscriber:
    """A client that keeps what it receives, subscribed when `with` is entered.

    It survives a broker that goes away and subscribes again when it is back.
    """

    def __init__(
        self,
        port: int,
        *topics: str,
        username: str | None = None,
        password: str | None = None,
        session: str | None = None,
        five: bool = True,
    ) -> None:
        """`session` names a lasting session: the broker keeps messages while we are away."""
        self.messages: list[Received] = []
        self._topics = topics or ("#",)
        self._changed = threading.Condition()
        self._subscribed = False
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=session or f"test-{os.getpid()}-{id(self):x}",
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            clean_session=None if five else session is None,
        )
        client.reconnect_delay_set(1, 1)
        if username is not None:
            client.username_pw_set(username, password)
        client.on_connect = self._connected
        client.on_subscribe = self._ready
        client.on_message = self._arrived
        client.on_disconnect = self._left
        client.on_socket_open = no_delay
        properties = None
        if five and session:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
        client.connect_async(
            "127.0.0.1", port, 10, clean_start=session is None, properties=properties
        )

    def __enter__(self) -> Subscriber:
        self._client.loop_start()
        if not self.wait_subscribed():
            self.__exit__(None, None, None)
            pytest.fail("the test's subscriber cannot subscribe")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_subscribed(self, timeout: float = 10.0) -> bool:
        """Whether the broker has confirmed the subscription (again) in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._subscribed, timeout)

    def wait_for(self, count: int, timeout: float = 10.0, topic: str = "") -> list[Received]:
        """The messages whose topic ends with `topic`, once there are `count`; fails if too few."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._of(topic)) >= count, timeout)
            found = self._of(topic)
        if len(found) < count:
            pytest.fail(f"{len(found)} of {count} messages of {topic or 'any topic'} arrived")
        return found

    def of(self, topic: str = "") -> list[Received]:
        """The messages so far whose topic ends with `topic`."""
        with self._changed:
            return self._of(topic)

    def wait_match(
        self, true: Callable[[Received], bool], timeout: float = 10.0
    ) -> Received | None:
        """The first message for which `true` holds, or None if none came in time."""
        with self._changed:
            self._changed.wait_for(lambda: any(map(true, self.messages)), timeout)
            return next(filter(true, self.messages), None)

    def _of(self, topic: str) -> list[Received]:
        return [message for message in self.messages if message.topic.endswith(topic)]

    def _connected(self, client: Any, userdata: Any, flags: Any, reason: Any, props: Any) -> None:
        if client.protocol == paho.MQTTv5:
            client.subscribe([(t, SubscribeOptions(qos=1)) for t in self._topics])
        else:
            client.subscribe([(t, 1) for t in self._topics])

    def _ready(self, client: Any, userdata: Any, mid: Any, reasons: Any, props: Any) -> None:
        with self._changed:
            self._subscribed = True
            self._changed.notify_all()

    def _left(self, client: Any, userdata: Any, flags: Any, reason: Any, props: Any) -> None:
        with self._changed:
            self._subscribed = False

    def _arrived(self, client: Any, userdata: Any, message: Any) -> None:
        now = time.monotonic_ns()
        expires = getattr(message.properties, "MessageExpiryInterval", None)
        received = Received(
            message.topic, message.payload, bool(message.retain), message.qos, expires, now
        )
        with self._changed:
            self.messages.append(received)
            self._changed.notify_all()


def no_delay(client: Any, userdata: Any, sock: Any) -> None:
    """For `on_socket_open`: Nagle's algorithm would add tens of milliseconds to an answer."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
