"""What a support engineer asks first: what is installed, what runs here, and why the rest does not.

Owns the questions; changes nothing. Each answer is found, or says that it cannot be known here: an
engine counts as usable only after it judged a picture, in a process of its own, a moment ago.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import edged
from edged.core.errors import EdgedError
from edged.engines import machine, tune
from edged.engines.choose import (
    ENGINES,
    PACKAGES,
    EngineCandidate,
    EngineRequest,
    Engines,
    installed,
)
from edged.tools.plan_build import compiled
from edged.wire import imaging
from edged.wire.spec import read_spec

LIBRARIES = (
    "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "pycuda", "opencv-python-headless",
    "opencv-python", "onnx", "paho-mqtt", "grpcio", "boto3", "cryptography", "uvicorn",
)  # fmt: skip
FEATURES = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "asimddp", "bf16", "i8mm",
)  # fmt: skip
"""Of a CPU, that decide how fast an engine is."""
TOOL_SECONDS = 10.0
NOT_SHOWN = "edged has not run on a Jetson, with TensorRT or CUDA, or with a V4L2 camera yet"


def examine(state: Path) -> dict[str, dict[str, Any]]:
    """Every section of the page. state: the folder whose disk matters."""
    sections: dict[str, Callable[[], dict[str, Any]]] = {
        "edged": _edged,
        "machine": _machine,
        "gpu": _gpu,
        "engines": _engines,
        "cameras": _cameras,
        "disk": lambda: _disk(state),
        "clock": _clock,
        "packages": _packages,
        "not shown": lambda: {"hardware": NOT_SHOWN},
    }
    return {name: ask() for name, ask in sections.items()}


def _edged() -> dict[str, Any]:
    return {
        "version": edged.__version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }


def _packages() -> dict[str, Any]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine() -> dict[str, Any]:
    info = _text("/proc/cpuinfo")
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info, re.M)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.M)
    have = set(flags[1].split()) if flags else set()
    memory = dict(re.findall(r"^(MemTotal|MemAvailable):\s+(\d+)", _text("/proc/meminfo"), re.M))
    return {
        "board": _text("/proc/device-tree/model").strip("\0 \n") or "not told (no device tree)",
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "cpu_features": " ".join(f for f in FEATURES if f in have) or "none that matter",
        "memory": f"{_megabytes(memory.get('MemAvailable'))} free of "
        f"{_megabytes(memory.get('MemTotal'))}",
        "power_mode": _power_mode(),
        "jetpack": _jetpack(),
    }


def _power_mode() -> str:
    said = _run("nvpmodel", "-q")
    if said:
        return " ".join(said.split())
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
    return f"CPU governor {governor}" if governor else "not told (no nvpmodel, no CPU governor)"


def _jetpack() -> str:
    release = _text("/etc/nv_tegra_release").partition("\n")[0].strip("# ")
    if not release:
        return "no Jetson (no /etc/nv_tegra_release)"
    version = _run("dpkg-query", "-W", "-f", "${Version}", "nvidia-jetpack")
    return f"{version or 'package nvidia-jetpack is not installed'}; {release}"


def _gpu() -> dict[str, Any]:
    said = _run(
        "nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"
    )
    nodes = sorted(
        str(p) for p in Path("/dev").glob("nv*") if re.match(r"nv(idia|host|map)", p.name)
    )
    return {
        "nvidia": said.replace("\n", "; ") if said else "none that nvidia-smi shows",
        "device_nodes": " ".join(nodes) or "none",
    }


def _engines() -> dict[str, Any]:
    """Each engine: how fast it judged a small picture just now, or why it cannot."""
    have = installed()
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="edged-doctor-") as scratch:
        try:
            model = _small_model(Path(scratch) / "model")
        except EdgedError as error:
            return dict.fromkeys((*ENGINES, "tensorrt (fp32)"), f"not tried: {error}")
        for engine in ENGINES:
            if engine not in have:
                found[engine] = f"no: {' or '.join(PACKAGES[engine])} is not installed"
                continue
            found[engine] = _usable(EngineCandidate(engine, model, read_spec(model)), have[engine])
        found["tensorrt (fp32)"] = _tensorrt(model)
    return found


def _usable(candidate: EngineCandidate, version: str) -> str:
    seconds, why = tune.tried(candidate)
    words = f"usable ({version}, {seconds * 1e3:.2f} ms for a small picture)"
    return words if why is None else f"no: {why}"


def _tensorrt(model: Path) -> str:
    """Whether it builds a plan and runs it."""
    if not machine.installed():
        return "no: tensorrt is not installed"
    plans, request = model.with_name("plans"), EngineRequest("tensorrt-fp32")
    try:
        compiled(model, request, plans, lambda *_, **__: None)
        candidate = Engines(plans=plans).candidate(request.engine, model, read_spec(model), request)
        return _usable(candidate, machine.facts()["tensorrt"])
    except EdgedError as error:
        return f"no: {error}"


def _small_model(folder: Path) -> Path:
    """A model folder with an empty graph. Raises MissingDependency without onnx."""
    import hashlib

    from edged.training.export.folder import write_folder
    from edged.training.onnx.nodes import Nodes

    nodes = Nodes(16, 16)
    bright = nodes.add(
        "ReduceMean", nodes.add("Cast", nodes.image, to=1), axes=[1, 2, 3], keepdims=0
    )
    score = nodes.add("Sigmoid", bright, name="score")
    graph = nodes.serialise([(score, ["N"])])
    spec = {
        "version": "0",
        "sha256": hashlib.sha256(graph).hexdigest(),
        "input": {"height": 16, "width": 16},
        "threshold": 0.5,
        "thresholds": [{"threshold": 0.5}],
        "golden": {"black.png": 0.5},
        "out_of_fold": {},
        "classes": [],
    }
    write_folder(folder, graph, spec, {"black.png": np.zeros((16, 16, 3), np.uint8)})
    return folder


def _cameras() -> dict[str, Any]:
    devices = sorted(str(path) for path in Path("/dev").glob("video*"))
    try:
        backends: dict[str, Any] = {"opencv": imaging.version(), **imaging.camera_backends()}
    except EdgedError as error:
        backends = {"opencv": str(error)}
    return {**backends, "v4l2_devices": " ".join(devices) or "none"}


def _disk(state: Path) -> dict[str, Any]:
    place = state
    while not place.exists() and place != place.parent:
        place = place.parent
    usage = shutil.disk_usage(place)
    return {
        "state_dir": str(state) + ("" if state.is_dir() else " (not there yet)"),
        "free": f"{usage.free >> 20} MB of {usage.total >> 20} MB",
        "writable": "yes" if os.access(place, os.W_OK) else "no: not by this user",
    }


def _clock() -> dict[str, Any]:
    said = _run("timedatectl", "show", "-p", "NTPSynchronized", "--value").strip()
    known = {"yes": "synchronised", "no": "NOT synchronised: times of results cannot be trusted"}
    return {"ntp": known.get(said, "not told (timedatectl does not answer)")}


def _run(*command: str) -> str:
    """What a tool says; empty when it is not there, fails or hangs."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _megabytes(kilobytes: str | None) -> str:
    return f"{int(kilobytes) >> 10} MB" if kilobytes else "unknown"
