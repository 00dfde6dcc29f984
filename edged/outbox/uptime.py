"""The clock by which records age: seconds that this box has been up, summed over its boots.

It must never be moved by whoever sets the clock: a wrong year would throw away every record.

Decision: wall time steps, so it is not asked. The kernel's CLOCK_BOOTTIME does not step and goes
on while edged is stopped or the box is suspended, which a count of edged's own running time would
miss. It starts again at each boot: the boot's random name tells, and the sum goes on from the last
moment that was written down. Only the time without power is missing, and what had not been
written down before it. So the sum falls behind, never ahead: a record may be kept too long, and
is never dropped too early.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Saved(NamedTuple):
    """What survives a restart: the boot's name, and the sum at its beginning."""

    boot: str
    before: float


def boot_name() -> str:
    """The kernel's random name of this boot; empty where there is none."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def since_boot() -> float:
    """Seconds, suspended ones included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Uptime:
    """The sum. `resume` first; one thread at a time."""

    def __init__(
        self, boot: Callable[[], str] = boot_name, seconds: Callable[[], float] = since_boot
    ) -> None:
        self._boot = boot
        self._seconds = seconds
        self._before = 0.0

    def resume(self, saved: Saved | None, seen: float) -> Saved:
        """Go on from what was saved; `seen` is the last moment that was written down.

        Returns what to save now: it holds until the next boot.
        """
        boot, up = self._boot(), self._seconds()
        if saved is not None and boot and saved.boot == boot:
            before = saved.before
        elif saved is not None and boot:
            before = seen  # another boot: all of it came later than what was seen
        else:
            before = seen - up  # nothing to go on from: count from here
        self._before = max(before, seen - up)
        return Saved(boot, self._before)

    def now(self) -> float:
        """Seconds up to now."""
        return self._before + self._seconds()
