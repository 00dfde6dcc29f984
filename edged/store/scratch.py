"""Where decrypted files lie while they are worked on: in memory, never on a disk.

Owns one folder on a tmpfs for each state folder: systemd's runtime directory, else /dev/shm. It is
emptied when the daemon starts, so a kill leaves nothing behind for longer. (Memory may be swapped:
where that matters, encrypt the swap.)
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from edged.core.errors import ModelError

IN_MEMORY = ("tmpfs", "ramfs")


class Scratch:
    """A private folder in memory. Any thread, if each uses places of its own."""

    def __init__(self, state: Path) -> None:
        digest = hashlib.sha256(os.fsencode(state.resolve())).hexdigest()[:16]
        self._name = f"edged-{os.getuid()}-{digest}"

    def empty(self) -> None:
        """Remove what an earlier life left."""
        for base in _bases():
            shutil.rmtree(base / self._name, ignore_errors=True)

    def place(self, name: str) -> Path:
        """An empty folder for that name. Raises ModelError when there is nowhere in memory."""
        for base in _bases():
            root = base / self._name
            try:
                root.mkdir(mode=0o700, exist_ok=True)
                if root.is_symlink() or root.stat().st_uid != os.getuid():
                    continue  # somebody else's, laid there to be written into
                shutil.rmtree(root / name, ignore_errors=True)
                (root / name).mkdir()
                return root / name
            except OSError:
                continue
        raise ModelError(
            "An encrypted model is opened in memory only, and there is no tmpfs to write to: "
            "mount one at /dev/shm."
        )

    def remove(self, name: str) -> None:
        """Forget the place."""
        for base in _bases():
            shutil.rmtree(base / self._name / name, ignore_errors=True)


def _bases() -> list[Path]:
    """Folders in memory, best first."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    candidates = [Path(given)] if given else []
    return [base for base in [*candidates, Path("/dev/shm")] if _kind(base) in IN_MEMORY]


def _kind(path: Path) -> str:
    """The type of the file system that a folder lies on; empty when it cannot be told."""
    best, kind = -1, ""
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    for line in lines:
        _, mount, found, *_ = line.split(" ")
        where = mount.encode().decode("unicode_escape")
        if path.resolve().is_relative_to(where) and len(where) >= best:
            best, kind = len(where), found
    return kind
