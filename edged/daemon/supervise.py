"""That the models which should run do: how each is hosted, its start, and its return after a fall.

Models of the configuration run from the start, or since a command chose them: they are
`ConfiguredModels`, on main. Those of the API (api_hosting.py) are hosted and come back by the same
rules, with other pauses.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from edged.config import ModelConfig
from edged.core.errors import ConfigError, WrongState
from edged.core.lifecycle import SERVING, ModelStatus
from edged.core.protocols import HostedModel
from edged.engines.candidate import EngineRequest
from edged.engines.choose import Engines
from edged.hosting.host import Host
from edged.hosting.model import HostingSpec
from edged.tools.plan_build import PlanUpgrade
from edged.wire.spec import read_spec

log = logging.getLogger(__name__)

START_SECONDS = 170.0
"""For the models of the configuration together."""
REVIVE_SECONDS = 5.0
"""Until a model that fell is tried again."""


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
        seen, stopped = settled(host, names, wait)
        failed = [each for each in seen if each.status not in SERVING]
        if failed and len(failed) == len(seen) and not stopped:
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


def settled(
    host: Host, names: Iterable[str], wait: Callable[[float], bool]
) -> tuple[list[HostedModel], bool]:
    """Wait until none of them is starting any more; what became of them, and whether to stop.

    wait: so many seconds; True when edged is to stop, which ends this.
    """
    names, until = list(names), time.monotonic() + START_SECONDS
    while True:
        seen = [host.wait(name, 0) for name in names]
        starting = any(each.status is ModelStatus.STARTING_HOSTING for each in seen)
        if not starting or time.monotonic() >= until:
            return seen, False
        if wait(0.1):
            return seen, True
