"""A camera that follows a project of the API: the newest of its hosted versions judges.

So a new version takes over between two frames: until it is hosted, the one before judges; once it
is, the next frame goes to it, and what the old one still has in hand is answered by the old one.
A version that cannot take the camera's pictures does not take over: that is said once, and the
one before goes on.
"""

from __future__ import annotations

import logging

from edged.core.errors import BadImage, NotFound, ShuttingDown, WrongState
from edged.core.types import Job
from edged.hosting.host import Host

log = logging.getLogger(__name__)


class Follower:
    """Seats the jobs of one camera; on its thread."""

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
