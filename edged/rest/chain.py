"""A request's way: who, what, allowed, not too often, well formed, once, done, written down.

Owns that order, the limit of calls, and what is known of a call at its end: the audit line and the
metrics. Everything that can go wrong becomes the API's error here; a fault of the server's own is
logged with its trace and told without it.
"""

from __future__ import annotations

import hashlib
import json
import logging.handlers
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeAlias

from edged.config import ACCOUNT, REGION, is_loopback
from edged.core.errors import Busy, EdgedError, Resource, WrongState
from edged.rest import sigv4
from edged.rest.context import Call, Context
from edged.rest.operations import Operation
from edged.rest.protocol import (
    Request,
    Response,
    answer,
    failure,
    parameters,
    percent_decoded,
    route,
)
from edged.rest.sigv4 import AccessDenied, Caller
from edged.store.catalog import Scope
from edged.store.credentials import Credential

log = logging.getLogger(__name__)

UNLIMITED = frozenset({"DetectAnomalies"})
"""Limited by the inference queue instead."""
MOST_BUCKETS = 4096
"""Of the throttle, remembered; one that is full again is forgotten first."""
LARGEST_LOG = 32 * 1024 * 1024
KEPT_LOGS = 8
"""Files of LARGEST_LOG bytes; older ones go."""
TOKEN_SECONDS = 8 * 3600.0
ANONYMOUS = Caller("anonymous", ACCOUNT, REGION)

Find: TypeAlias = Callable[[str], Credential | None]


@dataclass(frozen=True, slots=True)
class Done:
    """What became of one request: for the audit log and the metrics."""

    at: float
    request_id: str
    who: str
    account: str
    region: str
    operation: str
    what: str
    peer: str
    code: int
    error: str
    seconds: float


@dataclass(slots=True)
class _Way:
    """What is known of a request while it is on its way."""

    request: Request
    caller: Caller | None = None
    operation: Operation | None = None
    named: str = ""
    """What the path does not say: the name of a new project."""


class Throttle:
    """How many calls a second each operation may have: a bucket of tokens for each caller and one.

    Any thread. rate: calls a second for each account, region and operation; 0 = no limit.
    """

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[Scope, str], tuple[float, float]] = {}

    def take(self, scope: Scope, operation: str) -> None:
        """Count one call. Raises Busy when it comes too soon."""
        if not self._rate or operation in UNLIMITED:
            return
        most = max(1.0, self._rate)
        with self._lock:
            now = self._clock()
            level, since = self._buckets.get((scope, operation), (most, now))
            level = min(most, level + (now - since) * self._rate)
            if level < 1.0:
                raise Busy(
                    f"Rate exceeded: {operation} may be called {self._rate:g} times a second."
                )
            self._buckets[scope, operation] = level - 1.0, now
            if len(self._buckets) > MOST_BUCKETS:
                self._forget(now)

    def _forget(self, now: float) -> None:
        full = max(1.0, self._rate) / self._rate
        self._buckets = {k: v for k, v in self._buckets.items() if now - v[1] < full}


class AuditLog:
    """One line of JSON for each request, whatever became of it.

    Holds no secret, no body and no query: who, what, when, from where, and the outcome. `write` on
    any thread, inside the `with` of it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handler: logging.handlers.RotatingFileHandler | None = None

    def __enter__(self) -> AuditLog:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        os.close(descriptor)
        self._handler = logging.handlers.RotatingFileHandler(
            self._path, maxBytes=LARGEST_LOG, backupCount=KEPT_LOGS, encoding="utf-8"
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._handler is not None:
            self._handler.close()

    def write(self, done: Done) -> None:
        """Append one line."""
        if self._handler is None:
            return
        facts = asdict(done)
        facts["at"] = datetime.fromtimestamp(done.at, timezone.utc).isoformat()
        facts["seconds"] = round(done.seconds, 4)
        line = json.dumps(facts, ensure_ascii=True)
        self._handler.handle(logging.makeLogRecord({"msg": line, "levelno": logging.INFO}))


class Chain:
    """Answers requests. Any thread; a call takes as long as what it asks for."""

    def __init__(
        self,
        context: Context,
        find: Find | None,
        throttle: Throttle,
        on_done: Sequence[Callable[[Done], None]],
    ) -> None:
        """find: the access key of an id; None = everybody may do everything (loopback only)."""
        self._context = context
        self._find = find
        self._throttle = throttle
        self._on_done = on_done

    def handle(self, request: Request) -> Response:
        """The answer, whatever comes."""
        began, way = time.monotonic(), _Way(request)
        request_id = str(uuid.uuid4())
        error = ""
        try:
            response = self._handle(way)
        except EdgedError as refused:
            response, error = failure(refused), refused.aws_code
        except Exception:
            log.exception("request %s failed", request_id)
            fault = EdgedError(f"The server failed; its log says why (request {request_id}).")
            response, error = failure(fault), fault.aws_code
        self._report(way, request_id, response.code, error, time.monotonic() - began)
        headers = {**response.headers, "x-amzn-RequestId": request_id}
        return Response(response.code, response.body, headers)

    def refuse(self, request: Request, error: EdgedError) -> Response:
        """The answer to a request whose body was not taken; it is written down, too."""
        request_id, response = str(uuid.uuid4()), failure(error)
        self._report(_Way(request), request_id, response.code, error.aws_code, 0.0)
        headers = {**response.headers, "x-amzn-RequestId": request_id}
        return Response(response.code, response.body, headers)

    def _report(self, way: _Way, request_id: str, code: int, error: str, seconds: float) -> None:
        request = way.request
        caller = way.caller or sigv4.claimed(request)
        done = Done(
            time.time(),
            request_id,
            caller.key_id,
            caller.account,
            caller.region,
            way.operation.name if way.operation else "",
            percent_decoded(f"{request.method} {request.path[:1200]}") + way.named,
            request.peer,
            code,
            error,
            seconds,
        )
        for each in self._on_done:
            each(done)

    def _handle(self, way: _Way) -> Response:
        request = way.request
        credential: Credential | None = None
        if self._find is None:
            _check_local(request)
            way.caller = _anonymous(request)
        else:
            now = datetime.now(timezone.utc)
            way.caller, credential = sigv4.authenticate(request, self._find, now)
        way.operation, path = route(request.method, request.path)
        name, caller = way.operation.name, way.caller
        if credential is not None:
            sigv4.authorize(credential, name, caller.region)
        scope = Scope(caller.account, caller.region)
        self._throttle.take(scope, name)
        call = Call(scope, parameters(way.operation, path, request))
        if "projectName" not in path and call.get("ProjectName"):
            way.named = f" {call['ProjectName']}"
        return self._once(way.operation, call)

    def _once(self, operation: Operation, call: Call) -> Response:
        """Do it, or give the answer that the same call with the same token had."""
        token = call.get("ClientToken") if operation.idempotent else None
        if token is None:
            return answer(operation, operation.does(self._context, call))
        catalog, digest = self._context.catalog, _digest(call)
        with catalog.transaction():
            now = self._context.now()
            known = catalog.answer_of(call.scope, operation.name, token, now)
            if known is not None:
                if known[0] != digest:
                    raise WrongState(
                        f"The client token {token} was used for another {operation.name}: give "
                        "every call one of its own.",
                        Resource("PROJECT", str(call.get("ProjectName") or "")),
                    )
                return Response(
                    operation.code, known[1].encode(), {"Content-Type": "application/json"}
                )
            response = answer(operation, operation.does(self._context, call))
            text = response.body.decode()
            catalog.keep_answer(
                call.scope, operation.name, token, digest, text, now + TOKEN_SECONDS
            )
        return response


def _check_local(request: Request) -> None:
    """Raise AccessDenied for what a page in a browser on this machine may have sent."""
    host = re.sub(":[0-9]+$", "", request.header("host") or "localhost").strip("[]")
    if request.header("origin") is not None or not is_loopback(host):
        raise AccessDenied("Without keys only programs of this machine are served, no web page.")


def _anonymous(request: Request) -> Caller:
    """Nobody, in the region that a signature names, if there is one."""
    header = request.header("authorization") or ""
    scope = header.partition("Credential=")[2].partition(",")[0].split("/")
    region = scope[2] if len(scope) == 5 and scope[2].replace("-", "").isalnum() else REGION
    return Caller(ANONYMOUS.key_id, ANONYMOUS.account, region[:30])


def _digest(call: Call) -> str:
    """Of what was asked for, whatever its order."""
    asked = {key: value for key, value in call.parameters.items() if key != "ClientToken"}
    text = json.dumps(asked, sort_keys=True, default=repr)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
