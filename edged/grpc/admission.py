"""Who may come in by TCP: certificates, and the token that clients show.

Owns what a caller must have. Must not know what it calls. The Unix socket has its file's
permissions and nothing else to show; it is a server of its own, without any of this.

A call without the right token is refused before its message is read: strangers must not fill
memory. Health's `Check` needs no token, for probes have no secrets and it tells one word; its
`Watch` does, since an open stream takes up a place.
"""

from __future__ import annotations

import hmac
import logging
import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2

from edged.config import GrpcConfig
from edged.core.errors import ConfigError, EdgedError
from edged.core.observer import Observer
from edged.grpc.details import KEY, packed

log = logging.getLogger(__name__)

OPEN = "/grpc.health.v1.Health/Check"
LEAST_TOKEN = 16
QUIET_SECONDS = 10.0
"""Between two lines of the log about strangers; the metrics count each."""


class Unauthenticated(EdgedError):
    """A caller did not show the token."""

    aws_code = "AccessDeniedException"
    http_status = 403
    grpc_code = "UNAUTHENTICATED"


NO_TOKEN = Unauthenticated(
    "The call has no token, or another: send it as metadata `authorization: Bearer TOKEN`."
)


class TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Lets calls through that carry the token. On the loop."""

    def __init__(self, token: bytes, observer: Observer) -> None:
        self._wanted = b"Bearer " + token
        self._observer = observer
        self.serving = False
        """What a caller without the token is told of the daemon's health."""
        self._silent_until = 0.0
        self._refused = 0

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """The handler of the call, or one that refuses it."""
        if self._fits(details.invocation_metadata):
            return await continuation(details)
        if details.method == OPEN:
            return grpc.stream_stream_rpc_method_handler(self._health)
        # As of streams both ways, whatever the call is: the message of another kind is read first.
        return grpc.stream_stream_rpc_method_handler(self._refuse)

    def _fits(self, metadata: Any) -> bool:
        shown = [value for key, value in metadata or () if key == "authorization"]
        word = shown[0] if len(shown) == 1 else ""
        data = word if isinstance(word, bytes) else word.encode("utf-8", "replace")
        return hmac.compare_digest(data, self._wanted)

    async def _health(self, _: Any, context: Any) -> None:
        """Of the whole daemon, whatever was asked: a stranger's message is not read."""
        status = health_pb2.HealthCheckResponse.ServingStatus
        word = status.SERVING if self.serving else status.NOT_SERVING
        answer = health_pb2.HealthCheckResponse(status=word)
        await context.write(answer.SerializeToString())

    async def _refuse(self, _: Any, context: Any) -> None:
        self._refused += 1
        now = time.monotonic()
        if now >= self._silent_until:
            peer = context.peer()
            log.warning("%d gRPC calls without the token, the last from %s", self._refused, peer)
            self._refused, self._silent_until = 0, now + QUIET_SECONDS
        code, sentence = NO_TOKEN.grpc_code, str(NO_TOKEN)
        # Not by its name: that is a stranger's word, and metrics keep what they are told.
        self._observer.request_done("refused", code, 0.0)
        trailing = ((KEY, packed(code, sentence, NO_TOKEN)),)
        await context.abort(grpc.StatusCode[code], sentence, trailing)


def interceptors(config: GrpcConfig, observer: Observer) -> list[TokenCheck]:
    """Of the TCP server. Raises ConfigError for a token that cannot be used."""
    if config.token_file is None:
        return []
    return [TokenCheck(_token(config.token_file), observer)]


def credentials(config: GrpcConfig) -> Any:
    """Of the TCP server, for TLS 1.2 and newer; None without a certificate.

    Raises ConfigError for files that are none.
    """
    if config.cert_file is None or config.key_file is None:
        return None
    certificate = _read(config.cert_file, "cert_file")
    key = _read(config.key_file, "key_file")
    _check_pair(config.cert_file, config.key_file)
    authority = None
    if config.client_ca_file is not None:
        authority = _read(config.client_ca_file, "client_ca_file")
        _check_authority(config.client_ca_file)
    return grpc.ssl_server_credentials(
        [(key, certificate)],
        root_certificates=authority,
        require_client_auth=authority is not None,
    )


def _token(path: Path) -> bytes:
    token = _read(path, "token_file").strip()
    if len(token) < LEAST_TOKEN or not all(0x21 <= byte <= 0x7E for byte in token):
        raise ConfigError(
            f"grpc.token_file: {path} must hold one word of at least {LEAST_TOKEN} visible ASCII "
            "characters, as `openssl rand -hex 32` makes one."
        )
    return token


def _read(path: Path, key: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"grpc.{key}: {path} cannot be read ({error.strerror}).") from None


def _check_pair(certificate: Path, key: Path) -> None:
    """Look before gRPC does: it takes anything, and each handshake fails then."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except OSError as error:  # an SSLError, or whatever errno OpenSSL left behind
        raise ConfigError(
            f"grpc.cert_file, grpc.key_file: {certificate} and {key} are no certificate and its "
            f"unencrypted key in PEM form ({getattr(error, 'reason', None) or 'unreadable'})."
        ) from None


def _check_authority(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except OSError as error:
        raise ConfigError(
            f"grpc.client_ca_file: {path} is no certificate in PEM form "
            f"({getattr(error, 'reason', None) or 'unreadable'})."
        ) from None
