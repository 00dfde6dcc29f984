"""What an error tells a program beside its sentence: google.rpc.Status with details.

Owns the form of an error on the wire, and its bounds. Must not decide which error it is.

    ErrorInfo     always: `reason` is the error's class in capitals (BAD_IMAGE), `domain` is edged
    RetryInfo     when the same call may succeed in a moment
    BadRequest    when a field of the request is to blame, with its name
"""

from __future__ import annotations

import re

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from edged.core.errors import Busy, EdgedError, InvalidInput, ShuttingDown

KEY = "grpc-status-details-bin"
DOMAIN = "edged"
MOST_BYTES = 1000
"""Of a sentence: headers carry it, a client's own words may be in it, and gRPC cuts off a call
whose headers are longer than 8 KiB. Percent-encoded it may be three times as long."""
RETRY_SECONDS = {Busy: 0.1, ShuttingDown: 5.0}
UNEXPECTED = "UNEXPECTED"


def shortened(sentence: str) -> str:
    """The sentence, or as much of its beginning as MOST_BYTES hold in UTF-8."""
    return sentence.encode("utf-8", "replace")[:MOST_BYTES].decode("utf-8", "ignore")


def reason(error: EdgedError) -> str:
    """The error's class in capitals, as in BAD_IMAGE."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__).upper()


def packed(code: str, sentence: str, error: EdgedError | None) -> bytes:
    """google.rpc.Status, serialised; `error` is None for a fault that nobody foresaw."""
    word = UNEXPECTED if error is None else reason(error)
    facts: list[object] = [error_details_pb2.ErrorInfo(reason=word, domain=DOMAIN)]
    for kind, seconds in RETRY_SECONDS.items():
        if isinstance(error, kind):
            delay = Duration(nanos=round(seconds % 1 * 1e9), seconds=int(seconds))
            facts.append(error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, InvalidInput) and error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=sentence
        )
        facts.append(error_details_pb2.BadRequest(field_violations=[violation]))
    status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message=sentence)
    for fact in facts:
        holder = AnyMessage()
        holder.Pack(fact)
        status.details.append(holder)
    data: bytes = status.SerializeToString()
    return data
