"""A camera without a camera: rendered parts that know their own truth.

What a fresh machine without pictures runs on. Everything it delivers says `simulated`, and that
word travels into every record made of it.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime, timezone

from edged.cameras.schedule import FrameSchedule
from edged.cameras.simulation.parts import render
from edged.core.types import Picture


class SimulatedCamera:
    """Renders frames 0, 1, 2, ... at `rate` per second; see core.protocols.Camera."""

    def __init__(
        self,
        part: str,
        seed: int,
        width: int,
        height: int,
        rate: float,
        defect_rate: float,
        count: int | None,
    ) -> None:
        self._part = part
        self._seed = seed
        self._size = (width, height)
        self._rate = rate
        self._defect_rate = defect_rate
        self._count = count
        self._index = 0
        self._pace: FrameSchedule | None = None

    @property
    def paced(self) -> bool:
        """True at rate 0: rendered as fast as it is judged."""
        return self._rate == 0

    def open(self, stop: threading.Event) -> None:
        """Start the schedule; frames go on where they were."""
        self._pace = FrameSchedule(self._rate, stop)

    def read(self) -> Picture | None:
        """The next frame, when it is due; None after `count` frames or at the stop."""
        if self._pace is None or (self._count is not None and self._index >= self._count):
            return None
        image, truth = render(self._part, self._seed, self._index, *self._size, self._defect_rate)
        if not self._pace.wait():
            return None
        name = f"{self._part}-{self._seed}-{self._index}"
        self._index += 1
        now = datetime.now(timezone.utc)
        return Picture(image, time.monotonic_ns(), now, name, simulated=True, truth=truth)

    def close(self) -> None:
        """Nothing to let go of."""
        self._pace = None
