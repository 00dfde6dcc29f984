"""Files with secrets: JSON that the daemon's user alone may read, replaced whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from edged.core.errors import InvalidInput, ModelError

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
    part = path.with_name(f".{path.name}.part")
    try:
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(data, file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        _keep_owner(part, path.parent)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InvalidInput(f"{path}: cannot be written ({error.strerror}).") from error


def _keep_owner(part: Path, folder: Path) -> None:
    """Give the file to whoever owns the folder: root may make keys for the daemon's user."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.chown(part, owner.st_uid, owner.st_gid)
