"""The one place that makes a thread.

A worker has a name, a stop flag, a beat, and a crash report; a crew knows all of them, so that
the watchdog can ask who is stuck and the stop can join everybody by one shared deadline. Loops
beat at least every few seconds, also when idle. A thread stuck in foreign code (a camera driver)
cannot be killed: workers are daemon threads, so it never holds up the exit of the process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

log = logging.getLogger(__name__)


class Deadline:
    """A moment shared by everybody who must be done by then. Unset, it never comes."""

    def __init__(self) -> None:
        self._at: float | None = None

    def set(self, seconds: float) -> None:
        """Let the deadline be `seconds` from now; only the first call counts."""
        if self._at is None:
            self._at = time.monotonic() + seconds

    def remaining(self, at_most: float) -> float:
        """Seconds left, between 0 and `at_most`."""
        if self._at is None:
            return at_most
        return min(at_most, max(0.0, self._at - time.monotonic()))


class Worker:
    """One thread. `run(worker)` returns when `worker.stop` is set, soon."""

    def __init__(self, name: str, run: WorkerMain, on_end: Callable[[Worker], None]) -> None:
        self.name = name
        self.stop = threading.Event()
        self.crash: BaseException | None = None
        self._run = run
        self._on_end = on_end
        self._beat_at = time.monotonic()
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)

    def beat(self, patience: float = 0.0) -> None:
        """I am alive, and not to be missed for `patience` seconds more than usual.

        Called by the loop itself, on its own thread; the next beat ends the patience.
        """
        self._beat_at = time.monotonic() + patience

    @property
    def beat_age(self) -> float:
        """Seconds since the last beat, not counting the patience it asked for."""
        return max(0.0, time.monotonic() - self._beat_at)

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def begin(self) -> None:
        """Start the thread; called once, by the crew."""
        self._thread.start()

    def join(self, seconds: float) -> bool:
        """Wait at most `seconds` for the thread to end; True if it did."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            self._run(self)
        except BaseException as error:
            self.crash = error
            log.exception("worker %s crashed", self.name)
        finally:
            self._on_end(self)


WorkerMain: TypeAlias = Callable[[Worker], None]


class Crew:
    """All workers of one daemon. Its methods may be called on any thread."""

    def __init__(self, on_crash: Callable[[Worker], None] | None = None) -> None:
        self._lock = threading.Lock()
        self._workers: list[Worker] = []
        self._on_crash = on_crash

    def start(self, name: str, run: WorkerMain) -> Worker:
        """Start `run` on a thread called `name`."""
        worker = Worker(name, run, self._ended)
        with self._lock:
            self._workers.append(worker)
        worker.begin()
        return worker

    def stale(self, seconds: float) -> list[str]:
        """Names of the workers that have not beaten for `seconds`."""
        with self._lock:
            return [w.name for w in self._workers if w.beat_age > seconds]

    def ages(self) -> dict[str, float]:
        """Seconds since the last beat, by worker."""
        with self._lock:
            return {w.name: w.beat_age for w in self._workers}

    def _ended(self, worker: Worker) -> None:
        with self._lock:
            self._workers.remove(worker)
        if worker.crash is not None and self._on_crash is not None:
            self._on_crash(worker)
