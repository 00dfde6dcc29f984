"""The configuration file: TOML in, a frozen Config out; an error names file, line and key.

Nothing here opens a device, a port or a model: `edged check` may run anywhere. Defaults are
safe: every listener is off or on loopback, and what leaves loopback is encrypted and authenticated
unless the file says otherwise in so many words.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from edged.core.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=10000, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(_Section):
    """One trained model to host."""

    name: Name
    path: Path
    engine: Literal["auto", "onnxruntime", "openvino", "openvino-bf16"] = "auto"
    units: int | None = Field(default=None, ge=1, le=64)
    """Inference units at start; None = what the engine likes on this machine."""
    max_units: int | None = Field(default=None, ge=1, le=64)
    """The pool may grow to this many while frames wait; None = it stays at `units`."""
    batch: int | None = Field(default=None, ge=1, le=64)
    queue: int = Field(default=16, ge=1, le=1024)
    """Jobs that may wait for a unit."""
    autostart: bool = True

    @model_validator(mode="after")
    def _units_in_order(self) -> ModelConfig:
        if self.units and self.max_units and self.max_units < self.units:
            raise ValueError(f"max_units = {self.max_units} is less than units = {self.units}")
        return self


class _Camera(_Section):
    name: Name
    model: Name
    """The model that judges this camera's parts."""

    @property
    def patience(self) -> float:
        """Seconds that opening it or waiting for one picture may rightly take."""
        rate = getattr(self, "rate", 0.0)
        return 1.0 / rate if rate else 0.0


class OpenCvCamera(_Camera):
    """V4L2 device, RTSP stream or video file through OpenCV."""

    kind: Literal["opencv"]
    source: str | int
    """Device number, `rtsp://...`, or a video file."""
    backend: Literal["auto", "v4l2", "ffmpeg", "gstreamer"] = "auto"
    width: int | None = Field(default=None, ge=16, le=16384)
    height: int | None = Field(default=None, ge=16, le=16384)
    fps: float | None = Field(default=None, gt=0, le=1000)
    open_timeout: Seconds = 5.0
    read_timeout: Seconds = 2.0

    @property
    def patience(self) -> float:
        """A driver may try a timeout several times before it gives up (seen: three times)."""
        return 3.0 * max(self.open_timeout, self.read_timeout)

    @field_validator("source", mode="before")
    @classmethod
    def _device_or_address(cls, value: object) -> object:
        # Otherwise `true` would be device 1, and a list two faults of no key in the file.
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise ValueError("must be a device number, rtsp://... or a video file")
        return value


class FolderCamera(_Camera):
    """Pictures of a folder, in the order of their names, as if a camera took them."""

    kind: Literal["folder"]
    path: Path
    rate: Rate = 0.0
    """Frames per second; 0 = as fast as they are judged, and none is lost."""
    loop: bool = False


class SimulatedCamera(_Camera):
    """Rendered parts with known truth, for trying edged without a camera."""

    kind: Literal["simulated"]
    part: Literal["machined", "printed"] = "machined"
    seed: int = Field(default=0, ge=0, lt=2**31)
    width: int = Field(default=640, ge=64, le=4096)
    height: int = Field(default=480, ge=64, le=4096)
    rate: Rate = 10.0
    """Frames per second; 0 = as fast as they are judged."""
    defect_rate: float = Field(default=0.2, ge=0, le=1)
    count: int | None = Field(default=None, ge=1)
    """Stop after so many frames; None = never."""


CameraConfig = Annotated[OpenCvCamera | FolderCamera | SimulatedCamera, Field(discriminator="kind")]


class MqttConfig(_Section):
    """Where results go by MQTT."""

    host: str = "127.0.0.1"
    port: Port = 1883
    prefix: str = Field(
        default="edged", pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", max_length=48
    )
    """Topics are `<prefix>/<camera>/result`, `.../full`, `.../state`."""
    version: Literal["auto", "5", "3.1.1"] = "auto"
    """auto = 5, and 3.1.1 with a broker that does not speak 5."""
    client_id: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$", max_length=64)
    qos: Literal[0, 1] = 1
    """Of the `.../result` topic; `.../full` is always 1."""
    keepalive: int = Field(default=10, ge=2, le=3600)
    username: str | None = None
    password_file: Path | None = None
    tls: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    plaintext: bool = False
    """Use a broker on another machine without TLS or without a login: a closed machine network."""
    max_rows: int = Field(default=1_000_000, ge=100)
    """Records kept while the broker is away; beyond it the oldest go, counted."""

    @model_validator(mode="after")
    def _beyond_loopback_is_safe(self) -> MqttConfig:
        if not self.tls and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("certificates are given, but tls is not on: set tls = true")
        if not is_loopback(self.host):
            if self.username and not self.tls:
                raise ValueError(
                    f"a password would travel in clear text to {self.host}: set tls = true"
                )
            if not (self.tls and (self.username or self.cert_file)) and not self.plaintext:
                raise ValueError(
                    f"{self.host} is another machine: set tls = true and a username or a "
                    "certificate, or plaintext = true if the network between is closed"
                )
        if self.password_file and not self.username:
            raise ValueError("password_file needs a username beside it")
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both or neither")
        return self


class GrpcConfig(_Section):
    """The Edge Agent and the results stream."""

    socket: Path | None = None
    """Unix socket; its permissions (0660) are the authentication."""
    listen: str | None = None
    """`127.0.0.1:PORT`; loopback only."""
    max_message_bytes: int = Field(default=32 * 1024 * 1024, ge=4 * 1024 * 1024)

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str | None) -> str | None:
        return _loopback_address(value)


class MetricsConfig(_Section):
    """Prometheus metrics."""

    listen: str = "127.0.0.1:9464"

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        return _loopback_address(value) or value


class LogConfig(_Section):
    """Logs go to standard error, for journald or a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto = text on a terminal, JSON otherwise."""


class Config(_Section):
    """Everything that `edged run` needs to know."""

    state_dir: Path = Path("/var/lib/edged")
    stop_seconds: Seconds = 10.0
    """A stop delivers what it can within this time; the rest stays on disk."""
    models: tuple[ModelConfig, ...] = ()
    cameras: tuple[CameraConfig, ...] = ()
    mqtt: MqttConfig | None = None
    grpc: GrpcConfig | None = None
    metrics: MetricsConfig | None = None
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> Config:
        for kind, names in (
            ("models", [m.name for m in self.models]),
            ("cameras", [c.name for c in self.cameras]),
        ):
            for index, name in enumerate(names):
                if name in names[:index]:
                    raise _At((kind, index, "name"), f"{name!r} is used twice: choose another name")
        known = [m.name for m in self.models]
        for index, camera in enumerate(self.cameras):
            if camera.model not in known:
                have = ", ".join(known) or "none"
                raise _At(
                    ("cameras", index, "model"),
                    f"no model is called {camera.model!r} (models: {have})",
                )
        if self.grpc and self.grpc.socket is None and self.grpc.listen is None:
            raise _At(("grpc",), "nobody could connect: set socket or listen")
        return self


class _At(ValueError):
    """A fault found by looking across sections; `loc` says which key to point at."""

    def __init__(self, loc: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.loc = loc


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine and nobody else can reach it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def split_address(listen: str) -> tuple[str, int]:
    """`host:port` -> (host, port); raises ValueError with a sentence."""
    host, colon, port = listen.rpartition(":")
    host = host.strip("[]")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not an address: write host:port, as in 127.0.0.1:9464")
    return host, int(port)


def _loopback_address(listen: str | None) -> str | None:
    if listen is None:
        return None
    host, _ = split_address(listen)
    if not is_loopback(host):
        raise ValueError(
            f"{host} can be reached from outside without TLS and authentication: use 127.0.0.1"
        )
    return listen


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
    if isinstance(cause, _At):
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

    cameras: dict[str, type[_Camera]] = {"opencv": OpenCvCamera, "folder": FolderCamera}
    sections: dict[str, type[_Section]] = {
        "models": ModelConfig,
        "cameras": cameras.get(kind, SimulatedCamera),
        "mqtt": MqttConfig,
        "grpc": GrpcConfig,
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
        if isinstance(camera, OpenCvCamera) and isinstance(camera.source, str):
            local = base / camera.source
            if "://" not in camera.source and not camera.source.startswith("/") and local.exists():
                camera = camera.model_copy(update={"source": str(local)})
        cameras.append(camera)
    return config.model_copy(
        update={
            "state_dir": at(config.state_dir),
            "models": tuple(moved(m) for m in config.models),
            "cameras": tuple(cameras),
            "mqtt": moved(config.mqtt) if config.mqtt else None,
            "grpc": moved(config.grpc) if config.grpc else None,
        }
    )
