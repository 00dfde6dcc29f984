"""The API's models on this box: hosting them within what it has, and again after a fall.

A model that StartModel could not bring up at all stays HOSTING_FAILED, with its reason, until
somebody starts it anew: trying again would only repeat it. One that served in this life, or was to
be hosted when this life began, comes back by itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path

from edged.core.errors import EdgedError, NotFound, QuotaExceeded, Resource
from edged.core.lifecycle import SERVING, ModelStatus
from edged.core.protocols import HostedModel
from edged.core.types import Image, Inspection
from edged.daemon.supervise import REVIVE_SECONDS, Revival, hosting_spec
from edged.engines.candidate import EngineRequest
from edged.engines.choose import Engines
from edged.hosting.host import Host
from edged.rest.context import Context
from edged.rest.models import host as host_model
from edged.rest.models import hosted_name, status_of
from edged.runtime.state import StateFolder
from edged.store.models import ModelRow
from edged.wire.spec import MODEL

log = logging.getLogger(__name__)

LONGEST_PAUSE = 300.0
"""Seconds; pauses double until then."""
UNHOST_SECONDS = 120.0
MEMORY_FACTOR = 4
MEMORY_FLOOR = 64 * 2**20
"""An engine takes about so many times its file (measured: 3), and a runtime's own."""


class ApiHosting:
    """`rest.context.ModelHosting` over the data plane's host. Any thread."""

    def __init__(self, host: Host, state: StateFolder, units: int) -> None:
        """units: inference units that all of the API's models may have together."""
        self._host = host
        self._state = state
        self._units = units
        self._lock = threading.Lock()
        self._given: dict[str, int] = {}

    def host(
        self,
        name: str,
        folder: Path,
        units: int,
        most: int,
        opened: Callable[[], Path] | None = None,
    ) -> None:
        """Begin to host; see rest.context.ModelHosting."""
        resource = Resource("MODEL", "/".join(name.split("/")[-2:]))
        with self._lock:
            taken = sum(count for key, count in self._given.items() if self._takes(key, name))
            if taken + most > self._units:
                raise QuotaExceeded(
                    f"{most} inference units are asked for and {taken} of {self._units} are taken: "
                    "stop a model, ask for fewer, or raise rest.units.",
                    "INFERENCE_UNITS",
                    resource,
                )
            _check_memory(folder, resource)
            if self._known(name) is not None:
                self._host.remove(name)  # it failed; it may come back with other units

            # What is sealed is open on a tmpfs alone, and so is a plan, which holds its weights.
            engines = Engines.of(self._state) if opened is None else Engines(self._state)
            where, request = opened or (lambda: folder), EngineRequest(units=most)
            self._host.add(hosting_spec(name, where, request, engines, units, most))
            self._host.start(name)
            self._given[name] = most

    def unhost(self, name: str) -> None:
        """Stop and forget; see rest.context.ModelHosting."""
        known = self._known(name)
        if known is None:
            return self._give_back(name)
        if known.status in (ModelStatus.STARTING_HOSTING, ModelStatus.SYSTEM_UPDATING):
            known = self._host.wait(name, UNHOST_SECONDS)
        if known.status in SERVING:
            self._host.stop(name)
        self._host.remove(name)
        self._give_back(name)

    def hosted(self, name: str) -> HostedModel | None:
        """What is known of a model; see rest.context.ModelHosting."""
        return self._known(name)

    def detect(self, name: str, image: Image) -> Future[Inspection]:
        """Judge one picture."""
        return self._host.detect(name, image)

    def _give_back(self, name: str) -> None:
        with self._lock:
            self._given.pop(name, None)

    def _takes(self, name: str, other_than: str) -> bool:
        """Whether a model holds its units; one that failed has none."""
        known = self._known(name)
        failed = known is None or known.status is ModelStatus.HOSTING_FAILED
        return name != other_than and not failed

    def _known(self, name: str) -> HostedModel | None:
        try:
            return self._host.wait(name, 0)
        except NotFound:
            return None


def _check_memory(folder: Path, resource: Resource) -> None:
    try:
        size = (folder / MODEL).stat().st_size
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return  # the start will say what is wrong with the folder
    free = next((int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable")), None)
    needed = MEMORY_FLOOR + MEMORY_FACTOR * size
    if free is not None and needed > free:
        raise QuotaExceeded(
            f"The model needs about {needed >> 20} MB and {free >> 20} MB are free: stop a model "
            "first.",
            "MEMORY",
            resource,
        )


@dataclass(slots=True)
class ApiModels:
    """The models of the API. One thread."""

    revival: Revival = field(default_factory=lambda: Revival(REVIVE_SECONDS, LONGEST_PAUSE))
    _served: set[int] = field(default_factory=set)

    def host_all(self, context: Context) -> None:
        """Host what was hosted when the last life ended."""
        for row in context.models.having(ModelStatus.HOSTED):
            self._served.add(row.id)
            _host_again(context, row)

    def revive(self, context: Context) -> None:
        """Look at what shall be hosted, and try again what has fallen."""
        wanted = context.models.having(ModelStatus.HOSTED)
        self._served &= {row.id for row in wanted}
        self.revival.keep([hosted_name(row) for row in wanted])
        for row in wanted:
            status, _ = status_of(context, row)
            if status in SERVING:
                self._served.add(row.id)
                self.revival.well(hosted_name(row))
            elif status is ModelStatus.HOSTING_FAILED and row.id in self._served:
                self._try_again(context, row)

    def _try_again(self, context: Context, row: ModelRow) -> None:
        if not self.revival.due(hosted_name(row)):
            return
        log.warning("model %s failed; hosting it again", hosted_name(row))
        with context.catalog.transaction():  # nobody starts or stops it meanwhile
            found = context.models.by_id(row.id)
            if found is not None and found.status is ModelStatus.HOSTED:
                _host_again(context, found)


def _host_again(context: Context, row: ModelRow) -> None:
    try:
        host_model(context, row, row.facts["units"], row.facts["most"])
    except EdgedError as error:
        log.error("model %s is not hosted again: %s", hosted_name(row), error)
