"""The configuration file: TOML in, a frozen Config out; an error names file, line and key.

The keys are those of the files beside this one. Nothing here opens a device, a port or a model:
`edged check` may run anywhere.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edged.config import (
    NAME,
    ArchiveConfig,
    At,
    BaseCameraConfig,
    Config,
    FolderCameraConfig,
    GrpcConfig,
    LogConfig,
    MetricsConfig,
    ModelConfig,
    MqttConfig,
    OpenCvCameraConfig,
    Quotas,
    RestConfig,
    Section,
    SimulatedCameraConfig,
    SparkplugConfig,
    StationConfig,
)
from edged.core.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load(path: Path) -> Config:
    """Read and check a configuration file; relative paths in it start at its folder.

    Raises ConfigError whose problems read `FILE:LINE KEY: what is wrong and what to do`.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{path}:0 -: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}:0 -: is not UTF-8 text (byte {error.start}).") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        at = int(line[1]) if line else text.count("\n") + 1
        raise ConfigError(f"{path}:{at} -: is not TOML: {error}.") from error
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        lines = text.splitlines()
        problems = [_sentence(path, lines, fault) for fault in error.errors()]
        raise ConfigError(*problems) from error
    return _resolve(config, path.resolve().parent)


def _sentence(path: Path, lines: list[str], fault: Any) -> str:
    loc: tuple[str | int, ...] = tuple(fault["loc"])
    cause = fault.get("ctx", {}).get("error")
    kind = ""
    if isinstance(cause, At):
        loc = cause.loc
    elif loc[0:1] == ("cameras",) and len(loc) > 2:  # cameras, index, kind, key
        kind, loc = str(loc[2]), loc[:2] + loc[3:]
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        message = f"unknown key; {_nearest(str(loc[-1]), loc, kind)}"
    elif fault["type"] == "string_pattern_mismatch" and fault["ctx"]["pattern"] == NAME:
        message = f"use letters a to z, digits, - and _ only (found {fault['input']!r})"
    elif fault["type"] == "missing":
        message = "this key is required: add it"
    elif fault["type"] == "union_tag_not_found":
        loc, message = (*loc, "kind"), "this key is required: opencv, folder or simulated"
    elif fault["type"] == "union_tag_invalid":
        found = fault["ctx"]["tag"]
        loc, message = (*loc, "kind"), f"must be opencv, folder or simulated (found {found!r})"
    elif "input" in fault and not isinstance(fault["input"], (dict, list)):
        message = f"{message} (found {fault['input']!r})"
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")
    stop = "" if message.endswith("?") else "."
    return f"{path}:{locate(lines, loc)} {key or '-'}: {message}{stop}"


def _nearest(word: str, loc: tuple[str | int, ...], kind: str) -> str:
    import difflib

    cameras: dict[str, type[BaseCameraConfig]] = {
        "opencv": OpenCvCameraConfig,
        "folder": FolderCameraConfig,
    }
    sections: dict[str, type[Section]] = {
        "models": ModelConfig,
        "cameras": cameras.get(kind, SimulatedCameraConfig),
        "stations": StationConfig,
        "archive": ArchiveConfig,
        "mqtt": MqttConfig,
        "sparkplug": SparkplugConfig,
        "grpc": GrpcConfig,
        "rest": RestConfig,
        "quotas": Quotas,
        "metrics": MetricsConfig,
        "log": LogConfig,
    }
    section = sections[str(loc[0])] if len(loc) > 1 else Config
    known = sorted(section.model_fields)
    close = difflib.get_close_matches(word, known, 1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"


def locate(lines: list[str], loc: tuple[str | int, ...]) -> int:
    """The line (from 1) that sets the key at `loc`, or the header of its table, or 1."""
    table = [str(p) for p in loc[:1]]
    index = loc[1] if len(loc) > 1 and isinstance(loc[1], int) else 0
    key = next((p for p in reversed(loc) if isinstance(p, str)), "")
    start, seen = 0, -1
    for number, line in enumerate(lines, 1):
        header = re.match(r"\s*\[{1,2}\s*([A-Za-z0-9_.\"-]+)\s*\]{1,2}", line)
        if header and header[1].strip('"') in table:
            seen += 1
            if seen == index:
                start = number
        elif not start and len(loc) == 1 and re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", line):
            return number
    for number in range(start, len(lines)):
        if start and re.match(r"\s*\[", lines[number]):
            break
        if re.match(rf"\s*\"?{re.escape(key)}\"?\s*=", lines[number]):
            return number + 1
    return start or 1


def _resolve(config: Config, base: Path) -> Config:
    def at(path: Path | None) -> Path | None:
        return None if path is None else base / path.expanduser()

    def moved(section: Any) -> Any:
        changes = {name: at(value) for name, value in section if isinstance(value, Path)}
        return section.model_copy(update=changes) if changes else section

    cameras = []
    for camera in config.cameras:
        camera = moved(camera)
        if isinstance(camera, OpenCvCameraConfig) and isinstance(camera.source, str):
            local = base / camera.source
            if "://" not in camera.source and not camera.source.startswith("/") and local.exists():
                camera = camera.model_copy(update={"source": str(local)})
        cameras.append(camera)
    return config.model_copy(
        update={
            "state_dir": at(config.state_dir),
            "models": tuple(moved(m) for m in config.models),
            "cameras": tuple(cameras),
            "archive": moved(config.archive) if config.archive else None,
            "mqtt": moved(config.mqtt) if config.mqtt else None,
            "grpc": moved(config.grpc) if config.grpc else None,
            "rest": moved(config.rest) if config.rest else None,
        }
    )
