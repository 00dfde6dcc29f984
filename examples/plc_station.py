"""A PLC's side of one station over MQTT: the transaction, whatever the payload looks like.

    state      ->  is the station ready, and does its heartbeat still move?
    trigger    <-  this part is in view now; again until the ack is there
    ack        ->  taken, or missed and why
    result     ->  the one answer to (part, seq)
    delivered  <-  up to this seq the results have been acted on

A PLC keeps `seq` in retained memory, for it must rise across restarts, too; here a clock stands in
for that: it begins with the hundredths of a second since 1970, and no part takes less than one.
"""

from __future__ import annotations

import json
import queue
import socket
import time
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

OK, NOT_OK = 1, 2
"""`eval`; 3 is not decidable."""
SIMULATED = 10
"""`code` of a part that was judged, but that no real camera saw."""
SHUTDOWN, NO_RECORD, BAD_TRIGGER = 7, 11, 13
WITHOUT_RESULT = (SHUTDOWN, NO_RECORD, BAD_TRIGGER)
"""`code` of an ack after which no result comes."""
READY = b'"st":"ready"'
"""In `state`. Looked for as text, since a PLC that reads structs parses no JSON."""
HEARTBEAT_SECONDS = 15.0
"""A state that was not said again for so long is none, whatever it says."""
RESEND_SECONDS = 0.5
MARGIN_SECONDS = 1.0
"""Beyond the deadline, for the way of trigger and result."""


class Ack(NamedTuple):
    """The answer to a trigger; seq None: it was so wrong that it had none."""

    seq: int | None
    taken: bool
    code: int


class Result(NamedTuple):
    """The answer to a part; score and threshold from 0 to 1."""

    seq: int
    part: str
    ok: int
    eval: int
    code: int
    score: float
    threshold: float
    t_ms: int


class Form(Protocol):
    """How trigger, ack and result are written: plc_json.py, plc_struct.py."""

    def trigger(self, part: str, seq: int, deadline_ms: int) -> bytes:
        """The payload of a trigger."""

    def ack(self, payload: bytes) -> Ack:
        """What an ack says."""

    def result(self, payload: bytes) -> Result:
        """What a result says."""


def decide(result: Result | None) -> str:
    """What the PLC does with the part. Only `ok` may let a part through.

    A missing result is a reject: the PLC's own timer is the safety net.
    """
    if result is None or result.eval == NOT_OK:
        return "eject"
    if result.ok == 1:
        return "pass"
    if result.eval == OK and result.code == SIMULATED:
        return "pass (rehearsal: the part is simulated, so ok is 0 and a line would hold it)"
    return "hold"


def describe(result: Result | None) -> str:
    """A result for people."""
    if result is None:
        return "no result"
    word = {OK: "OK", NOT_OK: "NOT OK"}.get(result.eval, "no verdict")
    figures = f"score {result.score:.4f}, threshold {result.threshold:.4f}"
    return f"{word:10}  {figures}  code {result.code}  {result.t_ms} ms"


class PlcStation:
    """One station as a PLC sees it; `with PlcStation(...) as station`. All calls on one thread."""

    def __init__(self, host: str, port: int, topic: str, form: Form) -> None:
        self._topic = topic
        self._form = form
        self._address = (host, port)
        self._events: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._ready = False
        self._heard = 0.0
        # Most PLCs speak 3.1.1; with it the broker keeps no message for a client that was away.
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv311)
        self._client.on_connect = self._connected
        self._client.on_message = self._arrived
        self._client.on_socket_open = _no_delay

    def __enter__(self) -> PlcStation:
        try:
            self._client.connect(*self._address, keepalive=10)
        except OSError as error:
            host, port = self._address
            raise SystemExit(f"No broker answers at {host}:{port} ({error}).") from None
        self._client.loop_start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait_ready(self, seconds: float) -> bool:
        """Whether the station is ready, now or within `seconds`."""
        give_up = time.monotonic() + seconds
        while not self._is_ready():
            if self._next(give_up) is None:
                return self._is_ready()
        return True

    def inspect(self, part: str, seq: int, deadline_ms: int) -> tuple[Ack | None, Result | None]:
        """Trigger one part and wait for its answer; None for what did not come."""
        trigger = self._form.trigger(part, seq, deadline_ms)
        give_up = time.monotonic() + deadline_ms / 1000 + MARGIN_SECONDS
        ack: Ack | None = None
        self._client.publish(f"{self._topic}/trigger", trigger, qos=1)
        again = time.monotonic() + RESEND_SECONDS
        while time.monotonic() < give_up:
            event = self._next(give_up if ack else min(again, give_up))
            if event is None:
                if ack is None:  # sent again it has its ack again, and still one result
                    self._client.publish(f"{self._topic}/trigger", trigger, qos=1)
                    again = time.monotonic() + RESEND_SECONDS
                continue
            word, payload = event
            if word == "ack" and (said := self._form.ack(payload)).seq in (seq, None):
                ack = said
                if ack.code in WITHOUT_RESULT:
                    return ack, None
            if word == "result":
                result = self._form.result(payload)
                if (result.seq, result.part) == (seq, part):
                    return ack, result
        return ack, None

    def delivered(self, seq: int) -> None:
        """Say that the part of this result, and of all before, was dealt with."""
        self._client.publish(f"{self._topic}/delivered", json.dumps({"seq": seq}), qos=1)

    def _is_ready(self) -> bool:
        return self._ready and time.monotonic() - self._heard < HEARTBEAT_SECONDS

    def _next(self, until: float) -> tuple[str, bytes] | None:
        """The next message, or None when none came in time."""
        try:
            return self._events.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def _connected(self, client: mqtt.Client, *_: Any) -> None:
        # Here and not after `connect`: after a broken connection they must be asked for again.
        client.subscribe([(f"{self._topic}/{word}", 1) for word in ("state", "ack", "result")])

    def _arrived(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        word, payload = message.topic.rpartition("/")[2], bytes(message.payload)
        if word == "state":
            self._ready, self._heard = READY in payload, time.monotonic()
        self._events.put((word, payload))


def _no_delay(_client: Any, _data: Any, sock: Any) -> None:
    """Without TCP_NODELAY on every side an answer takes 24 to 68 ms longer."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def run(station: PlcStation, parts: int, deadline_ms: int) -> int:
    """Inspect so many parts and print what becomes of each; the program's exit code."""
    if not station.wait_ready(30.0):
        print("the station is not ready")
        return 1
    print("ready")
    missing = 0
    first = int(time.time() * 100) % 2**32
    for seq in range(first, first + parts):
        part = f"P-{seq}"
        if not station.wait_ready(HEARTBEAT_SECONDS):
            print("the station is not ready any more")
            return 1
        ack, result = station.inspect(part, seq, deadline_ms)
        if ack is None:
            print(f"{part}  no ack")
        elif not ack.taken:
            print(f"{part}  missed, code {ack.code}")
        print(f"{part}  {describe(result)}  -> {decide(result)}")
        if result is None:
            missing += 1
        else:
            station.delivered(seq)
    return 1 if missing else 0
