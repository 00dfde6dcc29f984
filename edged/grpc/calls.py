"""What all calls share: errors become status codes, every answer is counted, and all end.

Owns the way from a handler's exception to a client's status. Must not know any one service.
A handler is `async (request, context) -> response` and raises the errors of core; whatever else
escapes it is a fault of ours, is logged with its traceback here, and reaches the client as
INTERNAL with a sentence and nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeAlias, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import DecodeError, Message

from edged.core.errors import EdgedError, InvalidInput, ShuttingDown
from edged.core.observer import Observer
from edged.grpc.details import KEY, packed, shortened

log = logging.getLogger(__name__)

Handler: TypeAlias = Callable[[Any, Any], Awaitable[Any]]

T = TypeVar("T")

CLOSE_SECONDS = 0.05
"""Before a deadline: the client's own comes earlier than ours by the way of the request."""


class Calls:
    """The calls in progress. Made anywhere; everything else happens on the loop's thread."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._active = 0
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    def unary(
        self,
        method: str,
        request: type[Message],
        handler: Handler,
        read: Callable[[bytes], Any] | None = None,
    ) -> Any:
        """A gRPC method handler: one request, one response.

        read: makes of a serialised `request` what `handler` takes; None = the message.
        """
        read = read or request.FromString

        async def answer(data: bytes, context: Any) -> bytes:
            response = await self._answer(method, request, read, handler, data, context)
            serialized: bytes = response.SerializeToString()
            return serialized

        return grpc.unary_unary_rpc_method_handler(answer)

    def stream(self, method: str, request: type[Message], handler: Handler) -> Any:
        """A gRPC method handler: one request; `handler` writes serialised messages itself."""

        async def answer(data: bytes, context: Any) -> None:
            await self._answer(method, request, request.FromString, handler, data, context)

        return grpc.unary_stream_rpc_method_handler(answer)

    async def drain(self, seconds: float) -> None:
        """Refuse new calls from now on, and wait at most `seconds` for those in progress."""
        self._closing = True
        try:
            await asyncio.wait_for(self._idle.wait(), max(seconds, 0.0))
        except asyncio.TimeoutError:
            log.warning("%d calls were still running and are cut off", self._active)

    async def _answer(
        self,
        method: str,
        kind: type[Message],
        read: Callable[[bytes], Any],
        handler: Handler,
        data: bytes,
        context: Any,
    ) -> Any:
        began = time.perf_counter()
        code, details, cause = "OK", "", None
        self._active += 1
        self._idle.clear()
        try:
            if self._closing:
                raise ShuttingDown("edged is stopping: try again when it is back.")
            try:
                request = read(data)
            except DecodeError:
                name = kind.DESCRIPTOR.full_name
                raise InvalidInput(f"The request is not a {name} message.") from None
            return await handler(request, context)
        except EdgedError as error:
            # Without its traceback, whose frames would keep the picture until the next collection.
            code, details = error.grpc_code, str(error)
            cause = error.with_traceback(None)
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
        sentence = shortened(details)
        trailing = ((KEY, packed(code, sentence, cause)),)
        await context.abort(grpc.StatusCode[code], sentence, trailing)


async def outcome(future: Future[T], ended: Callable[[], None] = lambda: None) -> T:
    """What `asyncio.wrap_future` gives, except that a cancelled call does not cancel `future`.

    The data plane owns it: a unit that answers a cancelled future would be the one to fail.
    ended: called on the loop when the future is done, whether or not somebody waits still.
    """
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def end() -> None:
        done.set()
        ended()

    def wake(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(end)

    future.add_done_callback(wake)
    await done.wait()
    return future.result()
