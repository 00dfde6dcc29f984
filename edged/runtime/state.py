"""The state folder: what a daemon keeps from one life to the next.

Owns how its files are called, and that one daemon alone works in it. What stands in a file is its
owner's. No other module writes one of these names down: whoever needs a file is handed its path.
"""

from __future__ import annotations

import fcntl
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from edged.core.errors import EdgedError


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The files of one state folder, which need not be there. Opens none of them."""

    path: Path

    @property
    def sequences(self) -> Path:
        """The numbers of frames (line/sequences.py)."""
        return self.path / "sequences.sqlite"

    @property
    def stations(self) -> Path:
        """What stations were told by command (line/judge.py)."""
        return self.path / "stations.json"

    @property
    def outbox(self) -> Path:
        """Records on their way to the broker (outbox/store.py)."""
        return self.path / "outbox.sqlite"

    @property
    def bd_seq(self) -> Path:
        """Sparkplug's number of births and deaths (mqtt/sparkplug.py)."""
        return self.path / "sparkplug-bdseq"

    @property
    def archive(self) -> Path:
        """The folder of the archive, unless the configuration names another (archive/)."""
        return self.path / "archive"

    @property
    def catalog(self) -> Path:
        """The API's projects, data sets and models (store/database.py)."""
        return self.path / "catalog.sqlite"

    @property
    def models(self) -> Path:
        """The API's models, a folder each (rest/models.py)."""
        return self.path / "models"

    @property
    def buckets(self) -> Path:
        """The folder of buckets, unless the configuration names another (store/buckets.py)."""
        return self.path / "buckets"

    @property
    def credentials(self) -> Path:
        """Access keys (store/credentials.py)."""
        return self.path / "credentials.json"

    @property
    def keyring(self) -> Path:
        """Keys that encrypt models (store/keyring.py)."""
        return self.path / "keyring.json"

    @property
    def signing_key(self) -> Path:
        """What packages are signed with (store/bundle.py)."""
        return self.path / "signing.key"

    @property
    def audit_log(self) -> Path:
        """One line for each request to the API (rest/chain.py)."""
        return self.path / "audit.log"

    @property
    def plans(self) -> Path:
        """TensorRT's plans (engines/plan.py)."""
        return self.path / "plans"

    @property
    def engine_choice(self) -> Path:
        """Which engine was measured to be the fastest (engines/tune.py)."""
        return self.path / "engine-choice.json"

    @property
    def engine_tuning(self) -> Path:
        """How an engine was measured to be used best (engines/tune.py)."""
        return self.path / "engine-tuning.json"

    def claim(self) -> IO[bytes]:
        """Hold the folder until the returned file is closed, or the process ends in any way.

        Two daemons would give the same numbers and send records twice. Makes the folder if it is
        not there. Raises OSError if it cannot be made, EdgedError if it cannot be written or
        another process holds it.
        """
        lock = self.path / "lock"
        self.path.mkdir(parents=True, exist_ok=True, mode=0o750)
        try:
            file = lock.open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.close()
                raise EdgedError(
                    f"{self.path} is in use by another edged: stop that one, or give this one a "
                    "state_dir of its own."
                ) from None
        except OSError as error:
            raise EdgedError(f"{lock} cannot be used ({error.strerror}).") from error
        return file
