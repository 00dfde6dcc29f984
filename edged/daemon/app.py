"""A Config becomes a running daemon: what is started, in which order, and how it ends.

line.py builds the cameras and stations, api.py the Lookout for Vision API, supervise.py says how
models are hosted and sees to it that they run; here they are joined with the doors and the sinks.

Start and stop are one ExitStack: each part that starts registers its own end, so the stop is the
start backwards, under one deadline: cameras stop, models drain, sinks make durable and deliver,
doors close. Main owns signals (the handler sets a flag), the watchdog and that deadline.
"""

from __future__ import annotations

import logging
import queue
import signal
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from edged.config import Config
from edged.core.errors import EdgedError
from edged.core.lifecycle import SERVING
from edged.core.observer import Observer, Observers
from edged.core.protocols import Sink
from edged.core.stations import StationState
from edged.daemon.line import Line
from edged.daemon.metrics import Metrics
from edged.daemon.scrape import MetricsServer
from edged.daemon.summary import RunSummary
from edged.daemon.supervise import START_SECONDS, ConfiguredModels, settled
from edged.daemon.systemd import Notifier
from edged.engines.tune import engines_of
from edged.hosting.host import Host
from edged.line.publish import Publisher
from edged.line.sequences import Sequences
from edged.runtime.workers import Crew, Deadline, Worker

if TYPE_CHECKING:
    from edged.archive.sink import Archive
    from edged.grpc.server import Doors
    from edged.mqtt.sink import MqttSink
    from edged.mqtt.sparkplug import SparkplugSink
    from edged.tools.label import LateLabels

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
STALE_SECONDS = 30.0
FAREWELL_SECONDS = 20.0  # beyond the deadline, for what parts politely


class App:
    """One daemon. Everything but `stop` is called on main."""

    def __init__(self, config: Config, until_cameras_end: bool = False) -> None:
        """With `until_cameras_end`, `run` returns when every camera has no more pictures."""
        self.summary = RunSummary()
        self._config = config
        self._until_cameras_end = until_cameras_end
        # Not an Event: its lock is not reentrant, and a signal handler runs within main's wait.
        self._wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._stopping = False
        self._deadline = Deadline()
        self._crew = Crew(self._crashed)
        self._line: Line | None = None
        self._notifier = Notifier()
        self._failed = ""
        self._archive: Archive | None = None
        self._mqtt: MqttSink | None = None
        self._sparkplug: SparkplugSink | None = None
        self._doors: Doors | None = None
        self._labels: LateLabels | None = None
        self._models = ConfiguredModels(
            config.models,
            engines_of(config.state),
            lambda: self._line.chosen if self._line is not None else set(),
        )
        self._said = ""
        self._without_api = ""

    def stop(self) -> None:
        """Ask `run` to end; from any thread or a signal handler."""
        self._stopping = True
        self._wishes.put("stop")

    def run(self, signals: bool = True) -> None:
        """Start, serve, stop. Raises an EdgedError if it cannot start."""
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        with ExitStack() as stack:
            stack.callback(self._crew_gone)
            host = self._start(stack)
            if not self._stopping:
                self._said = self._status(host)
                self._notifier.ready(self._said)
                log.info("ready: %s", self._said)
                self._say(host)
                self._serve(host)
            self._notifier.stopping()
            self._notifier.extend_timeout(self._config.stop_seconds + FAREWELL_SECONDS)
            if self._doors is not None:
                self._doors.set_serving(False)
            self._deadline.set(self._config.stop_seconds)
            log.info("stopping within %.0f s", self._config.stop_seconds)

    def _start(self, stack: ExitStack) -> Host:
        config = self._config
        state = config.state
        stack.enter_context(state.claim())
        metrics = Metrics(self._crew)
        observer = Observers(metrics, self.summary)
        if config.metrics:
            server = MetricsServer(config.metrics.listen, metrics.page, self._crew)
            server.start()
            stack.callback(server.close)
        used = state.outbox.exists() or state.archive.exists()
        sequences = Sequences(state.sequences, used=used)
        sequences.open()
        stack.callback(sequences.close)
        host = Host(self._models.specs(), self._crew, observer, self._deadline)
        line = self._line = Line(config, host, self._crew, observer)
        sinks = self._start_sinks(stack, host, observer, line)
        publisher = Publisher(sinks, observer)
        trouble = self._mqtt.trouble if self._mqtt else _no_trouble
        line.build(publisher, sequences.next, trouble, self._tell_station)
        stack.callback(publisher.close)
        stack.callback(line.end)
        stack.callback(host.close)
        self._notifier.extend_timeout(START_SECONDS)
        self._models.start(host, self._wished)
        self._start_api(stack, host, metrics)
        followed = line.followed()
        if followed:
            self._notifier.extend_timeout(START_SECONDS)
            settled(host, followed, self._wished)
        stack.callback(line.stop, self._deadline)
        line.start()
        return host

    def _start_api(self, stack: ExitStack, host: Host, metrics: Metrics) -> None:
        config = self._config
        if config.rest:
            from edged.daemon.api import LookoutApi

            lookout = LookoutApi(
                config.rest,
                config.quotas,
                config.state,
                host,
                self._crew,
                self._deadline,
                lambda done: metrics.rest_request(done.operation, done.code, done.seconds),
                self._archive,
                {station.name: station.follows for station in config.all_stations},
            )
            try:
                lookout.start()
            except (EdgedError, OSError) as error:
                if not config.models and not config.cameras:
                    raise  # there is nothing else to run for
                self._without_api = f", no API: {error}"
                log.error("the line runs without the API: %s", error)
            else:
                stack.callback(lookout.close)
                if self._labels is not None:
                    self._labels.desk = lookout.labels

    def _start_sinks(
        self, stack: ExitStack, host: Host, observer: Observer, line: Line
    ) -> list[Sink]:
        config = self._config
        sinks: list[Sink] = []
        if config.archive:
            from edged.archive.sink import Archive

            place = config.state.archive
            self._archive = Archive(config.archive, place, self._crew, observer, self._deadline)
            sinks.append(self._archive)
        if config.grpc:
            from edged.grpc.results import ResultsStream
            from edged.grpc.server import Doors
            from edged.tools.label import LateLabels

            self._labels = LateLabels() if config.archive and config.rest else None
            results = ResultsStream(journal=self._archive)
            asked = any(station.trigger == "grpc" for station in config.all_stations)
            self._doors = Doors(
                config.grpc,
                host,
                results,
                self._crew,
                observer,
                self._deadline,
                line.stations if asked else None,
                self._labels,
            )
            stack.callback(self._doors.close)
            sinks.insert(0, results)  # first to start: what it hears from the archive ends before
        if config.mqtt:
            from edged.mqtt.sink import MqttSink

            mqtt = MqttSink(config.mqtt, config.state.outbox, self._crew, observer, self._deadline)
            mqtt.serve(config.all_stations, line.stations)
            sinks.append(mqtt)
            self._mqtt = mqtt
        if config.sparkplug and config.mqtt:
            from edged.mqtt.sparkplug import SparkplugSink

            devices = [station.name for station in config.all_stations]
            node = SparkplugSink(
                config.mqtt,
                config.sparkplug,
                devices,
                config.state.bd_seq,
                self._crew,
                observer,
                self._deadline,
            )
            self._sparkplug = node
            sinks.append(node)
        for sink in sinks:
            sink.start()
            stack.callback(sink.close)
        if self._doors is not None:
            self._doors.start()
        return sinks

    def _serve(self, host: Host) -> None:
        last_ping = 0.0
        interval = self._notifier.watchdog_interval
        while not self._wished(min(TICK_SECONDS, (interval or 9.0) / 3)):
            host.adjust()
            self._models.revive(host)
            self._say(host)
            stale = self._crew.stale(STALE_SECONDS)
            if stale:
                log.error("no sign of life from %s", ", ".join(stale))
            elif interval and time.monotonic() - last_ping >= interval / 3:
                self._notifier.watchdog()
                last_ping = time.monotonic()
            if self._until_cameras_end and self._line is not None and self._line.ended:
                return

    def _wished(self, seconds: float) -> bool:
        """Wait for the wish to stop."""
        with suppress(queue.Empty):
            self._wishes.get(timeout=seconds)
        return self._stopping

    def _status(self, host: Host) -> str:
        hosted = sum(m.status in SERVING for m in host.models())
        delivering = len(self.summary.delivering)
        return (
            f"{hosted} of {len(host.models())} models hosted, "
            f"{delivering} of {len(self._config.all_stations)} cameras deliver{self._without_api}"
        )

    def _say(self, host: Host) -> None:
        """Tell PLC, MES and systemd whether every model and camera that should work does."""
        hosted = {m.name for m in host.models() if m.status in SERVING}
        if self._doors is not None:
            self._doors.set_serving(bool(hosted) or not self._config.models)
        if self._mqtt is not None:
            wanted = {m.name for m in self._config.models if m.autostart}
            stations = self._config.all_stations
            wanted |= {s.model for s in stations if s.model is not None}
            cameras = {s.camera for s in stations}
            followed = {s.follows for s in stations if s.project is not None}
            judged = all(any(name.startswith(f) for name in hosted) for f in followed)
            whole = wanted <= hosted and judged and cameras <= self.summary.delivering
            self._mqtt.set_state("ready" if whole else "error")
        status = self._status(host)
        if status != self._said:
            self._said = status
            self._notifier.status(status)

    def _tell_station(
        self, station: str, word: str, state: StationState, code: int, model: str
    ) -> None:
        """A station's state has changed; on the stations' clock."""
        if self._mqtt is not None:
            self._mqtt.set_station(station, word, state, code, model)
        if self._sparkplug is not None:
            self._sparkplug.set_alive(station, word != "error")

    def _crashed(self, worker: Worker) -> None:
        self._failed = worker.name
        self.stop()

    def _crew_gone(self) -> None:
        if self._failed:
            log.error("stopped because worker %s crashed; systemd starts edged again", self._failed)

    @property
    def failed(self) -> bool:
        """Whether a crash, not a wish, ended `run`."""
        return bool(self._failed)


def _no_trouble() -> str:
    return ""
