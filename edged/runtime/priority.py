"""Work beside the line that must not take the CPU from it: what loads an engine while others run.

A runtime starts threads of its own while it loads, and they inherit the priority: those that will
serve must get theirs back. That takes a right (LimitNICE= of the service, or root); without it the
work goes on at the usual priority, since an engine that stays slow would be worse.
"""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NICE = 10
"""A tenth of a core that somebody else wants: more takes from the line, less is never done."""
CAP_SYS_NICE = 23


@contextmanager
def background() -> Iterator[None]:
    """Let everything else of the process go before this thread, and those that begin meanwhile."""
    me = threading.get_native_id()
    usual = os.getpriority(os.PRIO_PROCESS, me)
    if not _may_return_to(usual):
        yield
        return
    before = _threads()
    os.setpriority(os.PRIO_PROCESS, me, NICE)
    try:
        yield
    finally:
        for thread in _threads() - before | {me}:
            with suppress(OSError):  # it ended a moment ago
                os.setpriority(os.PRIO_PROCESS, thread, usual)


def _threads() -> set[int]:
    return {int(task.name) for task in Path("/proc/self/task").iterdir()}


def _may_return_to(usual: int) -> bool:
    """Whether a priority that was given up can be had again (setpriority(2))."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NICE)
    if allowed == resource.RLIM_INFINITY or allowed >= 20 - usual:
        return True
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    rights = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(rights, 16) >> CAP_SYS_NICE & 1)
