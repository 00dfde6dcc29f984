"""What happens behind a model that runs: a better engine is made ready, and takes over.

The line never waits for it. Whatever goes wrong here is said in the model's message and in the
metrics, and leaves the model on the engine that it has.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from edged.core.errors import EdgedError, NotFound, WrongState
from edged.core.lifecycle import ModelStatus
from edged.core.types import ModelSpec
from edged.hosting.parity import LoadEngine
from edged.runtime.child import Cancelled
from edged.runtime.workers import Worker

log = logging.getLogger(__name__)


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


class Hosted(Protocol):
    """What this asks of the host. Any thread."""

    def swap(self, name: str, load: LoadEngine) -> ModelStatus:
        """Begin to give a hosted model another engine."""

    def remark(self, name: str, words: str, refused: bool = False) -> None:
        """Say something of a model that runs."""


def improve(
    host: Hosted,
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


def _refused(host: Hosted, name: str, words: str) -> None:
    with suppress(NotFound):
        host.remark(name, words, refused=True)
