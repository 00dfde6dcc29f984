"""Results by MQTT: the home of paho.

    <prefix>/<camera>/result   what the PLC acts on: now or never, not retained, expires in 10 s
    <prefix>/<camera>/full     the record: from the outbox, in order, until the broker has it
    <prefix>/state             retained: {"v":1,"st":"ready","hb":n}, n rising every 5 s; last will

Owns the connection, which record travels when, and what an answer means. One worker thread does
everything but dialling (which blocks): paho's loop is driven from there, so nothing here is
shared and nothing needs a lock. It must not block the inspecting threads or take its word for
the PLC's: an acknowledgement says that the broker has the record, no more.

Decision: a paho client lives for one connection. A new one starts with no memory, so paho has
nothing to replay, late or twice; the outbox is the only memory there is.
"""

from __future__ import annotations

import logging
import math
import select
import socket
import ssl
import time
from pathlib import Path
from typing import Any

from edged.config import MqttConfig
from edged.core.errors import MissingDependency, SinkError
from edged.core.observer import Observer
from edged.core.types import Inspection
from edged.core.workers import Crew, Deadline, Worker
from edged.sinks.access import Access, read
from edged.sinks.courier import OFFLINE, Courier, State
from edged.sinks.delivery import Inbox, Message, Replay, Writer
from edged.sinks.dialling import Dialler
from edged.sinks.outbox import Outbox
from edged.wire import results

try:
    import paho.mqtt.client as paho
    from paho.mqtt.enums import CallbackAPIVersion
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties
except ImportError as error:
    raise MissingDependency("paho-mqtt", "mqtt", "Publishing by MQTT") from error

log = logging.getLogger(__name__)

WINDOW = 20
"""Messages out and unanswered, at most; less if the broker says so (Receive Maximum)."""
RESULT_EXPIRY_SECONDS = 10
_ACCEPT_SECONDS = 1.0
_CLOSE_SECONDS = 10.0
_FAREWELL_SECONDS = 1.0
_UNDERWAY_SECONDS = 0.5
_TICK_SECONDS = 0.02  # the shortest sleep for a timer; whoever has news wakes us at once


def _properties(packet: int) -> Properties:
    return Properties(packet)  # type: ignore[no-untyped-call]


_EXPIRING = _properties(PacketTypes.PUBLISH)
_EXPIRING.MessageExpiryInterval = RESULT_EXPIRY_SECONDS


class _Link:
    """One connection from dialling to its end. `dial` blocks; the rest is for the worker."""

    def __init__(self, config: MqttConfig, access: Access, five: bool) -> None:
        self.five = five
        self.dialled = False
        self.since = 0.0
        self.up = False
        self.lost = ""
        self.refusal = 0
        self.hung_up = False
        self.abandoned = False
        self.window = WINDOW
        self.answers: list[tuple[int, int, str]] = []
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
        client.will_set(f"{config.prefix}/state", OFFLINE, qos=1, retain=True)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_publish = self._answered
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
        # Up to the next millisecond: rounded down, it would spin through the last one.
        events = dict(poller.poll(max(0, math.ceil(seconds * 1000))))
        if sock is None or client.socket() is None:
            self.lost = self.lost or "the connection was lost"
            return
        if events.get(sock.fileno(), 0) & ~select.POLLOUT:
            self._read()
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

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool, expires: bool) -> int:
        """Send; the number that the answer will bear, or 0 if the connection has just ended."""
        properties = _EXPIRING if expires and self.five else None
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
        for name in ("on_connect", "on_disconnect", "on_publish", "on_socket_open"):
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

    def _answered(self, client: Any, userdata: Any, mid: int, reason: Any, properties: Any) -> None:
        words = reason.getName() if reason.is_failure else ""
        self.answers.append((mid, reason.value, words))


def _no_delay(client: Any, userdata: Any, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _speaks_5(config: MqttConfig, five: bool) -> bool:
    return five if config.version == "auto" else config.version == "5"


class MqttSink:
    """The Sink that publishes by MQTT. See the module for topics, `start` for errors.

    `accept` and `set_state` may be called on any thread, `start` and `close` on main.
    """

    def __init__(
        self,
        config: MqttConfig,
        outbox_path: Path,
        crew: Crew,
        observer: Observer,
        deadline: Deadline,
        name: str = "mqtt",
    ) -> None:
        self._config = config
        self._crew = crew
        self._observer = observer
        self._deadline = deadline
        self._name = name
        self._inbox = Inbox()
        self._outbox = Outbox(outbox_path, config.max_rows)
        self._replay = Replay(self._outbox)
        self._writer = Writer(self._inbox, self._replay, observer, name)
        self._courier = Courier(config.prefix, config.qos, self._replay, observer, name)
        self._state: State = "offline"
        self._worker: Worker | None = None
        self._give_up = float("inf")
        # From here on: the worker's own.
        self._dialler: Dialler[_Link] | None = None
        self._backlog = -1

    @property
    def name(self) -> str:
        """Labels metrics; the thread is `outbox-<name>`."""
        return self._name

    def start(self) -> None:
        """Open the outbox and begin to dial; a broker that is away is no error.

        Raises SinkError if the outbox, the password or a certificate cannot be used.
        """
        access = read(self._config)
        self._outbox.open()
        self._inbox.open()
        config = self._config
        self._dialler = Dialler(
            f"{config.host}:{config.port}",
            lambda five: _Link(config, access, _speaks_5(config, five)),
            self._crew,
            self._inbox.wake,
            falls_back=config.version == "auto",
        )
        self._worker = self._crew.start(f"outbox-{self._name}", self._run)

    def accept(self, inspection: Inspection) -> None:
        """Take one record. Waits at most 1 s for a stalled disk, then raises SinkError.

        One that is refused is not published at all; the result of one taken waits for no disk.
        """
        base = f"{self._config.prefix}/{inspection.frame.source}"
        record = results.dumps(results.full(inspection))
        message = Message(f"{base}/result", results.flat(inspection), f"{base}/full", record)
        try:
            self._inbox.put(message, _ACCEPT_SECONDS)
        except SinkError:
            self._observer.sink_dropped(self._name, "queue_full")
            raise

    def set_state(self, word: State) -> None:
        """What `<prefix>/state` says from now on; `offline` until the first call."""
        self._state = word
        self._inbox.wake()

    def close(self) -> None:
        """Put everything accepted on disk, deliver what can be within the deadline, end."""
        worker, self._worker = self._worker, None
        if worker is None:
            return
        seconds = self._deadline.remaining(_CLOSE_SECONDS)
        self._give_up = time.monotonic() + max(0.0, seconds - _FAREWELL_SECONDS)
        worker.stop.set()
        self._inbox.wake()
        if not worker.join(seconds + 2 * _FAREWELL_SECONDS):
            log.error("MQTT sink: the worker is stuck in the disk or the network; leaving it")
            return
        self._writer.write_the_rest()
        self._inbox.close()
        self._outbox.close()

    def _run(self, worker: Worker) -> None:
        dialler = self._dialler
        if dialler is None:
            raise SinkError("The MQTT sink is not started.")
        stopping_at = 0.0
        try:
            while True:
                worker.beat()
                now = time.monotonic()
                if worker.stop.is_set() and not stopping_at:
                    stopping_at = now
                self._take(dialler.link, now)
                self._attend(dialler, now, bool(stopping_at))
                if dialler.link is not None:
                    self._send(dialler.link, now)
                self._report()
                if stopping_at and self._finished(dialler, now, stopping_at):
                    break
                self._rest(dialler, now)
            if dialler.link is not None:
                self._farewell(dialler.link)
        finally:
            dialler.put_down()

    def _take(self, link: _Link | None, now: float) -> None:
        """Results leave at once; then one transaction for all records that came meanwhile."""
        messages = self._inbox.take()
        self._courier.results(messages, link, now)
        self._writer.write(messages, now)

    def _attend(self, dialler: Dialler[_Link], now: float, stopping: bool) -> None:
        link = dialler.link
        if link is not None and not link.lost and self._courier.stuck(now):
            link.lost = "the broker answers, but acknowledges nothing"
        change = dialler.attend(now, stopping)
        if change is None:
            return
        connected, words = change
        if connected:
            self._courier.connected(now)
        else:
            self._courier.disconnected()
        self._observer.sink_state(self._name, connected, words)

    def _send(self, link: _Link, now: float) -> None:
        self._courier.state(self._state, link, now)
        if now >= self._writer.retry_at:
            try:
                self._courier.records(link, now)
            except SinkError as trouble:
                self._writer.trouble(trouble, now)

    def _report(self) -> None:
        backlog = self._replay.backlog + self._writer.waiting
        if backlog != self._backlog:
            self._backlog = backlog
            self._observer.sink_backlog(self._name, backlog)

    def _finished(self, dialler: Dialler[_Link], now: float, stopping_at: float) -> bool:
        if now >= self._give_up:
            return True
        if self._writer.waiting:
            return False
        if dialler.link is not None:
            return self._courier.idle
        underway = dialler.under_way and self._replay.backlog > 0
        return not underway or now >= stopping_at + _UNDERWAY_SECONDS

    def _rest(self, dialler: Dialler[_Link], now: float) -> None:
        """Sleep until something comes, at most a second (the beat); then read the answers."""
        until = min(now + 1.0, dialler.due, self._writer.due)
        if dialler.link is not None:
            until = min(until, self._courier.due)
        until = max(until, now + _TICK_SECONDS)
        asleep = self._inbox.rest()
        dialler.wait(until - time.monotonic() if asleep else 0.0, self._inbox.fileno)
        if asleep:
            self._inbox.rise()
        self._read(dialler.link)

    def _read(self, link: _Link | None) -> None:
        if link is not None and link.answers:
            now = time.monotonic()
            answers, link.answers = link.answers, []
            for mid, code, words in answers:
                self._courier.answered(mid, code, words, now)

    def _farewell(self, link: _Link) -> None:
        """Say `offline`, wait a moment until the broker has it, part politely."""
        now = time.monotonic()
        until = now + _FAREWELL_SECONDS
        self._courier.goodbye(link, now)
        while not self._courier.said and not link.lost and now < until:
            link.wait(until - now)
            self._read(link)
            now = time.monotonic()
        link.end(politely=True)
