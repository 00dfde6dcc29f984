"""Builds TensorRT plans, and keeps them: a plan is good for one model on one machine.

A build takes minutes and much memory, so it happens in a process of its own at low priority; what
it made lies in a folder that this user alone may write, with a sidecar that says what it is of, and
is found by everything that a plan depends on. A plan can hold code, so none is loaded whose bytes
are not those that were written here.

Precision is decided in the graph (training/onnx/half.py) and built strongly typed where TensorRT
can; TF32, which would cut the FP32 distances to ten bits, is off.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edged.core.errors import EngineError
from edged.core.protocols import Progress
from edged.runtime.durable import sync

log = logging.getLogger(__name__)

FORMAT = 1
WORKSPACE = 256 * 1024 * 1024
MOST = 24
PROFILES = 4
"""Of a version whose contexts cannot share one: as many units can be open."""
LARGEST_BATCH = 8
PRECISIONS = {"tensorrt": "fp16", "tensorrt-fp32": "fp32", "tensorrt-int8": "int8"}
"""Engine -> what its network computes in; distances are FP32 always."""


@dataclass(frozen=True, slots=True)
class PlanSpec:
    """What is to be built. sha256: of the model's graph; batch: the largest."""

    sha256: str
    precision: str
    batch: int = LARGEST_BATCH
    workspace: int = WORKSPACE

    def key(self, machine: Mapping[str, str]) -> str:
        """A name for the plan. machine: TensorRT, CUDA, GPU, L4T: whatever a plan depends on."""
        return _named([FORMAT, asdict(self), sorted(machine.items())])


def timing_key(machine: Mapping[str, str]) -> str:
    """A name for the timing cache of a machine, which every build there begins with."""
    return "timing-" + _named([FORMAT, sorted(machine.items())])


def _named(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


class Unusable(EngineError):
    """TensorRT cannot make an engine of a plan: only another plan helps."""


class Plans:
    """Plans kept in a folder. Any thread; two processes may keep the same one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def has(self, key: str) -> bool:
        """Whether a plan is kept under that key; not yet whether it can be trusted."""
        names = self._names()
        return f"{key}.plan" in names and f"{key}.json" in names

    def refusal(self, key: str) -> str:
        """Why the plan of that key was refused when it was proven; empty if it was not."""
        try:
            facts = json.loads((self._folder / f"{key}.json").read_text(encoding="utf-8"))
            return str(facts.get("refused", ""))
        except (OSError, ValueError, AttributeError):
            return ""

    def find(self, key: str) -> bytes | None:
        """The plan of that key; None when there is none, or what lies there cannot be trusted."""
        path, sidecar = self._folder / f"{key}.plan", self._folder / f"{key}.json"
        try:
            with self._locked(fcntl.LOCK_SH):
                facts = json.loads(sidecar.read_text(encoding="utf-8"))
                status = path.stat()
                data = path.read_bytes()
            if status.st_uid not in (0, os.getuid()) or status.st_mode & 0o022:
                raise ValueError("others may have written it")
            if hashlib.sha256(data).hexdigest() != facts["plan_sha256"]:
                raise ValueError("its bytes are not those that were built")
        except FileNotFoundError:
            return None
        except OSError as error:
            log.warning("plan %s cannot be read: %s", key, error)
            return None
        except (ValueError, KeyError, TypeError) as error:
            self.remove(key, str(error))
            return None
        with suppress(OSError):
            os.utime(sidecar)  # the last that are of use to somebody are kept
        return data

    def keep(self, key: str, plan: bytes, facts: Mapping[str, Any]) -> None:
        """Keep a plan, durably. Raises EngineError."""
        self._put(key, plan, {**facts, "plan_sha256": hashlib.sha256(plan).hexdigest()})

    def refuse(self, key: str, why: str, facts: Mapping[str, Any]) -> None:
        """Keep, instead of a plan, why it may not serve. Raises EngineError."""
        self._put(key, None, {**facts, "refused": why})

    def remove(self, key: str, why: str) -> None:
        """Forget a plan that is of no use."""
        log.warning("plan %s is removed: %s", key, why)
        for suffix in ("json", "plan"):
            with suppress(OSError):
                (self._folder / f"{key}.{suffix}").unlink(missing_ok=True)

    @contextmanager
    def attempt(self, key: str) -> Iterator[None]:
        """Around the first use of a plan: one in which a process ended is removed.

        Else a plan that crashes the daemon would do so at each of its starts. Raises EngineError.
        """
        for mark in self._folder.glob(f"{key}.tried-by-*"):
            if not Path("/proc", mark.name.rpartition("-")[2]).exists():
                self.remove(key, "the process that used it first ended at once")
                with suppress(OSError):
                    mark.unlink()
        if not self.has(key):
            raise EngineError(f"Plan {key} was removed: a process ended while it used it first.")
        mine = self._folder / f"{key}.tried-by-{os.getpid()}"
        with suppress(OSError):
            mine.touch()
        try:
            yield
        finally:
            with suppress(OSError):
                mine.unlink()

    def _put(self, key: str, plan: bytes | None, facts: Mapping[str, Any]) -> None:
        shown = {**facts, "format": FORMAT}
        try:
            self._folder.mkdir(exist_ok=True, mode=0o700)
            with self._locked(fcntl.LOCK_EX):
                if plan is None:
                    (self._folder / f"{key}.plan").unlink(missing_ok=True)
                else:
                    self._write(f"{key}.plan", plan)
                self._write(f"{key}.json", json.dumps(shown, indent=2, sort_keys=True).encode())
                sync(self._folder)
                self._forget_others(key, shown)
        except OSError as error:
            raise EngineError(
                f"{self._folder}: a plan cannot be kept ({error.strerror})."
            ) from error

    def _names(self) -> set[str]:
        try:
            return {path.name for path in self._folder.iterdir()}
        except OSError:
            return set()

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """So that nobody reads a plan of one build and the sidecar of another."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(folder, how)
            yield
        finally:
            os.close(folder)

    def _forget_others(self, key: str, shown: Mapping[str, Any]) -> None:
        """Remove what the new one is in the place of: the same of another TensorRT or GPU.

        And those beyond MOST that nobody asked for the longest: their models are gone.
        """
        sidecars = sorted(self._folder.glob("*.json"), key=lambda path: -path.stat().st_mtime)
        for number, sidecar in enumerate(each for each in sidecars if each.stem != key):
            try:
                other = json.loads(sidecar.read_text(encoding="utf-8"))
                same = "what" in shown and other.get("what") == shown["what"]
            except (OSError, ValueError, AttributeError):
                same = False
            if same:
                self.remove(sidecar.stem, f"{key} is in its place")
            elif number >= MOST - 1:
                self.remove(sidecar.stem, f"it is not one of the last {MOST} that were used")

    def _write(self, name: str, data: bytes) -> None:
        descriptor, part = tempfile.mkstemp(prefix=".", dir=self._folder)  # 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(part).replace(self._folder / name)
        finally:
            Path(part).unlink(missing_ok=True)


def build(
    trt: Any,
    logger: Any,
    graph: bytes,
    spec: PlanSpec,
    sm: str | None = None,
    timing: bytes = b"",
    progress: Progress | None = None,
) -> tuple[bytes, bytes]:
    """Build a plan: it, and the timing cache that it leaves (empty where there is none).

    trt: the tensorrt module; logger: see tensorrt.Log. sm: a compute capability by its name, for
    TensorRT-RTX, which can build for a GPU that is not here. timing: an earlier timing cache.
    Raises EngineError with TensorRT's own words, naming node and operator.
    """
    if not graph:  # its parser takes no bytes for a model
        raise EngineError("The model file is empty.")
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # its factory gave nothing
        raise EngineError(f"TensorRT has no builder here: {logger.said()}.") from error
    strong = hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")
    if not strong and spec.precision != "fp32":
        # Such a version decides types itself; the graph's own casts would only be hints.
        raise EngineError(f"TensorRT {trt.__version__} cannot keep to a mixed graph: use fp32.")
    network = builder.create_network(_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(graph):
        raise EngineError(f"TensorRT cannot take this model: {_faults(parser, logger)}.")
    config = _config(trt, builder, spec, sm)
    for _ in range(1 if int(str(trt.__version__).partition(".")[0]) >= 10 else PROFILES):
        profile = builder.create_optimization_profile()
        image = network.get_input(0)
        shape = tuple(image.shape)[1:]
        if any(side < 0 for side in shape):
            raise EngineError(f"The model's input {shape} is open in more than its batch.")
        usual = max(1, spec.batch // 2)
        profile.set_shape(image.name, (1, *shape), (usual, *shape), (spec.batch, *shape))
        if config.add_optimization_profile(profile) < 0:
            raise EngineError(f"TensorRT refuses batches of 1 to {spec.batch}: {logger.said()}.")
    times = _timing(config, timing)
    if progress is not None and hasattr(trt, "IProgressMonitor"):
        config.progress_monitor = monitor = _monitor(trt, progress)  # noqa: F841 - it must live
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"TensorRT could not build this model: {logger.said()}.")
    return bytes(plan), b"" if times is None else bytes(times.serialize())


def _timing(config: Any, earlier: bytes) -> Any:
    """The build's timing cache, begun with an earlier one if TensorRT takes it."""
    cache = config.create_timing_cache(earlier)
    if not config.set_timing_cache(cache, False):
        cache = config.create_timing_cache(b"")
        if not config.set_timing_cache(cache, False):
            return None
    return cache


def _monitor(trt: Any, progress: Progress) -> Any:
    """Tells how many steps of TensorRT's outermost phase are done."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outer: tuple[str, int] | None = None

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self._outer = (name, steps)

        def step_complete(self, name: str, step: int) -> bool:
            if self._outer is not None and self._outer[0] == name:
                progress("building", step + 1, self._outer[1])
            return True

        def phase_finish(self, name: str) -> None:
            """Nothing is told: the steps told it."""

    return Monitor()


def _flags(trt: Any) -> int:
    """Of a new network; the numbers moved between versions, and one of them went."""
    flags = trt.NetworkDefinitionCreationFlag
    known = [getattr(flags, name, None) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED")]
    return sum(1 << int(flag) for flag in known if flag is not None)


def _config(trt: Any, builder: Any, spec: PlanSpec, sm: str | None) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec.workspace)
    config.clear_flag(trt.BuilderFlag.TF32)
    if sm is not None and hasattr(config, "set_compute_capability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, sm), 0)
    return config


def _faults(parser: Any, logger: Any) -> str:
    """What the parser says, with node and operator; older versions tell those to the log only."""
    words = []
    for index in range(min(3, parser.num_errors)):
        error = parser.get_error(index)
        if hasattr(error, "node_operator"):
            where = f"node {error.node_name()} ({error.node_operator()})"
        else:
            where = f"node number {error.node()} ({' '.join(' '.join(logger.tail).split())})"
        words.append(f"{where}: {error.desc().strip()}")
    return "; ".join(words) or str(logger.said())
