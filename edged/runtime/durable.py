"""What survives a power cut: the one place that asks the disk for it by path."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Return when a file's content, or a folder's list of names, is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def private(path: Path) -> None:
    """Make an empty file if there is none, and let nobody else read it (0600). Raises OSError.

    One that is there is not opened: closing any descriptor of a file takes all locks of this
    process off it, and SQLite, which relies on its own, would then lose what it writes.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        path.chmod(0o600)


def replace(path: Path, content: bytes) -> None:
    """Give a file (mode 0600) this content, whole or not at all, on the disk. Raises OSError."""
    part = path.with_name(f"{path.name}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    part.replace(path)
    sync(path.parent)
