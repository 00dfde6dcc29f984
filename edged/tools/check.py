"""What can be known about a configuration before it runs. Opens no device, port or engine."""

from __future__ import annotations

from pathlib import Path

from edged.config import (
    CameraConfig,
    Config,
    FolderCameraConfig,
    OpenCvCameraConfig,
    SimulatedCameraConfig,
)
from edged.config.load import load, locate
from edged.core.errors import ConfigError, EdgedError
from edged.engines.choose import ENGINES, PACKAGES, installed
from edged.wire.spec import read_spec

FILES = (
    "password_file", "token_file", "ca_file", "client_ca_file", "cert_file", "key_file",
)  # fmt: skip
"""Keys of sections that name a file which must be there."""


def check(path: Path) -> Config:
    """Read a configuration and look whether what it names is there; and return it."""
    config = load(path)
    problems = []
    lines = path.read_text(encoding="utf-8").splitlines()
    sizes: dict[str, tuple[int, int] | None] = {}
    for index, model in enumerate(config.models):
        try:
            sizes[model.name] = read_spec(model.path, model.name).image_size
        except EdgedError as error:
            line = locate(lines, ("models", index, "path"))
            problems.append(f"{path}:{line} models[{index}].path: {error}")
        if model.engine in ENGINES and model.engine not in installed():
            line = locate(lines, ("models", index, "engine"))
            packages = " or ".join(PACKAGES[model.engine])
            problems.append(
                f"{path}:{line} models[{index}].engine: {model.engine} needs {packages}, which is "
                "not installed."
            )
    for index, camera in enumerate(config.cameras):
        key, trouble = _camera_trouble(camera, sizes.get(camera.model or ""))
        if trouble:
            line = locate(lines, ("cameras", index, key))
            problems.append(f"{path}:{line} cameras[{index}].{key}: {trouble}")
    for section in ("mqtt", "grpc", "rest"):
        for key in FILES:
            file = getattr(getattr(config, section), key, None)
            if file is not None and not file.is_file():
                line = locate(lines, (section, key))
                problems.append(f"{path}:{line} {section}.{key}: no file {file}; correct the path.")
    if problems:
        raise ConfigError(*problems)
    return config


def _camera_trouble(camera: CameraConfig, wanted: tuple[int, int] | None) -> tuple[str, str]:
    """The key and what is wrong with it, or two empty words. wanted: (height, width)."""
    if isinstance(camera, FolderCameraConfig) and not camera.path.is_dir():
        return "path", f"no folder {camera.path}; create it or correct the path."
    if isinstance(camera, OpenCvCameraConfig) and isinstance(camera.source, str):
        is_file = "://" not in camera.source and camera.backend != "gstreamer"
        if is_file and not Path(camera.source).exists():
            return "source", f"no file or device {camera.source}; correct the path."
    if isinstance(camera, SimulatedCameraConfig) and wanted:
        height, width = wanted
        if (camera.height, camera.width) != wanted:
            return "width", (
                f"renders {camera.width}x{camera.height} pixels, model {camera.model} was trained "
                f"on {width}x{height}: set width = {width} and height = {height}."
            )
    return "", ""
