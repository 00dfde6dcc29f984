"""The keyring: master keys that a KmsKeyId names, on this box and nowhere else.

Owns one file that the daemon's user alone may read (private.py). A key is called as clients call
it: by any KmsKeyId, such as an ARN; an ARN also finds the key that is called as its last part
(`arn:aws:kms:...:key/ID` finds ID, `...:alias/NAME` finds alias/NAME). Written by `edged keyring`,
read by the daemon at each use. Whoever loses the file loses every model that was sealed under it.
"""

from __future__ import annotations

import base64
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from edged.core.errors import InvalidInput, ModelError, NotFound
from edged.store import private
from edged.store.sealing import KEY_BYTES

VERSION = 1
KMS_KEY_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_/+=,@.-]{0,2047}")


@dataclass(frozen=True, slots=True)
class MasterKey:
    """One key. id: what a KmsKeyId calls it; created: ISO 8601."""

    id: str
    key: bytes = field(repr=False)
    created: str


class Keyring:
    """The keys of one file. Any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def all(self) -> Sequence[MasterKey]:
        """Every key, oldest first. Raises ModelError for a file that cannot be used."""
        data = private.read(self._path, VERSION)
        try:
            return [
                MasterKey(str(k["id"]), base64.b64decode(k["key"]), str(k["created"]))
                for k in (data or {"keys": []})["keys"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"{self._path}: is damaged ({error}).") from error

    def find(self, kms_key_id: str) -> MasterKey:
        """The key that a KmsKeyId names. Raises NotFound, ModelError."""
        names = {kms_key_id}
        if kms_key_id.startswith("arn:"):
            last = kms_key_id.split(":")[-1]
            names |= {last, last.removeprefix("key/")}
        for each in self.all():
            if each.id in names:
                return each
        raise NotFound(
            f"KmsKeyId {kms_key_id}: the keyring of this box has no such key: make one by edged "
            "keyring create --id, or leave KmsKeyId out."
        )

    def create(self, name: str | None = None) -> MasterKey:
        """A new key; without a name it gets a UUID. Raises InvalidInput."""
        wanted = name or str(uuid.uuid4())
        if not KMS_KEY_ID.fullmatch(wanted):
            raise InvalidInput(
                f"{wanted!r} is no KmsKeyId: 1 to 2048 of A-Z a-z 0-9 : _ / + = , @ . - with a "
                "letter or digit first."
            )
        made = MasterKey(
            wanted, secrets.token_bytes(KEY_BYTES), datetime.now(timezone.utc).isoformat()
        )
        with private.changing(self._path):
            keys = self.all()
            if any(each.id == wanted for each in keys):
                raise InvalidInput(f"{wanted}: the keyring has a key of that name; choose another.")
            self._write([*keys, made])
        return made

    def remove(self, name: str) -> None:
        """Destroy a key: what was sealed under it can never be opened again. Raises NotFound."""
        with private.changing(self._path):
            keys = self.all()
            if all(each.id != name for each in keys):
                raise NotFound(f"No key is called {name}: see edged keyring list.")
            self._write([each for each in keys if each.id != name])

    def _write(self, keys: Sequence[MasterKey]) -> None:
        shown = [
            {"id": k.id, "key": base64.b64encode(k.key).decode("ascii"), "created": k.created}
            for k in keys
        ]
        private.write(self._path, {"version": VERSION, "keys": shown})
