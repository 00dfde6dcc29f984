"""Another engine for a model that runs: units change one by one, and no job waits for it.

Both pools take from the same batcher, so nothing is handed over: a new unit opens its engine and
takes work, and only then does an old one leave, after the batch in its hand.
"""

from __future__ import annotations

from collections.abc import Callable

from edged.core.errors import EngineError
from edged.pipeline.infer import UnitPool

OPEN_SECONDS = 60.0
LEAVE_SECONDS = 60.0


def hand_over(old: UnitPool, new: UnitPool, units: int, beat: Callable[[], None]) -> None:
    """Move `units` units from one pool to the other.

    Raises EngineError when a new unit does not come up; the old pool then has all of its units
    again, and the new one none. beat: called before each wait.
    """
    for count in range(1, units + 1):
        beat()
        new.resize(count, beside=old.size)
        if not new.wait_open(count, OPEN_SECONDS):
            old.resize(units)
            new.retire(LEAVE_SECONDS)
            raise EngineError(f"unit {count} of {units} did not open its engine.")
        if count < units:
            old.resize(units - count, beside=count)
    beat()
    if not old.retire(LEAVE_SECONDS):
        raise EngineError(f"a unit of the old engine does not end within {LEAVE_SECONDS:g} s.")
    new.resize(units)  # says how many there are, now that there is no other pool
