"""How many calls a second each operation may have: a bucket of tokens for each caller and one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from edged.core.errors import Busy
from edged.store.catalog import Scope

UNLIMITED = frozenset({"DetectAnomalies"})
"""Limited by the inference queue instead."""
MOST = 4096
"""Buckets remembered; one that is full again is forgotten first."""


class Throttle:
    """Any thread. rate: calls a second for each account, region and operation; 0 = no limit."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[tuple[Scope, str], tuple[float, float]] = {}

    def take(self, scope: Scope, operation: str) -> None:
        """Count one call. Raises Busy when it comes too soon."""
        if not self._rate or operation in UNLIMITED:
            return
        most = max(1.0, self._rate)
        with self._lock:
            now = self._clock()
            level, since = self._buckets.get((scope, operation), (most, now))
            level = min(most, level + (now - since) * self._rate)
            if level < 1.0:
                raise Busy(
                    f"Rate exceeded: {operation} may be called {self._rate:g} times a second."
                )
            self._buckets[scope, operation] = level - 1.0, now
            if len(self._buckets) > MOST:
                self._forget(now)

    def _forget(self, now: float) -> None:
        full = max(1.0, self._rate) / self._rate
        self._buckets = {k: v for k, v in self._buckets.items() if now - v[1] < full}
