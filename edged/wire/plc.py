"""What a PLC says, as bytes: triggers, acks, commands, deliveries. Pure; the other way of results.

A trigger is a flat JSON object `{"part":"P-1","seq":7,"dl_ms":200}` (dl_ms may be left out), or
the same as 44 bytes for a station that talks in structs. Whatever else comes is refused with a
sentence: a trigger that was guessed at would inspect the wrong part.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Any, NamedTuple

from edged.core.errors import InvalidInput
from edged.core.names import ByteOrder
from edged.core.types import Ack, Reason, TriggerRequest
from edged.wire.results import ABORTED, NOT_DECIDABLE, PACKED, PROCESSING, SIGN

PART = re.compile(r"[A-Za-z0-9._:-]{1,40}")
MOST_SEQUENCE = 2**32 - 1
MOST_SECONDS = 3600.0
MAX_BYTES = 1024
"""A longer message is no request; nothing of it is parsed."""
STRUCT_PART = 32
"""Bytes of a part's name in a struct, without a terminator when it fills them."""
_TRIGGER = "BBHII32s"
TRIGGER_BYTES = struct.calcsize("<" + _TRIGGER)
COMMANDS = ("start", "stop", "recipe")


class Command(NamedTuple):
    """`start`, `stop`, `recipe` with a model; `id` is the sender's and comes back in the reply."""

    word: str
    model: str
    id: str


class Delivery(NamedTuple):
    """How far the receivers are: the PLC's last result, the historian's last record; None = same.

    seq: of the trigger. rec: the record's own number.
    """

    seq: int | None
    rec: int | None


def trigger(payload: bytes, byte_order: ByteOrder | None = None) -> TriggerRequest:
    """The request in a message; a byte order also allows the struct. Raises InvalidInput."""
    if byte_order is not None and len(payload) == TRIGGER_BYTES and payload[:1] == b"\x01":
        return _from_struct(payload, byte_order)
    value = _object(payload)
    part, sequence = value.get("part"), value.get("seq")
    if not isinstance(part, str) or not PART.fullmatch(part):
        raise InvalidInput('"part" must be 1 to 40 letters, digits, ".", "_", ":" or "-".')
    if byte_order is not None and len(part) > STRUCT_PART:
        raise InvalidInput(f'"part" may have {STRUCT_PART} characters at a station with structs.')
    return TriggerRequest(part, _number(sequence, "seq"), _seconds(value.get("dl_ms")))


def trigger_struct(request: TriggerRequest, byte_order: ByteOrder) -> bytes:
    """The 44 bytes of a request: B version 1, B 0, H 0, I seq, I dl_ms (0 = none), 32s part."""
    milliseconds = round((request.deadline or 0) * 1000)
    part = request.part.encode()
    return struct.pack(SIGN[byte_order] + _TRIGGER, 1, 0, 0, request.sequence, milliseconds, part)


def ack(request: TriggerRequest, answer: Ack, byte_order: ByteOrder | None = None) -> bytes:
    """`{"v":1,"seq":7,"part":"P-1","ack":1,"code":0}`; ack 0: missed, and code says why.

    With a byte order the 64 bytes of a result: st 2 = taken, 3 = missed, code says why; ok is 0.
    """
    code = answer.reason.code if answer.reason is not None else 0
    if byte_order is not None:
        state = PROCESSING if answer.accepted else ABORTED
        head = (1, 0, code, request.sequence, state, NOT_DECIDABLE, 0, 0, 0, 0, 0.0, 0.0)
        return struct.pack(SIGN[byte_order] + PACKED, *head, request.part.encode())
    return _dumps(
        {"v": 1, "seq": request.sequence, "part": request.part, "ack": int(answer.accepted)}
        | {"code": code}
    )


def refusal(detail: str) -> bytes:
    """The ack to something that is no trigger: there is no part to name."""
    ascii_only = detail.encode("ascii", "replace").decode().replace('"', "'").replace("\\", "/")
    return _dumps({"v": 1, "ack": 0, "code": Reason.BAD_TRIGGER.code, "text": ascii_only[:160]})


def command(payload: bytes) -> Command:
    """`{"cmd":"recipe","model":"flange","id":"42"}`. Raises InvalidInput."""
    value = _object(payload)
    word, model, id_ = value.get("cmd"), value.get("model", ""), value.get("id", "")
    if word not in COMMANDS:
        raise InvalidInput(f'"cmd" must be one of {", ".join(COMMANDS)}.')
    if not isinstance(model, str) or len(model) > 64 or (word == "recipe") is not bool(model):
        raise InvalidInput('"model" names the model of a recipe, and goes with no other command.')
    if not isinstance(id_, str) or len(id_) > 64 or not id_.isascii() or not id_.isprintable():
        raise InvalidInput('"id" must be at most 64 printable ASCII characters.')
    return Command(word, model, id_)


def reply(command: Command, text: str, done: bool) -> bytes:
    """`{"v":1,"id":"42","cmd":"start","ok":1,"text":"..."}`."""
    return _dumps(
        {"v": 1, "id": command.id, "cmd": command.word, "ok": int(done), "text": text[:512]}
    )


def delivery(payload: bytes) -> Delivery:
    """`{"seq":7}`, `{"rec":1234}` or both. Raises InvalidInput."""
    value = _object(payload)
    seq, rec = value.get("seq"), value.get("rec")
    if seq is None and rec is None:
        raise InvalidInput('give "seq", the last result processed, or "rec", the last record.')
    return Delivery(
        None if seq is None else _number(seq, "seq"),
        None if rec is None else _number(rec, "rec", 2**63 - 1),
    )


def _from_struct(payload: bytes, byte_order: ByteOrder) -> TriggerRequest:
    _, _, _, sequence, milliseconds, raw = struct.unpack(SIGN[byte_order] + _TRIGGER, payload)
    part = raw.rstrip(b"\0").decode("ascii", "replace")
    if not PART.fullmatch(part):
        raise InvalidInput('the part must be 1 to 32 letters, digits, ".", "_", ":" or "-".')
    return TriggerRequest(part, sequence, _seconds(milliseconds or None))


def _object(payload: bytes) -> dict[str, Any]:
    if len(payload) > MAX_BYTES:
        raise InvalidInput(f"the message has {len(payload)} bytes; {MAX_BYTES} are the most.")
    try:
        value = json.loads(payload.decode("ascii"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise InvalidInput("the message is not a JSON object in ASCII.") from None
    if not isinstance(value, dict):
        raise InvalidInput("the message is not a JSON object in ASCII.")
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _number(value: object, name: str, most: int = MOST_SEQUENCE) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise InvalidInput(f'"{name}" must be a whole number from 0 to {most}.')
    return value


def _seconds(milliseconds: object) -> float | None:
    if milliseconds is None:
        return None
    most = int(MOST_SECONDS * 1000)
    if isinstance(milliseconds, bool) or not isinstance(milliseconds, int):
        raise InvalidInput('"dl_ms" must be a whole number of milliseconds.')
    if not 1 <= milliseconds <= most:
        raise InvalidInput(f'"dl_ms" must be from 1 to {most} milliseconds.')
    return milliseconds / 1000


def _dumps(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()
