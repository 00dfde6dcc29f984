"""Requests as botocore signs them, without a port between."""

from __future__ import annotations

from datetime import datetime, timezone
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from edged.rest.protocol import Request

HOST = "127.0.0.1:8080"


def signed(
    method: str,
    target: str,
    key: tuple[str, str, str | None],
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    region: str = "us-east-1",
    service: str = "lookoutvision",
    in_query: bool = False,
) -> Request:
    """A request to `target` (path and query, encoded), signed now with (id, secret, token)."""
    asked = AWSRequest(method, f"http://{HOST}{target}", headers=headers or {}, data=body)
    kind = SigV4QueryAuth if in_query else SigV4Auth
    kind(Credentials(*key), service, region).add_auth(asked)
    prepared = asked.prepare()
    parts = urlsplit(prepared.url)
    found = [("host", HOST)]
    for name, value in prepared.headers.items():
        text = value.decode() if isinstance(value, bytes) else str(value)
        found.append((name.lower(), text))
    return Request(method, parts.path, parts.query, tuple(found), body)


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)
