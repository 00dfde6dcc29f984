"""Files with secrets: JSON that the daemon's user alone may read, replaced whole or not at all."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from edged.core.errors import InvalidInput, ModelError
from edged.runtime.durable import sync

MODE = 0o600

Stamp: TypeAlias = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """Changes whenever the file does; None while there is none. Raises ModelError."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    return status.st_ino, status.st_mtime_ns, status.st_size


def read(path: Path, version: int) -> dict[str, Any] | None:
    """What `write` wrote; None when there is no file.

    Raises ModelError, also when others may read the file.
    """
    try:
        if path.stat().st_mode & 0o077:
            raise ModelError(
                f"{path}: others may read the secrets in it: chmod 600 it, and replace keys that "
                "they may have seen."
            )
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["version"] != version:
            raise ModelError(f"{path}: was written by a newer edged.")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: is damaged ({error}).") from error
    return dict(data)


def write(path: Path, data: Mapping[str, Any]) -> None:
    """Make or replace the file, durably. Raises InvalidInput."""
    write_text(path, json.dumps(data, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Make or replace a file of text, as `write` does."""
    part = ""
    try:
        descriptor, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(Path(part), path.parent)
        Path(part).replace(path)
        sync(path.parent)
    except OSError as error:
        if part:
            Path(part).unlink(missing_ok=True)
        raise InvalidInput(f"{path}: cannot be written ({error.strerror}).") from error


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """One process at a time reads the file and writes it anew. Raises InvalidInput."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
    except OSError as error:
        raise InvalidInput(f"{lock}: cannot be opened ({error.strerror}).") from error
    try:
        _keep_owner(lock, path.parent)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _keep_owner(part: Path, folder: Path) -> None:
    """Give the file to whoever owns the folder: root may make keys for the daemon's user."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(part, owner.st_uid, owner.st_gid)
