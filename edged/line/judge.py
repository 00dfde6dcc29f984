"""Who judges for a station: a model by its name, or whatever a project of the API has hosted.

Owns the choice between the station's models, which a command (`recipe`) may change, and what is
kept of commands on disk. It judges nothing itself: it seats the station's jobs at the host.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edged.config import StationConfig
from edged.core.errors import BadImage, InvalidInput, NotFound, ShuttingDown, WrongState
from edged.core.types import Job
from edged.hosting.host import Host
from edged.runtime import durable

log = logging.getLogger(__name__)


class StationJudge:
    """Which model of the host judges a station's parts. `offer` and `hosted`: any thread."""

    def __init__(self, host: Host, station: StationConfig, memory: CommandMemory) -> None:
        self._host = host
        self._station = station
        self._memory = memory
        said = memory.of(station.name).get("model")
        self._model = said if said in station.models else station.model
        self._follower = Follower(host, station.follows) if station.model is None else None

    def offer(self, job: Job) -> None:
        """Seat a job. Raises what Host.offer raises."""
        if self._follower is not None:
            self._follower.offer(job)
        else:
            self._host.offer(self._model or "", job)

    def model(self) -> str:
        """The model's name, of the newest that is hosted where it follows a project."""
        if self._follower is None:
            return self._model or ""
        versions = self._host.versions(self._station.follows)
        return next((name for name in versions if self._host.serves(name)), "")

    def hosted(self) -> bool:
        """Whether a model is there to judge."""
        if self._follower is not None:
            versions = self._host.versions(self._station.follows)
            return any(self._host.serves(version) for version in versions)
        return self._host.serves(self._model or "")

    def choose(self, model: str) -> str:
        """Let another of the station's models judge from the next part on.

        One that is not hosted is started; until it is, parts are not judged. Raises InvalidInput.
        """
        allowed = {name for name in (self._station.model, *self._station.models) if name}
        if model not in allowed:
            have = ", ".join(sorted(allowed)) or "none: it follows a project"
            raise InvalidInput(
                f"Station {self._station.name} may not use model {model!r} (it may use: {have})."
            )
        self._memory.keep(self._station.name, model=model)
        self._model = model
        if self._host.serves(model):
            return f"Model {model} judges from the next part on."
        with suppress(WrongState):  # it is starting already
            self._host.start(model)
        return f"Model {model} is starting; parts are judged once it is hosted."


class Follower:
    """The newest hosted version of a project of the API judges; on the camera's thread.

    So a new version takes over between two frames: until it is hosted, the one before judges; once
    it is, the next frame goes to it, and what the old one still has in progress is answered by the
    old one. A version that cannot take the camera's pictures does not take over: that is said once,
    and the one before goes on.
    """

    def __init__(self, host: Host, project: str) -> None:
        """project: what the names of its models begin with, up to the version."""
        self._host = host
        self._project = project
        self._refused: set[str] = set()

    def offer(self, job: Job) -> None:
        """Seat a job as Host.offer does. Raises what that raises, of the newest version."""
        first: NotFound | WrongState | BadImage | ShuttingDown | None = None
        for name in self._host.versions(self._project):
            try:
                return self._host.offer(name, job)
            except (NotFound, WrongState, ShuttingDown) as error:  # it comes or goes
                first = first or error
            except BadImage as error:
                if name not in self._refused:
                    self._refused.add(name)
                    log.error("%s cannot judge camera %s: %s", name, job.frame.station, error)
                first = first or error
        raise first or WrongState(f"No model of {self._project.rstrip('/')} is hosted: start one.")


class CommandMemory:
    """What stations were told by command, kept on disk: a restart must not undo it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said: dict[str, dict[str, Any]] = {}
        try:
            said = json.loads(path.read_bytes())
            self._said = {k: v for k, v in said.items() if isinstance(v, dict)}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError) as error:
            log.error("%s cannot be read (%s): recipes and stops by command are gone", path, error)

    def of(self, station: str) -> Mapping[str, Any]:
        """`model` and `halted`, as far as they were said."""
        return self._said.get(station, {})

    def keep(self, station: str, **said: Any) -> None:
        """Remember; any thread, but for one station at a time. Raises WrongState."""
        whole = {**self._said, station: {**self.of(station), **said}}
        try:
            durable.replace(self._path, json.dumps(whole).encode())
        except OSError as error:
            raise WrongState(
                f"The command is not carried out, for it cannot be kept in {self._path} "
                f"({error.strerror}): check the disk."
            ) from error
        self._said = whole
