"""Clients of the API: boto3, and requests as botocore signs them, without a port between."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from edged.rest.protocol import Request
from edged.store.credentials import Credential

HOST = "127.0.0.1:8080"


def aws_client(
    port: int, key: Credential, region: str = "us-east-1", attempts: int = 1, **config: Any
) -> Any:
    """boto3 for the API on a port; it sends every call `attempts` times at the most."""
    retries = {"total_max_attempts": attempts, "mode": "standard"}
    return boto3.client(
        "lookoutvision",
        endpoint_url=f"http://127.0.0.1:{port}",
        region_name=region,
        aws_access_key_id=key.key_id,
        aws_secret_access_key=key.secret,
        aws_session_token=key.token,
        config=Config(retries=retries, **config),
    )


def signed(
    method: str,
    target: str,
    key: tuple[str, str, str | None],
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    region: str = "us-east-1",
    service: str = "lookoutvision",
    in_query: bool = False,
    host: str = HOST,
) -> Request:
    """A request to `target` (path and query, encoded), signed now with (id, secret, token)."""
    asked = AWSRequest(method, f"http://{host}{target}", headers=headers or {}, data=body)
    kind = SigV4QueryAuth if in_query else SigV4Auth
    kind(Credentials(*key), service, region).add_auth(asked)
    prepared = asked.prepare()
    parts = urlsplit(prepared.url)
    found = [("host", host)]
    for name, value in prepared.headers.items():
        text = value.decode() if isinstance(value, bytes) else str(value)
        found.append((name.lower(), text))
    return Request(method, parts.path, parts.query, tuple(found), body)


def now() -> datetime:
    """The time, with its zone."""
    return datetime.now(timezone.utc)
