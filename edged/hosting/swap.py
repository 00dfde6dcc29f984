"""Another engine for a model that runs: units change one by one, and no job waits for it.

Both pools take from the same batcher, so nothing is handed over: a new unit opens its engine and
takes work, and only then does an old one leave, after the batch in its hand.
"""

from __future__ import annotations

from collections.abc import Callable

from edged.core.errors import EngineError
from edged.hosting.units import UnitPool

OPEN_SECONDS = 60.0
LEAVE_SECONDS = 60.0


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
