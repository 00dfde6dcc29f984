"""Units that died are replaced; what only a new process can mend ends this one."""

from __future__ import annotations

import threading

import pytest

from edged.core.errors import DeviceLost, EngineError
from edged.hosting.units import RENEW_TICKS
from tests.hosting.test_host import outcome, wait_until
from tests.support.fakes import PATIENCE, FakeLoader, Line


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


def test_a_lost_device_answers_its_jobs_and_ends_the_daemon() -> None:
    """What only a new process can mend must not be tried again in this one."""

    def fails() -> bool:
        raise DeviceLost("CUDA could not finish the batch (error 700).")

    loader = FakeLoader()
    with Line(loader) as line:
        line.start()
        loader.fails = fails
        with pytest.raises(EngineError, match="the accelerator was lost"):
            line.detect().result(PATIENCE)
        assert wait_until(lambda: line.ears.crashed != [], PATIENCE)
        (crash,) = line.ears.crashed
        assert crash.startswith("unit-") and "DeviceLost" in crash
        line.ears.crashed.clear()  # it was to be
