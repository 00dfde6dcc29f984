"""Access keys of the API: who may ask, for what, in which regions.

Owns one file that the daemon's user alone may read (0600). Secrets lie in it as they are, because
Signature Version 4 needs them to check a signature; so whoever reads the file may ask as anybody.
Written by `edged credentials`, read by the daemon, which takes a change at the next request.
"""

from __future__ import annotations

import fnmatch
import hmac
import secrets
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from edged.config import ACCOUNT
from edged.core.errors import InvalidInput, ModelError, NotFound
from edged.store import private

VERSION = 1
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True)
class Credential:
    """One access key.

    actions: as in IAM, `lookoutvision:Detect*`. regions: as `eu-*`. token, expires: of a session;
    expires in ISO 8601, None = never.
    """

    key_id: str
    secret: str
    account: str
    actions: tuple[str, ...]
    regions: tuple[str, ...]
    created: str
    token: str | None = None
    expires: str | None = None
    note: str = ""

    def allows(self, action: str, region: str) -> bool:
        """Whether this key may ask for `lookoutvision:CreateProject` in `us-east-1`."""
        return _matches(self.actions, action) and _matches(self.regions, region)

    def expired(self, now: datetime) -> bool:
        """Whether its time is over."""
        return self.expires is not None and now >= datetime.fromisoformat(self.expires)

    def has_token(self, token: str | None) -> bool:
        """Whether the session token is the one of this key, or neither has one."""
        return hmac.compare_digest((self.token or "").encode(), (token or "").encode())


def _matches(patterns: Sequence[str], value: str) -> bool:
    return any(fnmatch.fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns)


class Credentials:
    """The keys of one file. Any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: private.Stamp | None = None
        self._keys: Mapping[str, Credential] = {}

    def find(self, key_id: str) -> Credential | None:
        """The key as the file has it now. Raises ModelError for a file that cannot be used."""
        return self._current().get(key_id)

    def all(self) -> list[Credential]:
        """Every key, oldest first."""
        return sorted(self._current().values(), key=lambda c: (c.created, c.key_id))

    def create(
        self,
        actions: Sequence[str],
        regions: Sequence[str],
        account: str = ACCOUNT,
        lifetime: timedelta | None = None,
        note: str = "",
    ) -> Credential:
        """A new key; with a lifetime it is a session and has a token. Raises InvalidInput."""
        for pattern in actions:
            if pattern != "*" and not pattern.lower().startswith("lookoutvision:"):
                raise InvalidInput(
                    f"action {pattern!r}: write lookoutvision:Detect*, lookoutvision:* or *."
                )
        if not (account.isdecimal() and len(account) == 12):
            raise InvalidInput(f"account {account!r}: an account has 12 digits.")
        if not actions or not regions:
            raise InvalidInput("A key needs at least one action and one region.")
        now = datetime.now(timezone.utc)
        made = Credential(
            ("ASIA" if lifetime else "AKIA") + "".join(secrets.choice(ALPHABET) for _ in range(16)),
            secrets.token_urlsafe(30),
            account,
            tuple(actions),
            tuple(regions),
            now.isoformat(),
            secrets.token_urlsafe(48) if lifetime else None,
            (now + lifetime).isoformat() if lifetime else None,
            note,
        )
        with self._lock, private.changing(self._path):
            keys = {**self._read(), made.key_id: made}
            self._write(keys)
        return made

    def revoke(self, key_id: str) -> None:
        """Remove a key; requests signed with it are refused from now on. Raises NotFound."""
        with self._lock, private.changing(self._path):
            keys = dict(self._read())
            if key_id not in keys:
                raise NotFound(f"No access key is called {key_id}: see edged credentials list.")
            del keys[key_id]
            self._write(keys)

    def _current(self) -> Mapping[str, Credential]:
        with self._lock:
            stamp = private.stamp(self._path)
            if stamp is None or stamp != self._seen:
                self._keys, self._seen = self._read(), stamp
            return self._keys

    def _read(self) -> Mapping[str, Credential]:
        data = private.read(self._path, VERSION)
        if data is None:
            return {}
        try:
            return {each["key_id"]: _credential(each) for each in data["keys"]}
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self._path}: is damaged ({error}).") from error

    def _write(self, keys: Mapping[str, Credential]) -> None:
        data = {"version": VERSION, "keys": [asdict(each) for each in keys.values()]}
        private.write(self._path, data)


def _credential(found: Mapping[str, Any]) -> Credential:
    return Credential(
        **{**found, "actions": tuple(found["actions"]), "regions": tuple(found["regions"])}
    )
