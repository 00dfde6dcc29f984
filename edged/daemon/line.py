"""The line of a configuration: its cameras, its stations, and who judges for them.

Part of the composition root: it knows the configuration and the data plane, and no door or sink.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from edged.config import CameraConfig, Config, FolderCameraConfig, OpenCvCameraConfig, StationConfig
from edged.core.observer import Observer
from edged.core.protocols import Camera
from edged.hosting.host import Host
from edged.line.capture import Capture
from edged.line.clock import Conditions, StateChanged, StationClock
from edged.line.in_progress import Rules
from edged.line.judge import CommandMemory, StationJudge
from edged.line.publish import Publisher
from edged.line.station import Station
from edged.runtime.workers import Crew, Deadline

log = logging.getLogger(__name__)

END_SECONDS = 5.0


class Line:
    """Cameras and stations. Everything on main, in the order of the methods."""

    def __init__(self, config: Config, host: Host, crew: Crew, observer: Observer) -> None:
        self.stations = StationClock(crew, observer)
        self.captures: list[Capture] = []
        self.chosen: set[str] = set()
        """Models that a command chose before the last stop; they must be started, too."""
        self._config = config
        self._host = host
        self._crew = crew
        self._observer = observer

    def build(
        self,
        publisher: Publisher,
        next_sequence: Callable[[str], int],
        record_trouble: Callable[[], str] = lambda: "",
        on_state: StateChanged | None = None,
    ) -> None:
        """Make every station and its camera, and start their clock, which answers triggers.

        record_trouble: empty, or why records cannot be kept. on_state: see StationClock.start.
        """
        cameras = {camera.name: camera for camera in self._config.cameras}
        memory = CommandMemory(self._config.state.stations)
        for config in self._config.all_stations:
            judge = StationJudge(self._host, config, memory)
            if config.model is not None and judge.model() != config.model:
                self.chosen.add(judge.model())
            station = Station(
                _rules(config),
                judge.offer,
                publisher,
                next_sequence,
                self._observer,
                self.stations.wake,
            )
            conditions = Conditions(
                judge.hosted,
                judge.choose,
                record_trouble,
                judge.model,
                partial(_halt, memory, config.name),
                bool(memory.of(config.name).get("halted")),
            )
            _warn_of_latency(config, cameras[config.camera])
            interval = config.interval if config.trigger == "interval" else 0.0
            self.stations.add(station, conditions, interval)
            camera = cameras[config.camera]
            capture = Capture(
                camera.name,
                open_camera(camera),
                station,
                self._crew,
                self._observer,
                camera.patience,
            )
            self.captures.append(capture)
        self.stations.start(on_state)

    def start(self) -> None:
        """Start the cameras."""
        for capture in self.captures:
            capture.start()

    def stop(self, deadline: Deadline) -> None:
        """Take no more parts; what has a picture goes on to its verdict."""
        self.stations.close()
        for capture in self.captures:
            capture.stop()
        for capture in self.captures:
            capture.join(deadline)

    def end(self) -> None:
        """After the models have answered: the clock publishes the last and stops."""
        self.stations.end(END_SECONDS)

    @property
    def ended(self) -> bool:
        """Whether every camera has no more pictures."""
        return all(capture.ended.is_set() for capture in self.captures)

    def followed(self) -> list[str]:
        """The models of the API that stations follow."""
        stations = [s for s in self._config.all_stations if s.project is not None]
        return [name for s in stations for name in self._host.versions(s.follows)]


def _halt(memory: CommandMemory, station: str, halted: bool) -> None:
    memory.keep(station, halted=halted)


def _rules(config: StationConfig) -> Rules:
    return Rules(
        config.name,
        config.camera,
        config.trigger,
        int(config.limit * 1e9),
        int((config.window or 0.0) * 1e9),
        config.waiting,
        config.results,
        config.confirm,
    )


def _warn_of_latency(station: StationConfig, camera: CameraConfig) -> None:
    late = isinstance(camera, OpenCvCameraConfig) and "://" in str(camera.source)
    if late and station.trigger in ("mqtt", "grpc", "interval"):
        log.warning(
            "station %s: pictures of a network stream arrive after their exposure; one from before "
            "the trigger is only known by the camera's `latency`, which must be measured. Use a "
            "camera with a trigger of its own where parts move.",
            station.name,
        )


def open_camera(camera: CameraConfig) -> Camera:
    """The camera object that a configuration section describes."""
    if isinstance(camera, FolderCameraConfig):
        from edged.cameras import folder

        return folder.FolderCamera(camera.path, camera.rate, camera.loop)
    if isinstance(camera, OpenCvCameraConfig):
        from edged.cameras import opencv

        return opencv.OpenCvCamera(
            camera.source,
            camera.backend,
            camera.width,
            camera.height,
            camera.fps,
            camera.open_timeout,
            camera.read_timeout,
            camera.latency,
        )
    from edged.cameras.simulation import camera as simulated

    return simulated.SimulatedCamera(
        camera.part,
        camera.seed,
        camera.width,
        camera.height,
        camera.rate,
        camera.defect_rate,
        camera.count,
    )
