"""One daemon to a state folder: two would give the same sequence numbers and send records twice."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from edged.core.errors import EdgedError

LOCK = "lock"


def claim(folder: Path) -> IO[bytes]:
    """Hold `folder` until the returned file is closed, or the process ends in any way.

    Raises EdgedError if another process holds it or the folder cannot be written.
    """
    path = folder / LOCK
    try:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise EdgedError(
                f"{folder} is in use by another edged: stop that one, or give this one a state_dir "
                "of its own."
            ) from None
    except OSError as error:
        raise EdgedError(f"{path} cannot be used ({error.strerror}).") from error
    return file
