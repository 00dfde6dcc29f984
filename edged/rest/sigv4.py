"""Signature Version 4: whose request this is, or why it is nobody's.

Owns the reading of a signature, in the Authorization header or in the query, and every refusal of
one. The signature itself is computed by botocore, which is what most clients sign with; nothing
cryptographic is written here. Errors have the names of the API's common errors.

Decision: a body's stated hash is held against the body; UNSIGNED-PAYLOAD is taken as AWS takes it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qsl

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest, HeadersDict
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials as BotoCredentials

from edged.core.errors import EdgedError
from edged.rest.context import SERVICE
from edged.rest.protocol import Request
from edged.store.credentials import Credential

ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = timedelta(minutes=15)
LONGEST = 604_800
"""Seconds that a signature in a query may last: seven days."""
UNSIGNED = "UNSIGNED-PAYLOAD"
STAMP = "%Y%m%dT%H%M%SZ"


class Refused(EdgedError):
    """A request that nobody may be held to have made; each kind has AWS's name and code."""

    http_status = 403


class MissingAuthenticationToken(Refused):
    """No signature at all."""

    aws_code = "MissingAuthenticationToken"


class IncompleteSignature(Refused):
    """A signature that lacks a part or has one of the wrong form."""

    aws_code = "IncompleteSignature"
    http_status = 400


class InvalidClientTokenId(Refused):
    """An access key or session token that is not known here."""

    aws_code = "InvalidClientTokenId"


class InvalidSignature(Refused):
    """The signature is not the one that the secret makes of this request."""

    aws_code = "InvalidSignatureException"


class RequestExpired(Refused):
    """Signed too long ago, or in the future."""

    aws_code = "RequestExpired"
    http_status = 400


class ExpiredToken(Refused):
    """The time of the session is over."""

    aws_code = "ExpiredTokenException"


class AccessDenied(Refused):
    """The key is known, and may not do this."""

    aws_code = "AccessDeniedException"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom a request comes from."""

    key_id: str
    account: str
    region: str


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a request says of its signature. expires: seconds, of one in the query."""

    key_id: str
    day: str
    region: str
    signed: tuple[str, ...]
    signature: str
    stamp: str
    token: str | None
    expires: int | None = None


def authenticate(
    request: Request, find: Callable[[str], Credential | None], now: datetime
) -> tuple[Caller, Credential]:
    """Who signed the request. Raises a kind of Refused."""
    found = _read(request)
    _check_time(found, now)
    credential = find(found.key_id)
    if credential is None or not credential.has_token(found.token):
        raise InvalidClientTokenId("The security token included in the request is invalid.")
    if credential.expired(now):
        raise ExpiredToken("The security token included in the request is expired.")
    payload = _payload(request)
    expected = _computed(request, found, credential.secret, payload)
    if not hmac.compare_digest(expected.encode(), found.signature.encode("utf-8", "replace")):
        raise InvalidSignature(
            "The request signature we calculated does not match the signature you provided. Check "
            "your AWS Secret Access Key and signing method."
        )
    return Caller(found.key_id, credential.account, found.region), credential


def authorize(credential: Credential, operation: str, region: str) -> None:
    """Raise AccessDenied unless the key may ask for the operation in the region."""
    action = f"{SERVICE}:{operation}"
    if not credential.allows(action, region):
        raise AccessDenied(
            f"User: {credential.key_id} is not authorized to perform: {action} in {region}."
        )


def claimed(request: Request) -> Caller:
    """Whom the request says that it is from, whether that is true or not: for the audit log."""
    try:
        found = _read(request)
    except Refused:
        return Caller("", "", "")
    return Caller(found.key_id[:128], "", found.region)


def _read(request: Request) -> _Signature:
    query = dict(parse_qsl(request.query, keep_blank_values=True))
    header = request.header("authorization")
    if header is None:
        if "X-Amz-Signature" in query or "X-Amz-Algorithm" in query:
            return _from_query(query)
        raise MissingAuthenticationToken("Missing Authentication Token")
    algorithm, _, rest = header.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise IncompleteSignature(f"Unsupported AWS 'algorithm': '{algorithm[:40]}'.")
    pairs = [part.strip().partition("=") for part in rest.split(",")]
    parts = {key: value for key, _, value in pairs}
    for name in ("Credential", "Signature", "SignedHeaders"):
        if not parts.get(name):
            raise IncompleteSignature(f"Authorization header requires '{name}' parameter.")
    token = request.header("x-amz-security-token")
    return _signature(parts, _stamp(request), token)


def _from_query(query: Mapping[str, str]) -> _Signature:
    if query.get("X-Amz-Algorithm") != ALGORITHM:
        raise IncompleteSignature("Unsupported AWS 'algorithm' in X-Amz-Algorithm.")
    parts = {}
    for name in ("Credential", "Signature", "SignedHeaders"):
        parts[name] = query.get(f"X-Amz-{name}", "")
        if not parts[name]:
            raise IncompleteSignature(f"AWS query-string parameters must include X-Amz-{name}.")
    expires = query.get("X-Amz-Expires", str(int(SKEW.total_seconds())))
    if not re.fullmatch("[0-9]{1,6}", expires) or int(expires) > LONGEST:
        raise IncompleteSignature(f"X-Amz-Expires must be a number of seconds up to {LONGEST}.")
    token = query.get("X-Amz-Security-Token")
    return _signature(parts, query.get("X-Amz-Date", ""), token, int(expires))


def _signature(
    parts: Mapping[str, str], stamp: str, token: str | None, expires: int | None = None
) -> _Signature:
    scope = parts["Credential"].split("/")
    if len(scope) != 5 or scope[3] != SERVICE or scope[4] != "aws4_request":
        raise IncompleteSignature(
            f"Credential should be scoped as KEY/YYYYMMDD/REGION/{SERVICE}/aws4_request."
        )
    if not re.fullmatch("[a-z0-9-]{2,30}", scope[2]):
        raise IncompleteSignature("Credential is scoped to what is no region.")
    signed = tuple(parts["SignedHeaders"].lower().split(";"))
    if "host" not in signed:
        raise IncompleteSignature("'host' must be a signed header.")
    return _Signature(
        scope[0], scope[1], scope[2], signed, parts["Signature"], stamp, token, expires
    )


def _stamp(request: Request) -> str:
    """X-Amz-Date, or Date turned into its form."""
    stamp = request.header("x-amz-date")
    if stamp is not None:
        return stamp
    date = request.header("date")
    if date is None:
        raise IncompleteSignature("Authorization header requires existence of X-Amz-Date or Date.")
    try:
        return parsedate_to_datetime(date).astimezone(timezone.utc).strftime(STAMP)
    except (ValueError, TypeError, OverflowError):
        return date


def _check_time(found: _Signature, now: datetime) -> None:
    try:
        when = datetime.strptime(found.stamp, STAMP).replace(tzinfo=timezone.utc)
    except ValueError:
        raise IncompleteSignature(
            "Date must be in ISO 8601 'basic format', as 20260102T030405Z."
        ) from None
    if found.stamp[:8] != found.day:
        raise IncompleteSignature("Date in Credential scope does not match the date signed.")
    until = when + (SKEW if found.expires is None else timedelta(seconds=found.expires))
    if now > until:
        raise RequestExpired(f"Signature expired: it was good until {until:{STAMP}}.")
    if now < when - SKEW:
        raise RequestExpired(f"Signature not yet current: {found.stamp} is in the future.")


def _payload(request: Request) -> str:
    """The payload's hash as it was signed; held against the body unless it is not signed."""
    computed = hashlib.sha256(request.body).hexdigest()
    stated = request.header("x-amz-content-sha256")
    if stated is None or stated == UNSIGNED:
        return stated or computed
    if not hmac.compare_digest(stated.encode("utf-8", "replace"), computed.encode()):
        raise InvalidSignature("The body is not the one that was signed.")
    return stated


class _Signer(SigV4Auth):  # type: ignore[misc]
    """botocore's signer, over the headers that the request names."""

    def headers_to_sign(self, request: Any) -> HTTPHeaders:
        chosen = HTTPHeaders()
        for name, value in request.context["signed"]:
            chosen[name] = value
        return chosen


def _computed(request: Request, found: _Signature, secret: str, payload: str) -> str:
    """The signature that the secret makes of the request."""
    query = "&".join(
        pair for pair in request.query.split("&") if not pair.startswith("X-Amz-Signature=")
    )
    signed = [(name, value) for name, value in request.headers if name in found.signed]
    if {name for name, _ in signed} != set(found.signed):
        raise InvalidSignature("A header that was signed is not in the request.")
    signer = _Signer(BotoCredentials(found.key_id, secret), SERVICE, found.region)
    url = f"http://host{request.path}" + (f"?{query}" if query else "")
    asked = AWSRequest(request.method, url, headers=HeadersDict({"X-Amz-Content-SHA256": payload}))
    asked.context.update(timestamp=found.stamp, signed=signed)
    text = signer.string_to_sign(asked, signer.canonical_request(asked))
    return str(signer.signature(text, asked))
