"""What the host keeps of a model: how it is to be hosted, what runs, and how it stands."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edged.core.lifecycle import ModelStatus
from edged.core.protocols import EngineLoader
from edged.core.types import ModelSpec
from edged.hosting.batch import Batcher
from edged.hosting.improve import EngineUpgrade
from edged.hosting.parity import LoadEngine
from edged.hosting.units import UnitPool
from edged.runtime.workers import Worker


@dataclass(frozen=True, slots=True)
class HostingSpec:
    """How one model is to be hosted; each step of a start in its order, all may raise EdgedErrors.

    folder: makes sure that the model folder is there, and gives it; recipes: load it, best first;
    better: see improve.py.
    """

    name: str
    folder: Callable[[], Path]
    read: Callable[[Path], ModelSpec]
    loads: Callable[[Path, ModelSpec], Sequence[LoadEngine]]
    units: int | None = None
    max_units: int | None = None
    queue: int = 16
    upgrade: EngineUpgrade | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """What one start made and its stop, or its failure, takes down. folder: of the model."""

    folder: Path
    loader: EngineLoader
    batcher: Batcher
    pool: UnitPool
    units: int


@dataclass(slots=True)
class Model:
    """One model of a host, under the host's lock."""

    hosting: HostingSpec
    status: ModelStatus = ModelStatus.TRAINED
    message: str = "The model is not running."
    spec: ModelSpec | None = None
    running: Running | None = None
    settled: threading.Event = field(default_factory=threading.Event)
    upgrading: Worker | None = None
    """Looks for a better engine."""
    coming: UnitPool | None = None
    """Of another engine, while units change."""
    idle: int = 0
    short: int = 0
