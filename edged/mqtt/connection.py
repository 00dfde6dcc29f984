"""One connection to an MQTT broker, and the thread that has it: the home of paho.

Owns the socket, TLS, what is sent and what comes in, and the loop of a sink's worker. It must not
decide what is sent, nor act on what came: that is the sink's, which the loop asks in turn.

Decision: a paho client lives for one connection. A new one starts with no memory, so paho has
nothing to replay, late or twice. Its loop is driven from the worker, so nothing here is shared
and nothing needs a lock.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from edged.config import MqttConfig
from edged.core.errors import MissingDependency, SinkError
from edged.mqtt.credentials import Access
from edged.mqtt.dialling import Dialler
from edged.outbox.writer import Inbox
from edged.runtime.workers import Crew, Deadline, Worker

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
    from paho.mqtt.subscribeoptions import SubscribeOptions
except ImportError as error:
    raise MissingDependency("paho-mqtt", "mqtt", "Publishing by MQTT") from error

log = logging.getLogger(__name__)

_ASLEEP_NS = 200_000  # a poll that took as long has waited
FAREWELL_SECONDS = 1.0
"""For the last words of a connection."""
TICK_SECONDS = 0.02
"""The shortest sleep for a timer; whoever has news wakes the worker at once."""
WINDOW = 20
"""Messages out and unanswered, at most; less if the broker says so (Receive Maximum)."""


class Will(NamedTuple):
    """What the broker says for us when the connection breaks."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


class Arrival(NamedTuple):
    """A message that came; `at_ns`: `time.monotonic_ns()` at the latest when it was not yet there.

    When nobody was reading just then, this is when the socket was last seen empty: a deadline
    must not begin later than its message came.
    """

    topic: str
    payload: bytes
    retained: bool
    at_ns: int


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


class PahoLink:
    """One connection from dialling to its end. `dial` blocks; the rest is for the worker."""

    def __init__(self, config: MqttConfig, access: Access, five: bool, will: Will) -> None:
        self.five = five
        self.dialled = False
        self.greeted = False
        """CONNECT has been sent, with the will in it."""
        self.since = 0.0
        self.up = False
        self.lost = ""
        self.refusal = 0
        self.hung_up = False
        self.abandoned = False
        self.window = WINDOW
        self.answers: list[tuple[int, int, str]] = []
        """(message number, MQTT 5 reason code, its words), as they came."""
        self.arrived: list[Arrival] = []
        """What came on the subscribed topics, as it came."""
        self._empty_ns = time.monotonic_ns()
        """When nothing was waiting to be read."""
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=access.client_id,
            clean_session=None if five else True,
            protocol=paho.MQTTv5 if five else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages_set(0)  # the window is ours
        client.suppress_exceptions = True
        if access.username is not None:
            client.username_pw_set(access.username, access.password)
        if access.tls is not None:
            client.tls_set_context(access.tls)
        client.will_set(will.topic, will.payload, qos=will.qos, retain=will.retain)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._answered
        client.on_message = self._arrived
        client.on_subscribe = self._subscribed
        client.on_socket_open = _no_delay
        session = None
        if five:
            session = _properties(PacketTypes.CONNECT)
            session.SessionExpiryInterval = 0
        client.connect_async(
            config.host,
            config.port,
            config.keepalive,
            clean_start=True,
            properties=session,
        )

    def dial(self) -> None:
        """Resolve, connect, shake hands, send CONNECT. The dialling thread; may take seconds."""
        try:
            self._client.reconnect()
            self.greeted = True
        except (OSError, ValueError) as error:
            self.lost = f"cannot connect: {error}"
        self.since = time.monotonic()
        self.dialled = True
        if self.abandoned:
            self.end(politely=False)

    @property
    def blocked(self) -> bool:
        """The broker does not take what was sent; more would pile up here."""
        return self._client.want_write()

    def wait(self, seconds: float, *wakes: int) -> None:
        """Sleep until the broker, a readable descriptor of `wakes` or the time comes.

        Then read answers, write what is left to write, and keep the connection alive.
        """
        client = self._client
        sock: Any = client.socket()
        poller = select.poll()
        for descriptor in wakes:
            poller.register(descriptor, select.POLLIN)
        if sock is not None:
            what = select.POLLIN | (select.POLLOUT if client.want_write() else 0)
            poller.register(sock, what)
        began = time.monotonic_ns()
        # Up to the next millisecond: rounded down, it would spin through the last one.
        events = dict(poller.poll(max(0, math.ceil(seconds * 1000))))
        woken = time.monotonic_ns()
        if woken - began > _ASLEEP_NS:
            self._empty_ns = woken  # we slept, so nothing was there until now
        if sock is None or client.socket() is None:
            self.lost = self.lost or "the connection was lost"
            return
        if events.get(sock.fileno(), 0) & ~select.POLLOUT:
            self._read()
        else:
            self._empty_ns = began
        if not _readable(client.socket()):
            self._empty_ns = time.monotonic_ns()
        if client.want_write():
            client.loop_write()
        client.loop_misc()

    def _read(self) -> None:
        client = self._client
        client.loop_read()
        sock: Any = client.socket()
        while isinstance(sock, ssl.SSLSocket) and sock.pending():
            client.loop_read()
            sock = client.socket()
        if sock is not None:
            # A broker without TCP_NODELAY holds its answers back until ours have arrived.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def subscribe(self, topics: Mapping[str, int], retained: bool = False) -> None:
        """Ask for these topics, each at its QoS; MQTT 3.1.1 sends retained messages anyway."""
        if not topics:
            return
        wanted: list[tuple[str, Any]] = list(topics.items())
        if self.five:
            wanted = [
                (t, SubscribeOptions(q, retainHandling=0 if retained else 2))
                for t, q in topics.items()
            ]
        self._client.subscribe(wanted)

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, expires: int) -> int:
        """Send; the number that the answer will bear, or 0 if the connection has just ended.

        expires: seconds after which the broker lets go of it, with MQTT 5; 0 = never.
        """
        properties = None
        if expires and self.five:
            properties = _properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expires
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != paho.MQTT_ERR_SUCCESS:
            self.lost = self.lost or "the connection broke while sending"
            return 0
        return info.mid

    def end(self, politely: bool) -> None:
        """Close the connection; politely = tell the broker, so that it keeps the will to itself."""
        client = self._client
        if politely:
            client.disconnect()
        for name in ("on_connect", "on_disconnect", "on_publish", "on_socket_open", "on_message"):
            setattr(client, name, None)
        sock = client.socket()
        if sock is not None:
            sock.close()

    def _connected(
        self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        if reason.is_failure:
            self.refusal = reason.value
            self.lost = f"the broker refuses the connection: {reason}"
            return
        self.window = max(1, min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW)))
        self.up = True

    def _disconnected(
        self, client: Any, userdata: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self.hung_up = True
        if flags.is_disconnect_packet_from_server:
            self.refusal = self.refusal or reason.value
            self.lost = self.lost or f"the broker ended the connection: {reason}"
        self.lost = self.lost or f"the connection was lost: {reason}"

    def _arrived(self, client: Any, userdata: Any, message: Any) -> None:
        at = self._empty_ns
        self.arrived.append(Arrival(message.topic, message.payload, bool(message.retain), at))

    def _subscribed(
        self, client: Any, userdata: Any, mid: int, reasons: Any, properties: Any
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        if refused:
            log.error(
                "the MQTT broker refuses a subscription (%s): triggers and commands do not arrive; "
                "check the broker's access list",
                refused[0],
            )

    def _answered(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        words = reason.getName() if reason.is_failure else ""
        self.answers.append((mid, reason.value, words))


class Conversation(Protocol):
    """What a sink says and hears on its connection. On its worker's thread."""

    def turned(self, link: PahoLink | None, words: str) -> None:
        """The connection is up; or, with None, it ended or was tried in vain, and why."""

    def work(self, link: PahoLink | None, now: float) -> float:
        """Do what is due; when there is more to do, if nothing comes before."""

    def heard(self, link: PahoLink) -> None:
        """Act on what came, which is taken away: `link.arrived`, `link.answers`."""

    def finished(self, link: PahoLink | None, stopped: float) -> bool:
        """At a stop, `stopped` seconds ago: whether all that can be said is said."""

    def farewell(self, link: PahoLink) -> None:
        """The last words, and the end of the connection."""


class BrokerWorker:
    """The worker `outbox-<name>`: keeps a sink's connection and lets it talk.

    Dialling blocks, and is done elsewhere (dialling.py). `start` and `close` on main.
    """

    def __init__(
        self,
        name: str,
        talk: Conversation,
        inbox: Inbox[Any],
        crew: Crew,
        deadline: Deadline,
        seconds: float,
    ) -> None:
        """inbox: where a message wakes the worker. seconds: of a stop, if the deadline has them."""
        self._name = name
        self._talk = talk
        self._inbox = inbox
        self._crew = crew
        self._deadline = deadline
        self._seconds = seconds
        self._worker: Worker | None = None
        self._give_up = float("inf")
        self._dialler: Dialler[PahoLink] | None = None

    def start(self, config: MqttConfig, make: Callable[[bool], PahoLink]) -> None:
        """Begin to dial; a broker that is away is no error. make: a link, MQTT 5 or not."""
        version = config.version

        def link(five: bool) -> PahoLink:
            return make(five if version == "auto" else version == "5")

        self._inbox.open()
        broker, wake = f"{config.host}:{config.port}", self._inbox.wake
        self._dialler = Dialler(broker, link, self._crew, wake, falls_back=version == "auto")
        self._worker = self._crew.start(f"outbox-{self._name}", self._run)

    @property
    def under_way(self) -> bool:
        """A connection is being made and may be there soon. Worker thread."""
        return self._dialler is not None and self._dialler.under_way

    def close(self) -> bool:
        """Let it say the rest, within the deadline; False if it did not run, or is stuck."""
        worker, self._worker = self._worker, None
        if worker is None:
            return False
        seconds = self._deadline.remaining(self._seconds)
        self._give_up = time.monotonic() + max(0.0, seconds - FAREWELL_SECONDS)
        worker.stop.set()
        self._inbox.wake()
        ended = worker.join(seconds + 2 * FAREWELL_SECONDS)
        if not ended:
            log.error("sink %s: stuck in the disk or the network; leaving it", self._name)
        return ended

    def _run(self, worker: Worker) -> None:
        dialler, talk, stopped = self._dialler, self._talk, 0.0
        if dialler is None:
            raise SinkError(f"The sink {self._name} is not started.")
        try:
            while True:
                worker.beat()
                now = time.monotonic()
                if worker.stop.is_set() and not stopped:
                    stopped = now
                if change := dialler.attend(now, bool(stopped)):
                    up, words = change
                    talk.turned(dialler.link if up else None, words)
                due = talk.work(dialler.link, now)
                if stopped and now >= self._give_up:
                    break
                if stopped and talk.finished(dialler.link, now - stopped):
                    break
                self._rest(dialler, min(due, dialler.due), now)
            if dialler.link is not None:
                talk.farewell(dialler.link)
        finally:
            dialler.put_down()

    def _rest(self, dialler: Dialler[PahoLink], until: float, now: float) -> None:
        """Sleep until something comes, at most a second (the beat); then let the sink hear it."""
        until = max(min(until, now + 1.0), now + TICK_SECONDS)
        asleep = self._inbox.rest()
        seconds = until - time.monotonic() if asleep else 0.0
        if (link := dialler.readable) is not None:
            link.wait(seconds, self._inbox.fileno)
        else:
            poller = select.poll()
            poller.register(self._inbox.fileno, select.POLLIN)
            poller.poll(max(0, round(seconds * 1000)))
        if asleep:
            self._inbox.rise()
        if dialler.link is not None:
            self._talk.heard(dialler.link)


def _readable(sock: Any) -> bool:
    if sock is None:
        return False
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return bool(poller.poll(0))


def _no_delay(client: Any, userdata: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
