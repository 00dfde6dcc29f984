"""Envelope encryption of what is stored of a model: AES-256-GCM by `cryptography`.

A master key of the keyring (keyring.py) wraps one data key per model; the data key seals files. The
wrapped data key lies in the model's row, so without the keyring's file nothing can be opened. A
sealed file knows its name in the model's folder: one put in another's place does not open.

    MAGIC  nonce (12 bytes)  ciphertext and tag (16 bytes)
"""

from __future__ import annotations

import base64
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged.core.errors import MissingDependency, ModelError
from edged.runtime.durable import sync

MAGIC = b"edged-sealed-1\n"
KEY_BYTES = 32
NONCE_BYTES = 12
DATA_KEY = b"edged data key of "


def _gcm(key: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise MissingDependency("cryptography", "rest", "Encrypting") from error
    return AESGCM(key)


def _sealed(key: bytes, data: bytes, about: bytes) -> bytes:
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + bytes(_gcm(key).encrypt(nonce, data, about))


def _opened(key: bytes, sealed: bytes, about: bytes) -> bytes | None:
    """What was sealed, or None when key, words or bytes are not those of then."""
    gcm = _gcm(key)
    try:
        return bytes(gcm.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about))
    except Exception:  # InvalidTag, and ValueError of what is too short
        return None


@dataclass(frozen=True, slots=True)
class DataKey:
    """The key of one model's files. Any thread."""

    key: bytes = field(repr=False)

    @classmethod
    def new(cls) -> DataKey:
        """A key that nothing else has."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def from_text(cls, text: str) -> DataKey:
        """What `text` gave."""
        return cls(base64.b64decode(text))

    def text(self) -> str:
        """The key itself, for the pipe to a process that works on the files."""
        return base64.b64encode(self.key).decode("ascii")

    def wrapped(self, master: bytes, owner: str) -> str:
        """The key sealed under a master key, to be kept; owner: the model's ARN."""
        return base64.b64encode(_sealed(master, self.key, DATA_KEY + owner.encode())).decode()

    @classmethod
    def unwrapped(cls, wrapped: str, master: bytes, owner: str) -> DataKey:
        """What `wrapped` sealed. Raises ModelError when it was another key's or model's."""
        key = _opened(master, base64.b64decode(wrapped), DATA_KEY + owner.encode())
        if key is None:
            raise ModelError(
                f"The key of {owner} does not open with its KmsKeyId: the keyring's key of that "
                "name is another one than then; bring back the keyring."
            )
        return cls(key)

    def seal(self, name: str, data: bytes) -> bytes:
        """The sealed form of a file; name: its path in the model's folder."""
        return MAGIC + _sealed(self.key, data, name.encode())

    def open(self, name: str, sealed: bytes) -> bytes:
        """What was sealed under that name. Raises ModelError."""
        data = None
        if sealed.startswith(MAGIC):
            data = _opened(self.key, sealed[len(MAGIC) :], name.encode())
        if data is None:
            raise ModelError(f"{name}: is damaged, or was not sealed by this model's key.")
        return data


@dataclass(frozen=True, slots=True)
class Closet:
    """A model's folder whose files are sealed, or, without a key, lie as they are. Any thread."""

    root: Path
    key: DataKey | None

    def write(self, name: str, data: bytes, durable: bool = False) -> Path:
        """Make or replace a file; the folder must be there. Raises OSError.

        durable: on the disk, whatever happens, when this returns.
        """
        path = self.root / name
        path.write_bytes(data if self.key is None else self.key.seal(name, data))
        for each in (path, path.parent, self.root.parent) if durable else ():
            sync(each)
        return path

    def read(self, name: str) -> bytes:
        """A file's content. Raises OSError, ModelError."""
        return self.opened(self.root / name)

    def opened(self, path: Path) -> bytes:
        """The content of a file in the folder, or, as it is, of one elsewhere.

        Raises OSError, ModelError.
        """
        data = path.read_bytes()
        if self.key is None or not path.is_relative_to(self.root):
            return data
        return self.key.open(path.relative_to(self.root).as_posix(), data)

    def take_in(self, folder: Path, name: str) -> None:
        """Put a copy of a whole folder in, sealed and durable; replaces the one of that name.

        Raises OSError.
        """
        new, old = self.root / f".{name}.new", self.root / name
        shutil.rmtree(new, ignore_errors=True)
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                inner = path.relative_to(folder)
                (new / inner).parent.mkdir(parents=True, exist_ok=True)
                data = path.read_bytes()
                shown = (Path(name) / inner).as_posix()
                (new / inner).write_bytes(data if self.key is None else self.key.seal(shown, data))
        for path in [*new.rglob("*"), new]:
            sync(path)
        shutil.rmtree(old, ignore_errors=True)
        new.rename(old)
        sync(self.root)

    def take_out(self, name: str, folder: Path) -> None:
        """Lay an open copy of a whole folder of it at `folder`. Raises ModelError."""
        source = self.root / name
        try:
            for path in sorted(source.rglob("*")):
                if path.is_file():
                    target = folder / path.relative_to(source)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(self.opened(path))
        except OSError as error:
            raise ModelError(
                f"{source}: no open copy can be laid at {folder} ({error.strerror})."
            ) from error
