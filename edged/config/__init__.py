"""What a configuration may say: every section and key, with defaults and bounds.

    load.py        the file: TOML in, a frozen Config out; errors name file, line and key
    base.py        what sections share: names, bounds, addresses
    line.py        [[models]], [[cameras]], [[stations]]
    mqtt.py        [mqtt]
    sparkplug.py   [sparkplug]
    grpc.py        [grpc]
    rest.py        [rest], [quotas]
    archive.py     [archive]
    daemon.py      [metrics], [log]

Nothing here opens a device, a port or a model, and load.py alone reads a file. Defaults are safe:
every listener is off or on loopback, and what leaves loopback is encrypted and authenticated unless
the file says otherwise in so many words.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import model_validator

from edged.config.archive import ArchiveConfig
from edged.config.base import (
    ACCOUNT,
    NAME,
    REGION,
    At,
    Seconds,
    Section,
    is_loopback,
    split_address,
)
from edged.config.daemon import LogConfig, MetricsConfig
from edged.config.grpc import GrpcConfig
from edged.config.line import (
    BaseCameraConfig,
    CameraConfig,
    FolderCameraConfig,
    ModelConfig,
    OpenCvCameraConfig,
    SimulatedCameraConfig,
    StationConfig,
)
from edged.config.mqtt import MqttConfig
from edged.config.rest import Quotas, RestConfig
from edged.config.sparkplug import SparkplugConfig
from edged.runtime.state import StateFolder

__all__ = [
    "ACCOUNT",
    "NAME",
    "REGION",
    "ArchiveConfig",
    "At",
    "BaseCameraConfig",
    "CameraConfig",
    "Config",
    "FolderCameraConfig",
    "GrpcConfig",
    "LogConfig",
    "MetricsConfig",
    "ModelConfig",
    "MqttConfig",
    "OpenCvCameraConfig",
    "Quotas",
    "RestConfig",
    "Section",
    "SimulatedCameraConfig",
    "SparkplugConfig",
    "StationConfig",
    "is_loopback",
    "split_address",
]


class Config(Section):
    """Everything that `edged run` needs to know."""

    state_dir: Path = Path("/var/lib/edged")
    stop_seconds: Seconds = 10.0
    """A stop delivers what it can within this time; the rest stays on disk."""
    models: tuple[ModelConfig, ...] = ()
    cameras: tuple[CameraConfig, ...] = ()
    stations: tuple[StationConfig, ...] = ()
    archive: ArchiveConfig | None = None
    mqtt: MqttConfig | None = None
    sparkplug: SparkplugConfig | None = None
    grpc: GrpcConfig | None = None
    rest: RestConfig | None = None
    quotas: Quotas = Quotas()
    metrics: MetricsConfig | None = None
    log: LogConfig = LogConfig()

    @property
    def state(self) -> StateFolder:
        """The files in `state_dir`."""
        return StateFolder(self.state_dir)

    @property
    def all_stations(self) -> tuple[StationConfig, ...]:
        """Those of `[[stations]]`, and one for each camera that names its own model."""
        own = [
            StationConfig(name=c.name, camera=c.name, model=c.model, project=c.project)
            for c in self.cameras
            if c.model is not None or c.project is not None
        ]
        return (*own, *self.stations)

    @model_validator(mode="after")
    def _parts_fit(self) -> Config:
        for kind, names in (
            ("models", [m.name for m in self.models]),
            ("cameras", [c.name for c in self.cameras]),
            ("stations", [s.name for s in self.stations]),
        ):
            for index, name in enumerate(names):
                if name in names[:index]:
                    raise At((kind, index, "name"), f"{name!r} is used twice: choose another name")
        for index, camera in enumerate(self.cameras):
            bound = any(s.camera == camera.name for s in self.stations)
            if camera.model is not None and camera.project is not None:
                raise At(("cameras", index, "model"), "give either a model or a project")
            if camera.model is None and camera.project is None and not bound:
                raise At(
                    ("cameras", index, "model"),
                    "give a model or a project, or name the camera in a station",
                )
            self._judge_fits(("cameras", index), camera)
        for index, station in enumerate(self.stations):
            self._station_fits(index, station)
            self._judge_fits(("stations", index), station)
        if self.sparkplug is not None and self.mqtt is None:
            raise At(("sparkplug",), "it goes to the broker of [mqtt]: add that section")
        if self.grpc and self.grpc.socket is None and self.grpc.listen is None:
            raise At(("grpc",), "nobody could connect: set socket or listen")
        return self

    def _judge_fits(self, at: tuple[str, int], judged: BaseCameraConfig | StationConfig) -> None:
        known = [m.name for m in self.models]
        if judged.project is not None and self.rest is None:
            raise At((*at, "project"), "projects are the API's, which is off: add a [rest] section")
        if judged.model is not None and judged.model not in known:
            have = ", ".join(known) or "none"
            raise At((*at, "model"), f"no model is called {judged.model!r} (models: {have})")
        for name in judged.models if isinstance(judged, StationConfig) else ():
            if name not in known:
                raise At((*at, "models"), f"no model is called {name!r}")

    def _station_fits(self, index: int, station: StationConfig) -> None:
        at = ("stations", index)
        camera = next((c for c in self.cameras if c.name == station.camera), None)
        if camera is None:
            have = ", ".join(c.name for c in self.cameras) or "none"
            raise At((*at, "camera"), f"no camera is called {station.camera!r} (cameras: {have})")
        if any(s.camera == station.camera for s in self.stations[:index]):
            raise At((*at, "camera"), f"{station.camera!r} has a station already: one each")
        if camera.model is not None or camera.project is not None:
            raise At(
                (*at, "camera"), f"{station.camera!r} names a model itself: take it away there"
            )
        prefix = self.mqtt.prefix if self.mqtt else "edged"
        topic = station.topic or f"{prefix}/{station.name}"
        others = [s for s in self.all_stations if s.name != station.name]
        taken = {prefix, *(s.topic or f"{prefix}/{s.name}" for s in others)}
        if topic in taken:
            raise At((*at, "topic"), f"{topic!r} is used twice: choose another topic or name")
        if station.trigger == "mqtt" and self.mqtt is None:
            raise At((*at, "trigger"), "there is no broker to come from: add an [mqtt] section")
        if station.trigger == "grpc" and self.grpc is None:
            raise At((*at, "trigger"), "there is no door to come in: add a [grpc] section")
        cameras = {c.name for c in self.cameras if c.name != station.camera}
        if station.name in cameras:
            raise At((*at, "name"), f"{station.name!r} is another camera: choose another name")
