"""Work in the background: at low priority while it lasts, and nothing of it stays there."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading

from edged.runtime.priority import NICE, background

SCRIPT = """
import os, sys, threading
from edged.runtime.priority import background
if sys.argv[1] == "no right":  # as a service without LimitNICE= has it
    import resource
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    os.setuid(65534)
mine = lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
stop, begun = threading.Event(), threading.Event()
seen = {}
def serve():
    seen["begun in it"] = mine(); begun.set(); stop.wait(); seen["after it"] = mine()
with background():
    seen["in it"] = mine()
    thread = threading.Thread(target=serve); thread.start(); begun.wait()
stop.set(); thread.join()
seen["mine, after it"] = mine()
print(seen)
"""


def told(right: str) -> dict[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, right], capture_output=True, text=True, check=True
    )
    found: dict[str, int] = eval(done.stdout)
    return found


def test_threads_begun_meanwhile_come_back_to_serve() -> None:
    if os.geteuid() != 0 and resource.getrlimit(resource.RLIMIT_NICE)[0] < 20:
        with background():
            here = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert here == 0  # without the right nothing is given up
        return
    assert told("right") == {
        "in it": NICE, "begun in it": NICE, "after it": 0, "mine, after it": 0,
    }  # fmt: skip


def test_without_the_right_to_come_back_nothing_is_given_up() -> None:
    if os.geteuid() != 0:
        return  # the test above was this one
    assert set(told("no right").values()) == {0}
