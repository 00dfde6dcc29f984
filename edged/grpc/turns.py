"""Whose turn it is: one detection at a time for each model, in the order of arrival.

Owns the lines of those who wait. Must not know what is done in a turn. Loop thread only.

Decision. The Edge Agent's interface promises that detections on one model are serialised, and
answers RESOURCE_EXHAUSTED when it cannot keep up. So of one model's callers one is at the host at
a time, MOST_WAITING may wait, and who comes then is told so at once. Cameras and the REST API do
not stand in this line: they share the model's units by the batcher's rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edged.core.errors import Busy

MOST_WAITING = 16
"""Each may hold a picture of 50 MB."""


@dataclass(slots=True)
class _Line:
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    callers: int = 0


class Turns:
    """The lines, by model; a line without callers is forgotten, for names are clients' words."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def place(self, name: str) -> AsyncIterator[asyncio.Lock]:
        """A place in the line of a model; its lock is the turn. Raises Busy when it is full."""
        line = self._lines.setdefault(name, _Line())
        if line.callers > MOST_WAITING:
            raise Busy(
                f"{MOST_WAITING} detections wait for model component {name!r} already: send the "
                "next when one is answered."
            )
        line.callers += 1
        try:
            yield line.lock
        finally:
            line.callers -= 1
            if not line.callers and not line.lock.locked():
                self._lines.pop(name, None)
