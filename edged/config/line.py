"""Models, cameras and the stations that bind them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edged.config.base import ACCOUNT, PROJECT, REGION, Name, Rate, Seconds, Section
from edged.core.names import EngineName, TriggerKind


class ModelConfig(Section):
    """One trained model to host."""

    name: Name
    path: Path
    engine: EngineName = "auto"
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


class BaseCameraConfig(Section):
    """What every kind of camera has."""

    name: Name
    model: Name | None = None
    """With a model or a project the camera is a free-running station of its own name;"""
    project: str | None = Field(default=None, pattern=PROJECT)
    """without, a section in `[[stations]]` names the camera."""

    @property
    def patience(self) -> float:
        """Seconds that opening it or waiting for one picture may rightly take."""
        rate = getattr(self, "rate", 0.0)
        return 1.0 / rate if rate else 0.0


class OpenCvCameraConfig(BaseCameraConfig):
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
    """Without a picture for so long it is lost; above the longest pause of a triggered camera."""
    latency: float | None = Field(default=None, ge=0, le=10, allow_inf_nan=False)
    """Seconds from exposure to delivery at most; a picture counts as taken so much earlier.

    None: 0.1 for a device, 0.5 for a network stream, 0 for a file.
    """

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


class FolderCameraConfig(BaseCameraConfig):
    """Pictures of a folder, in the order of their names, as if a camera took them."""

    kind: Literal["folder"]
    path: Path
    rate: Rate = 0.0
    """Frames per second; 0 = as fast as they are judged, and none is lost."""
    loop: bool = False


class SimulatedCameraConfig(BaseCameraConfig):
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


CameraConfig = Annotated[
    OpenCvCameraConfig | FolderCameraConfig | SimulatedCameraConfig, Field(discriminator="kind")
]


class StationConfig(Section):
    """A place where parts are inspected: a camera, a model, what starts it, and its answer."""

    name: Name
    camera: Name
    model: Name | None = None
    """The model that judges; or:"""
    project: str | None = Field(default=None, pattern=PROJECT)
    """The project of the API whose newest hosted version does: its name, or its ARN."""
    models: tuple[Name, ...] = ()
    """Other models that the command `recipe` may choose."""
    trigger: TriggerKind = "free"
    interval: Seconds = 1.0
    """Of `trigger = "interval"`."""
    deadline: Seconds | None = None
    """Seconds from the trigger (of free-running and hardware: from the picture) to the verdict;
    None = no limit, and 1 s for triggers from outside, which must have one."""
    window: Seconds | None = None
    """Seconds from the trigger within which the picture must be taken; None = the deadline."""
    waiting: int = Field(default=4, ge=1, le=1024)
    """Triggers that may wait for their picture or verdict; more are missed, as overload."""
    payload: Literal["json", "struct"] = "json"
    """Of `.../result` and `.../ack`: flat JSON, or 64 bytes."""
    byte_order: Literal["little", "big"] = "little"
    """Of the 64 bytes: little for Beckhoff and CODESYS, big for Siemens."""
    qos: Literal[0, 1] | None = None
    """Of `.../result` and `.../ack`; None = as in `[mqtt]`."""
    results: int = Field(default=64, ge=1, le=1024)
    """Results that may wait for the PLC: to leave or, with `confirm`, for its `delivered`."""
    confirm: bool = False
    """The PLC says on `.../delivered` up to which result it is."""
    topic: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*$", max_length=56
    )
    """What its topics begin with; None = `<prefix>/<name>`."""

    @property
    def external(self) -> bool:
        """Whether somebody outside triggers it."""
        return self.trigger in ("mqtt", "grpc")

    @property
    def limit(self) -> float:
        """The deadline in seconds; 0 = none."""
        return self.deadline or (1.0 if self.external else 0.0)

    @property
    def follows(self) -> str:
        """What the names of the project's models begin with; empty without a project."""
        if self.project is None:
            return ""
        if not self.project.startswith("arn:"):
            return f"{ACCOUNT}/{REGION}/{self.project}/"
        _, _, _, region, account, resource = self.project.split(":")
        return f"{account}/{region}/{resource.removeprefix('project/')}/"

    @model_validator(mode="after")
    def _one_judge(self) -> StationConfig:
        if (self.model is None) is (self.project is None):
            raise ValueError("give either a model or a project")
        if self.models and self.model is None:
            raise ValueError("models are for the command recipe, which a project has no use for")
        return self
