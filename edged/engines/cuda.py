"""CUDA's driver by pycuda: what a unit needs of it, and nothing else. The one home of `pycuda`.

pycuda keeps a stack of contexts for each thread and aborts the process when a thread ends with one
still on it; what is allocated can be freed only while its context is on top. So everything of a
unit hangs on one UnitStream, made, used and closed on the unit's thread.

The device's primary context, which TensorRT uses too, is retained once and for good: letting go of
it leaves it on CUDA's own stack.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import DeviceLost, EngineError, MissingDependency

try:
    import pycuda.driver as driver
except Exception as error:  # also what a missing libcuda.so raises
    raise MissingDependency("pycuda", "tensorrt", "CUDA", error) from error

STICKY = re.compile(
    r"\b(214|7[01][0-9]|999)\b|illegal|launch failed|launch failure|timed out|misaligned"
    r"|invalid program counter|address space|hardware stack|ECC|assert|unknown error|is lost",
    re.I,
)
"""What pycuda says of errors after which no call of this process succeeds any more."""


def gpu() -> str:
    """Name and compute capability of the GPU, as `Orin sm_87`. Raises EngineError.

    To be asked before TensorRT is touched: without a driver its runtime crashes the process.
    """
    try:
        driver.init()
        if not driver.Device.count():
            raise EngineError("CUDA finds no GPU.")
        device = driver.Device(0)
        major, minor = device.compute_capability()
        return f"{device.name()} sm_{major}{minor}"
    except driver.Error as error:
        raise EngineError(f"CUDA does not work here ({error}).") from error


def shares_memory() -> bool:
    """Whether the GPU has no memory but the CPU's, as on a Jetson. Raises EngineError."""
    gpu()
    return bool(driver.Device(0).get_attribute(driver.device_attribute.INTEGRATED))


def version() -> str:
    """CUDA's, of the driver. Raises EngineError."""
    gpu()
    number = int(driver.get_driver_version())
    return f"{number // 1000}.{number % 1000 // 10}"


@functools.lru_cache(maxsize=1)
def _primary() -> Any:
    gpu()
    return driver.Device(0).retain_primary_context()


@contextmanager
def current() -> Iterator[None]:
    """The primary context on top of this thread's stack. Raises EngineError, DeviceLost."""
    with _told("take the context"):
        _primary().push()
    try:
        yield
    finally:
        driver.Context.pop()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Turn CUDA's errors into ours."""
    try:
        yield
    except driver.Error as error:
        words = f"CUDA could not {what} ({error})."
        raise (DeviceLost if STICKY.search(str(error)) else EngineError)(words) from error


class UnitStream:
    """One unit's stream and buffers. Everything on the thread that made it."""

    def __init__(self) -> None:
        with _told("take the context"):
            _primary().push()
        self._open = True
        self._buffers: list[Any] = []
        try:
            with _told("make a stream"):
                # Not ordered behind other streams; waiting sleeps, and spins no core away.
                self._stream: Any = driver.Stream(1)
                self._done: Any = driver.Event(driver.event_flags.BLOCKING_SYNC)
        except BaseException:
            self.close()
            raise

    @property
    def handle(self) -> int:
        """The stream, as TensorRT takes it."""
        return int(self._stream.handle)

    def pinned(
        self, shape: tuple[int, ...], kind: npt.DTypeLike, mapped: bool = False
    ) -> npt.NDArray[Any]:
        """A page-locked array: copies from and to it run beside the CPU.

        mapped: the GPU sees it, too, at `address`.
        """
        flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
        with _told(f"lock {np.prod(shape)} values in memory"):
            array: npt.NDArray[Any] = driver.pagelocked_empty(shape, kind, mem_flags=flags)
        array[...] = 0
        return array

    def address(self, mapped: npt.NDArray[Any]) -> int:
        """Where the GPU sees a mapped array."""
        with _told("map memory of the CPU"):
            return int(mapped.base.get_device_pointer())  # type: ignore[union-attr]

    def device(self, size: int) -> int:
        """The address of so many bytes of the GPU's memory."""
        with _told(f"allocate {size} bytes of the GPU's memory"):
            buffer = driver.mem_alloc(size)
        self._buffers.append(buffer)
        return int(buffer)

    def send(self, address: int, source: npt.NDArray[Any]) -> None:
        """Begin to copy a page-locked array to the GPU."""
        with _told("copy to the GPU"):
            driver.memcpy_htod_async(address, source, self._stream)

    def fetch(self, target: npt.NDArray[Any], address: int) -> None:
        """Begin to copy from the GPU into a page-locked array."""
        with _told("copy from the GPU"):
            driver.memcpy_dtoh_async(target, address, self._stream)

    def wait(self) -> None:
        """Wait until everything that was begun is done."""
        with _told("finish the batch"):
            self._done.record(self._stream)
            self._done.synchronize()

    def close(self) -> None:
        """Free everything; safe to call twice. Arrays of `pinned` must be gone by then."""
        if not self._open:
            return
        self._open = False
        try:
            self._buffers.clear()
            self._done = self._stream = None
        finally:
            driver.Context.pop()
