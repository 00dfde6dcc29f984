"""What a configuration may say: every section and key, with defaults and bounds.

Nothing here reads a file, opens a device, a port or a model. Defaults are safe: every listener is
off or on loopback, and what leaves loopback is encrypted and authenticated unless the file says
otherwise in so many words.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edged.core.names import Engine

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
PROJECT = r"^(arn:aws:lookoutvision:[a-z0-9-]+:[0-9]{12}:project/)?[A-Za-z0-9][A-Za-z0-9_-]{0,254}$"
ACCOUNT, REGION = "123456789012", "us-east-1"
"""Of a project that is called by its name alone, and of keys that name no account."""
Name = Annotated[str, Field(pattern=NAME, max_length=64)]
Seconds = Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)]
Rate = Annotated[float, Field(ge=0, le=10000, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Section(BaseModel):
    """Unknown keys are faults; nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelConfig(Section):
    """One trained model to host."""

    name: Name
    path: Path
    engine: Engine = "auto"
    units: int | None = Field(default=None, ge=1, le=64)
    """Inference units at start; None = what a short run finds best on this machine."""
    max_units: int | None = Field(default=None, ge=1, le=64)
    """The pool may grow to this many while frames wait; None = it stays at `units`."""
    batch: int | None = Field(default=None, ge=1, le=64)
    zero_copy: bool = False
    """TensorRT on a Jetson: the GPU reads pictures where the CPU put them."""
    queue: int = Field(default=16, ge=1, le=1024)
    """Jobs that may wait for a unit."""
    autostart: bool = True

    @model_validator(mode="after")
    def _units_in_order(self) -> ModelConfig:
        if self.units and self.max_units and self.max_units < self.units:
            raise ValueError(f"max_units = {self.max_units} is less than units = {self.units}")
        return self


class Camera(Section):
    """What every kind of camera has."""

    name: Name
    model: Name | None = None
    """The model that judges this camera's parts; or:"""
    project: str | None = Field(default=None, pattern=PROJECT)
    """The project of the API whose newest hosted version does: its name, or its ARN."""

    @property
    def follows(self) -> str:
        """What the names of the project's models begin with; empty without a project."""
        if self.project is None:
            return ""
        if not self.project.startswith("arn:"):
            return f"{ACCOUNT}/{REGION}/{self.project}/"
        _, _, _, region, account, resource = self.project.split(":")
        return f"{account}/{region}/{resource.removeprefix('project/')}/"

    @property
    def patience(self) -> float:
        """Seconds that opening it or waiting for one picture may rightly take."""
        rate = getattr(self, "rate", 0.0)
        return 1.0 / rate if rate else 0.0


class OpenCvCamera(Camera):
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


class FolderCamera(Camera):
    """Pictures of a folder, in the order of their names, as if a camera took them."""

    kind: Literal["folder"]
    path: Path
    rate: Rate = 0.0
    """Frames per second; 0 = as fast as they are judged, and none is lost."""
    loop: bool = False


class SimulatedCamera(Camera):
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


class MqttConfig(Section):
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


class GrpcConfig(Section):
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


class RestConfig(Section):
    """The Lookout for Vision API."""

    listen: str = "127.0.0.1:8443"
    """`HOST:PORT`; beyond loopback only with a certificate, and with keys."""
    cert_file: Path | None = None
    """PEM; with it and its key the API speaks HTTPS."""
    key_file: Path | None = None
    anonymous: bool = False
    """Take requests without a signature: everybody on this machine may do everything."""
    buckets: Path | None = None
    """The folder whose folders are buckets; None = buckets/ in state_dir."""
    s3: bool = False
    """Look for buckets that are no folders in an S3 service, with boto3's own credentials."""
    s3_endpoint: str | None = None
    """Of a service that is not AWS, as MinIO; None = AWS."""
    s3_region: str | None = None
    units: int = Field(default=8, ge=1, le=256)
    """Inference units that all models of the API may have together."""
    calls_per_second: float = Field(default=5.0, ge=0, le=10000, allow_inf_nan=False)
    """Of each operation but DetectAnomalies, for each account; 0 = no limit."""
    training_memory_mb: int = Field(default=4096, ge=256)

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        split_address(value)
        return value

    @model_validator(mode="after")
    def _beyond_loopback_is_safe(self) -> RestConfig:
        if bool(self.cert_file) != bool(self.key_file):
            raise ValueError("cert_file and key_file go together: give both or neither")
        host, _ = split_address(self.listen)
        if is_loopback(host):
            return self
        if self.cert_file is None:
            raise ValueError(
                f"{host} can be reached from outside: set cert_file and key_file for HTTPS, or "
                "listen on 127.0.0.1"
            )
        if self.anonymous:
            raise ValueError(
                f"{host} can be reached from outside, and anonymous lets everybody do everything: "
                "set anonymous = false, or listen on 127.0.0.1"
            )
        return self


class Quotas(Section):
    """Limits of the API, with the defaults that its documentation gives."""

    projects: int = Field(default=100, ge=1)
    """Of an account in a region; the documentation has no number."""
    tags: int = Field(default=50, ge=1, le=200)
    """Of a resource."""
    trainings: int = Field(default=2, ge=1, le=64)
    """Models that may be in training, or wait for it, at once."""
    training_hours: float = Field(default=24.0, gt=0, allow_inf_nan=False)
    train_images: int = Field(default=16_000, ge=1)
    test_images: int = Field(default=4_000, ge=1)
    segmentation_train_images: int = Field(default=8_000, ge=1)
    segmentation_test_images: int = Field(default=800, ge=1)
    manifest_bytes: int = Field(default=1024 * 1024 * 1024, ge=1024)
    image_bytes: int = Field(default=8 * 1024 * 1024, ge=1024, le=12 * 1024 * 1024)
    least_side: int = Field(default=64, ge=16)
    most_side: int = Field(default=4096, le=16384)
    single_normal: int = Field(default=20, ge=0)
    """Labelled images that a single data set must have at least."""
    single_anomaly: int = Field(default=10, ge=0)
    train_normal: int = Field(default=10, ge=0)
    """Of the train data set beside a test data set."""
    test_normal: int = Field(default=10, ge=0)
    test_anomaly: int = Field(default=10, ge=0)
    labels: int = Field(default=100, ge=1)
    """Anomaly labels of a project."""
    labels_per_mask: int = Field(default=20, ge=1)
    single_per_label: int = Field(default=20, ge=0)
    """Images with that label and no other, in a single data set."""
    two_per_label: int = Field(default=10, ge=0)
    """The same, in each of two data sets."""


class MetricsConfig(Section):
    """Prometheus metrics."""

    listen: str = "127.0.0.1:9464"

    @field_validator("listen")
    @classmethod
    def _loopback(cls, value: str) -> str:
        return _loopback_address(value) or value


class LogConfig(Section):
    """Logs go to standard error, for journald or a terminal."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto = text on a terminal, JSON otherwise."""


class Config(Section):
    """Everything that `edged run` needs to know."""

    state_dir: Path = Path("/var/lib/edged")
    stop_seconds: Seconds = 10.0
    """A stop delivers what it can within this time; the rest stays on disk."""
    models: tuple[ModelConfig, ...] = ()
    cameras: tuple[CameraConfig, ...] = ()
    mqtt: MqttConfig | None = None
    grpc: GrpcConfig | None = None
    rest: RestConfig | None = None
    quotas: Quotas = Quotas()
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
                    raise At((kind, index, "name"), f"{name!r} is used twice: choose another name")
        known = [m.name for m in self.models]
        for index, camera in enumerate(self.cameras):
            if (camera.model is None) is (camera.project is None):
                raise At(("cameras", index, "model"), "give either a model or a project")
            if camera.project is not None and self.rest is None:
                raise At(
                    ("cameras", index, "project"),
                    "projects are the API's, which is off: add a [rest] section",
                )
            if camera.model is not None and camera.model not in known:
                have = ", ".join(known) or "none"
                raise At(
                    ("cameras", index, "model"),
                    f"no model is called {camera.model!r} (models: {have})",
                )
        if self.grpc and self.grpc.socket is None and self.grpc.listen is None:
            raise At(("grpc",), "nobody could connect: set socket or listen")
        return self


class At(ValueError):
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
