"""What TensorRT finds on this machine: everything that a plan depends on beside its model.

Asked in a process of its own, CUDA first: without a driver TensorRT's runtime crashes the process
that touches it, and a broken installation must not be the daemon's end.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from edged.core.errors import EngineError, MissingDependency
from edged.runtime.child import ask

ASK_SECONDS = 60.0
REFUSED = 3  # exit code of a child that says why
L4T = Path("/etc/nv_tegra_release")
_facts: dict[tuple[str, float], Mapping[str, str]] = {}


def installed() -> bool:
    """Whether there is a `tensorrt` to import; on a Jetson it is JetPack's own, of no package."""
    return importlib.util.find_spec("tensorrt") is not None


def facts(idle: Callable[[], None] | None = None) -> Mapping[str, str]:
    """TensorRT, CUDA, GPU, L4T. Raises EngineError with the reason why there are none.

    Asked once for each TensorRT that is installed. idle: see runtime.child.ask.
    """
    known = _installed_at()
    if known not in _facts:
        _facts.clear()
        _facts[known] = _asked(idle)
    return _facts[known]


def _installed_at() -> tuple[str, float]:
    """Which TensorRT there is: it may be updated while the daemon runs."""
    found = importlib.util.find_spec("tensorrt")
    place = found.origin if found is not None else None
    try:
        return (str(place), Path(place).stat().st_mtime if place else 0.0)
    except OSError:
        return (str(place), 0.0)


def _asked(idle: Callable[[], None] | None) -> Mapping[str, str]:
    command = [sys.executable, "-m", "edged.engines.machine"]
    try:
        done = ask(command, ASK_SECONDS, idle)
    except subprocess.TimeoutExpired:
        raise EngineError(f"TensorRT did not answer within {ASK_SECONDS:g} s.") from None
    if done.returncode == REFUSED:
        raise EngineError(done.stderr.strip().rpartition("\n")[2][:500])
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
        return {str(name): str(value) for name, value in found.items()}
    except (IndexError, ValueError, AttributeError):
        last = done.stderr.strip().rpartition("\n")[2][-300:]
        raise EngineError(
            f"TensorRT crashes here (exit code {done.returncode}): {last or 'it said nothing'}"
        ) from None


def _found() -> dict[str, str]:
    from edged.engines import cuda

    gpu, version = cuda.gpu(), cuda.version()  # before TensorRT is touched
    from edged.engines import tensorrt

    try:
        release = L4T.read_text(encoding="utf-8").partition("\n")[0].strip("# ")
    except OSError:
        release = "none"
    return {"tensorrt": tensorrt.version(), "cuda": version, "gpu": gpu, "l4t": release}


if __name__ == "__main__":
    try:
        print(json.dumps(_found()))
    except (EngineError, MissingDependency) as error:
        print(error, file=sys.stderr)
        sys.exit(REFUSED)
