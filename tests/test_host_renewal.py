"""Units that died are replaced."""

from __future__ import annotations

import threading

from edged.pipeline.host import RENEW_TICKS
from tests.fakes import PATIENCE, FakeLoader, Line
from tests.test_host import outcome, wait_until


def test_a_unit_that_died_is_replaced_after_a_while() -> None:
    dying = threading.Event()
    dying.set()
    first = lambda: dying.is_set() and threading.current_thread().name == "unit-m-1"  # noqa: E731
    with Line(FakeLoader(fails=first), units=2) as line:
        line.start()

        def dead() -> bool:
            outcome(line.detect())
            return line.ears.units == [2, 1]

        assert wait_until(dead, PATIENCE)
        for _ in range(RENEW_TICKS - 1):
            line.host.adjust()
        assert line.ears.units == [2, 1], "not at once: what killed it may still be there"
        line.host.adjust()
        assert line.ears.units == [2, 1, 2]
