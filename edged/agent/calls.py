"""What all calls share: errors become status codes, every answer is counted, and all end.

Owns the way from a handler's exception to a client's status. Must not know any one service.
A handler is `async (request, context) -> response` and raises the errors of core; whatever else
escapes it is a fault of ours, is logged with its traceback here, and reaches the client as
INTERNAL with a sentence and nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from edged.core.errors import EdgedError, InvalidInput, ShuttingDown
from edged.core.observer import Observer

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]

# HTTP/2 headers carry the sentence, and a client's own words may be in it.
MAX_DETAILS = 1000


CLOSE_SECONDS = 0.05
"""Before a deadline: the client's own comes earlier than ours by the way of the request."""


class Calls:
    """The calls in hand. Made anywhere; everything else happens on the loop's thread."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._active = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def unary(self, method: str, request: type[Message], handler: Handler) -> Any:
        """A gRPC method handler: one request, one response."""

        async def answer(data: bytes, context: Any) -> bytes:
            response = await self._answer(method, request, handler, data, context)
            serialized: bytes = response.SerializeToString()
            return serialized

        return grpc.unary_unary_rpc_method_handler(answer)

    def stream(self, method: str, request: type[Message], handler: Handler) -> Any:
        """A gRPC method handler: one request; `handler` writes serialised messages itself."""

        async def answer(data: bytes, context: Any) -> None:
            await self._answer(method, request, handler, data, context)

        return grpc.unary_stream_rpc_method_handler(answer)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls from now on, and wait at most `seconds` for those in hand."""
        self._closing = True
        try:
            await asyncio.wait_for(self._idle.wait(), max(seconds, 0.0))
        except asyncio.TimeoutError:
            log.warning("%d calls were still running and are cut off", self._active)

    async def _answer(
        self, method: str, kind: type[Message], handler: Handler, data: bytes, context: Any
    ) -> Any:
        began = time.perf_counter()
        code, details = "OK", ""
        self._active += 1
        self._idle.clear()
        try:
            if self._closing:
                raise ShuttingDown("edged is stopping: try again when it is back.")
            return await handler(_parse(kind, data), context)
        except EdgedError as error:
            code, details = error.grpc_code, str(error)
            if code == "INTERNAL":
                log.error("%s: %s", method, error)
        except asyncio.CancelledError:
            # The client went away or its time is up: gRPC cancels the handler for both.
            left = context.time_remaining()  # None without a deadline
            late = left is not None and left <= CLOSE_SECONDS
            code = "DEADLINE_EXCEEDED" if late else "CANCELLED"
            raise
        except grpc.aio.InternalError as error:  # a write to a client that has gone
            log.debug("%s: the client went away: %s", method, error)
            code, details = "CANCELLED", "The client went away."
        except Exception:
            log.exception("%s failed unexpectedly", method)
            code, details = "INTERNAL", "edged failed unexpectedly; its log says why."
        finally:
            self._active -= 1
            if not self._active:
                self._idle.set()
            self._observer.request_done(method, code, time.perf_counter() - began)
        await context.abort(grpc.StatusCode[code], details[:MAX_DETAILS])


def _parse(kind: type[Message], data: bytes) -> Message:
    try:
        message: Message = kind.FromString(data)
    except DecodeError:
        raise InvalidInput(f"The request is not a {kind.DESCRIPTOR.full_name} message.") from None
    return message
