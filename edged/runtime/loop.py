"""One asyncio loop on one worker thread.

Owns the loop's life: start, beat, end. Must not know what runs on it: servers come as coroutines.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from edged.core.errors import DeadlineExceeded, ShuttingDown
from edged.runtime.workers import Crew, Worker

BEAT_SECONDS = 1.0
START_SECONDS = 10.0

T = TypeVar("T")


class LoopThread:
    """The owner of a loop. `start`, `run` and `close` are called on any thread but the loop's."""

    def __init__(self, name: str, crew: Crew) -> None:
        self._name = name
        self._crew = crew
        self._worker: Worker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._end = asyncio.Event()

    def start(self) -> None:
        """Start the thread and wait until the loop runs; called once."""
        self._worker = self._crew.start(self._name, self._main)
        if not self._ready.wait(START_SECONDS):
            raise DeadlineExceeded(f"The {self._name} loop did not start in {START_SECONDS:g} s.")

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float) -> T:
        """Run `coroutine` on the loop; its result, or what it raised.

        Raises ShuttingDown when the loop has ended, DeadlineExceeded after `seconds`.
        """
        loop = self._loop
        try:
            if loop is None:
                raise RuntimeError
            future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        except RuntimeError:  # closed, or never started
            coroutine.close()
            raise ShuttingDown(f"The {self._name} loop does not run.") from None
        try:
            return future.result(seconds)
        except FutureTimeoutError:
            if future.done():  # the coroutine's own TimeoutError
                raise
            future.cancel()
            raise DeadlineExceeded(
                f"The {self._name} loop did not answer in {seconds:g} s."
            ) from None

    def close(self, seconds: float) -> bool:
        """End the loop, cancelling what still runs on it; True if the thread ended in time."""
        if self._worker is None:
            return True
        self._worker.stop.set()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed already: its thread crashed
                self._loop.call_soon_threadsafe(self._end.set)
        return self._worker.join(seconds)

    def _main(self, worker: Worker) -> None:
        asyncio.run(self._live(worker))

    async def _live(self, worker: Worker) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready.set()
        while not worker.stop.is_set():
            worker.beat()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._end.wait(), BEAT_SECONDS)
