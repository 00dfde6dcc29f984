"""A fixed schedule for sources without a clock of their own. Must not know what is scheduled."""

from __future__ import annotations

import math
import threading
import time


class FrameSchedule:
    """Slots at `rate` per second from the first wait on; used by one thread.

    The schedule does not drift. A reader that comes late gets the current slot at once and then
    waits for the next: slots it missed are gone, there is never a burst. Rate 0 never waits.
    """

    def __init__(self, rate: float, stop: threading.Event) -> None:
        self._rate = rate
        self._stop = stop
        self._start: float | None = None
        self._slot = 0

    def wait(self) -> bool:
        """Wait for the next slot; False if `stop` was set."""
        if self._rate == 0:
            return not self._stop.is_set()
        now = time.monotonic()
        if self._start is None:
            self._start = now
        self._slot = max(self._slot, math.floor((now - self._start) * self._rate))
        delay = self._start + self._slot / self._rate - now
        self._slot += 1
        return not self._stop.wait(max(0.0, delay))
