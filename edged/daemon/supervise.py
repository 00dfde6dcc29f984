"""That the models which should run do: how each is hosted, its start, and its return after a fall.

Models of the configuration run from the start, or since a command chose them (`ConfiguredModels`,
on main). Those of the API run because somebody called StartModel (`ApiHosting`, `ApiModels`): one
that StartModel could not bring up at all stays HOSTING_FAILED, with its reason, until somebody
starts it anew, since trying again would only repeat it; one that served in this life, or was to be
hosted when this life began, comes back by itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edged.config import ModelConfig
from edged.core.errors import ConfigError, EdgedError, NotFound, QuotaExceeded, Resource, WrongState
from edged.core.lifecycle import SERVING, ModelStatus
from edged.core.protocols import HostedModel
from edged.core.types import Image, Inspection
from edged.engines.choose import EngineRequest, Engines
from edged.engines.tune import Tuner, engines_of
from edged.hosting.host import Host, HostingSpec
from edged.runtime.state import StateFolder
from edged.tools.plan_build import PlanUpgrade
from edged.wire.spec import MODEL, read_spec

if TYPE_CHECKING:
    from edged.rest.context import Context
    from edged.store.models import ModelRow

log = logging.getLogger(__name__)

START_SECONDS = 170.0
"""For the models of the configuration together."""
REVIVE_SECONDS = 5.0
"""Until a model that fell is tried again."""
LONGEST_PAUSE = 300.0
"""Seconds; pauses double until then."""
UNHOST_SECONDS = 120.0
MEMORY_FACTOR = 4
MEMORY_FLOOR = 64 * 2**20
"""An engine takes about so many times its file (measured: 3), and a runtime's own."""


def hosting_spec(
    name: str,
    folder: Callable[[], Path],
    request: EngineRequest,
    engines: Engines,
    units: int | None,
    max_units: int | None,
    queue: int = 16,
) -> HostingSpec:
    """How a model is hosted on this box, whoever asks for it; see HostingSpec."""
    return HostingSpec(
        name,
        folder,
        partial(read_spec, name=name),
        lambda place, spec: engines.candidates(place, spec, request),
        units,
        max_units,
        queue,
        PlanUpgrade(request, engines),
    )


@dataclass(slots=True)
class _Trial:
    due: float
    pause: float


@dataclass(slots=True)
class Revival:
    """When what fell is tried again: after `first` seconds, then twice as long, up to `last`.

    One thread.
    """

    first: float
    last: float
    clock: Callable[[], float] = time.monotonic
    _trials: dict[str, _Trial] = field(default_factory=dict)

    def due(self, name: str) -> bool:
        """It is down: whether to try it again now."""
        now = self.clock()
        trial = self._trials.setdefault(name, _Trial(now + self.first, self.first))
        if now < trial.due:
            return False
        trial.pause = min(self.last, 2 * trial.pause)
        trial.due = now + trial.pause
        return True

    def well(self, name: str) -> None:
        """It is not down: the next fall begins anew."""
        self._trials.pop(name, None)

    def keep(self, names: Collection[str]) -> None:
        """Forget all others."""
        self._trials = {name: trial for name, trial in self._trials.items() if name in names}


class ConfiguredModels:
    """The models of the configuration. Everything on main."""

    def __init__(
        self, models: Sequence[ModelConfig], engines: Engines, chosen: Callable[[], set[str]]
    ) -> None:
        """chosen: models that a command chose, which must run, too."""
        self._models = models
        self._engines = engines
        self._chosen = chosen
        self._revival = Revival(REVIVE_SECONDS, REVIVE_SECONDS)

    def specs(self) -> list[HostingSpec]:
        """How each is hosted."""
        return [self._spec(model) for model in self._models]

    def start(self, host: Host, wait: Callable[[float], bool]) -> None:
        """Start what is to run, and wait for all; see `settled`.

        One that fails is no reason to stop the lines of the others. Raises ConfigError if all fail.
        """
        names = self._wanted()
        for name in names:
            host.start(name)
        seen = settled(host, names, wait)
        failed = [each for each in seen if each.status not in SERVING]
        if failed and len(failed) == len(seen) and not wait(0.0):
            raise ConfigError(
                *(f"model {each.name} does not start: {each.message}" for each in failed)
            )

    def revive(self, host: Host) -> None:
        """Start again what should run and has been failed for REVIVE_SECONDS."""
        wanted = self._wanted()
        for model in host.models():
            if model.name not in wanted or model.status is not ModelStatus.HOSTING_FAILED:
                self._revival.well(model.name)
            elif self._revival.due(model.name):
                log.info("model %s failed; starting it again", model.name)
                with suppress(WrongState):  # somebody else started it a moment ago
                    host.start(model.name)

    def _wanted(self) -> list[str]:
        chosen = self._chosen()
        return [model.name for model in self._models if model.autostart or model.name in chosen]

    def _spec(self, model: ModelConfig) -> HostingSpec:
        most = model.units and (model.max_units or model.units)
        request = EngineRequest(model.engine, most, model.batch, model.zero_copy)
        return hosting_spec(
            model.name,
            lambda: model.path,
            request,
            self._engines,
            model.units,
            model.max_units,
            model.queue,
        )


def settled(host: Host, names: Iterable[str], wait: Callable[[float], bool]) -> list[HostedModel]:
    """Wait until none of them is starting any more; what became of them.

    wait: so many seconds; True when edged is to stop, which ends this.
    """
    names, until = list(names), time.monotonic() + START_SECONDS
    while True:
        seen = [host.wait(name, 0) for name in names]
        starting = any(each.status is ModelStatus.STARTING_HOSTING for each in seen)
        if not starting or time.monotonic() >= until or wait(0.1):
            return seen


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
            engines = engines_of(self._state) if opened is None else Engines(Tuner(self._state))
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
    """The models of the API. One thread. Imports its rules late: a box may have no API."""

    revival: Revival = field(default_factory=lambda: Revival(REVIVE_SECONDS, LONGEST_PAUSE))
    _served: set[int] = field(default_factory=set)

    def host_all(self, context: Context) -> None:
        """Host what was hosted when the last life ended."""
        for row in context.models.having(ModelStatus.HOSTED):
            self._served.add(row.id)
            _host_again(context, row)

    def revive(self, context: Context) -> None:
        """Look at what shall be hosted, and try again what has fallen."""
        from edged.rest.models import hosted_name, status_of

        wanted = context.models.having(ModelStatus.HOSTED)
        self._served &= {row.id for row in wanted}
        self.revival.keep([hosted_name(row) for row in wanted])
        for row in wanted:
            name, (status, _) = hosted_name(row), status_of(context, row)
            if status in SERVING:
                self._served.add(row.id)
                self.revival.well(name)
            elif status is ModelStatus.HOSTING_FAILED and row.id in self._served:
                if self.revival.due(name):
                    log.warning("model %s failed; hosting it again", name)
                    with context.catalog.transaction():  # nobody starts or stops it meanwhile
                        found = context.models.by_id(row.id)
                        if found is not None and found.status is ModelStatus.HOSTED:
                            _host_again(context, found)


def _host_again(context: Context, row: ModelRow) -> None:
    from edged.rest.models import host, hosted_name

    try:
        host(context, row, row.facts["units"], row.facts["most"])
    except EdgedError as error:
        log.error("model %s is not hosted again: %s", hosted_name(row), error)
