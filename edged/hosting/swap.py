"""Another engine for a model that runs: made ready in the background, then taken unit by unit.

The line never waits for it. Both pools take from the same batcher, so nothing is handed over: a new
unit opens its engine and takes work, and only then does an old one leave, after its batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edged.core.errors import EdgedError, EngineError, NotFound, WrongState
from edged.core.lifecycle import ModelStatus
from edged.core.protocols import EngineLoader
from edged.core.types import ModelSpec
from edged.hosting.parity import LoadEngine, first_qualified
from edged.hosting.units import UnitPool
from edged.runtime import priority
from edged.runtime.child import Cancelled
from edged.runtime.workers import Worker
from edged.wire.spec import GOLDEN

log = logging.getLogger(__name__)

OPEN_SECONDS = 60.0
LEAVE_SECONDS = 60.0


class EngineUpgrade(Protocol):
    """Makes a better engine ready; may take minutes."""

    def __call__(
        self,
        folder: Path,
        spec: ModelSpec,
        running: LoadEngine,
        tell: Callable[[str], None],
        idle: Callable[[], None],
    ) -> LoadEngine | None:
        """How to load what is better than `running`; None if nothing is.

        tell: what is being done. idle: called at least every second; may raise to end this. Raises
        an EdgedError that says why what was asked for cannot be had.
        """


class Upgradable(Protocol):
    """What an upgrade asks of the host. Any thread."""

    def swap(self, name: str, load: LoadEngine) -> ModelStatus:
        """Begin to give a hosted model another engine."""

    def remark(self, name: str, words: str, refused: bool = False) -> None:
        """Say something of a model that runs."""


def upgrade_in_background(
    host: Upgradable,
    name: str,
    upgrade: EngineUpgrade,
    at: tuple[Path, ModelSpec, LoadEngine],
    worker: Worker,
) -> None:
    """Run `better` on this worker's thread, and swap to what it gives. at: as `better` takes it."""

    def idle() -> None:
        worker.beat()
        if worker.stop.is_set():
            raise Cancelled("The model stopped.")

    try:
        load = upgrade(*at, lambda said: host.remark(name, said), idle)
        if load is None:
            host.remark(name, "")
        elif not worker.stop.is_set():
            host.swap(name, load)
    except (Cancelled, WrongState, NotFound):
        log.info("model %s: stopped before a better engine was ready", name)
    except EdgedError as error:
        log.warning("model %s goes on with the engine that it has: %s", name, error)
        _refused(host, name, f"another engine was refused: {error}")
    except Exception as error:
        log.exception("model %s: no better engine", name)
        _refused(host, name, f"another engine failed ({type(error).__name__}).")


def _refused(host: Upgradable, name: str, words: str) -> None:
    with suppress(NotFound):
        host.remark(name, words, refused=True)


def proven_beside(load: LoadEngine, spec: ModelSpec, folder: Path) -> tuple[EngineLoader, float]:
    """An engine that has proven itself, and its largest score difference.

    Raises as first_qualified does. The units that serve have the CPU first.
    """
    with priority.background():
        loader, off, _ = first_qualified([load], spec, folder / GOLDEN)
    return loader, off


def hand_over(old: UnitPool, new: UnitPool, units: int, beat: Callable[[], None]) -> bool:
    """Let `units` units of the new pool take the place of all of the old one's.

    False if an old unit does not end: the new pool serves, and the old engine must stay open.
    Raises EngineError when a new unit does not come up; the old pool then has all of its units
    again, and the new one none. beat: called before each wait.
    """
    had = old.size
    for count in range(1, units + 1):
        beat()
        new.resize(count, beside=old.size)
        if not new.wait_open(count, OPEN_SECONDS):
            old.resize(had)
            new.retire(LEAVE_SECONDS)
            raise EngineError(f"unit {count} of {units} did not open its engine.")
        if count < units:
            old.resize(max(1, had - count), beside=count)
    beat()
    ended = old.retire(LEAVE_SECONDS)
    new.resize(units)  # says how many there are, now that there is no other pool
    return ended
