"""Prometheus metrics: an Observer that counts; scrape.py shows the counts.

The one home of prometheus_client. Names begin with `edged_`, times are seconds, counters end in
`_total`. A part's id is never a label: series live as long as the process. Hooks run on the path
of a frame, so each finds its series in a dict and adds to it; the dicts also bound how many
series a stranger can make. All series of a camera are there, at 0, from its first sign of life,
so that the first loss is seen as a rise and not as a new series.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from edged import __version__
from edged.core.observer import Observer
from edged.core.stations import StationState
from edged.core.types import Inspection, Job, NoVerdict, Reason
from edged.runtime.workers import Crew

BUCKETS = (
    *(0.001, 0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1, 2, 5),
)
"""Seconds. The library's own begin at 5 ms, where a line's budget may already end."""
BATCHES = (1, 2, 4, 8, 16, 32, 64)
OK, NOT_OK, NOT_DECIDABLE = "OK", "NotOK", "NotDecidable"
MOST_SERIES = 256
"""Series of one metric; beyond them the label is `other`."""

# The library would add a second series to every counter, which nobody asks for.
disable_created_metrics()  # type: ignore[no-untyped-call]

Key = TypeVar("Key")
Child = TypeVar("Child")


class _Series(dict[Key, Child]):
    """Label values -> resolved series, made at first use; after that, one look-up in a dict."""

    def __init__(self, make: Callable[[Key], Child], other: Key) -> None:
        super().__init__()
        self._make, self._other = make, other

    def __missing__(self, key: Key) -> Child:
        if len(self) >= MOST_SERIES and key != self._other:
            return self[self._other]
        return self.setdefault(key, self._make(key))  # two threads may both get here


class _CameraSeries:
    """The series of one camera, resolved."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.frames = metrics.frames.labels(name)
        self.skipped = metrics.frames_skipped.labels(name)


class _StationSeries:
    """The series of one station, or other source of frames, resolved. Requests are one, too."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self.latency = metrics.result_latency.labels(name)
        self.results = {e: metrics.results.labels(name, e) for e in (OK, NOT_OK, NOT_DECIDABLE)}
        self.no_verdict = {r: metrics.no_verdict.labels(name, r.word) for r in Reason}
        self.dropped = {r: metrics.frames_dropped.labels(name, r.word) for r in Reason}
        self.missed = metrics.deadline_missed_total.labels(name)
        self.late = metrics.late.labels(name)


class _Link:
    """Whether a camera is there; only what has a capture thread has one."""

    def __init__(self, metrics: Metrics, name: str) -> None:
        self._up = metrics.camera_up.labels(name)
        self._reconnects = metrics.camera_reconnects.labels(name)
        self._was_up = self._was_lost = False

    def set(self, up: bool) -> None:
        """Note up or lost; a return after a loss is a reconnect, the first arrival is none."""
        if up and self._was_lost:
            self._reconnects.inc()
        self._was_lost = not up and (self._was_up or self._was_lost)
        self._was_up = up
        self._up.set(up)


class Metrics(Observer):
    """Counts everything the hooks tell, in a registry of its own. Hooks: any thread.

    `crew` gives the ages of the workers' beats whenever somebody scrapes.
    """

    def __init__(self, crew: Crew | None = None) -> None:
        self.registry = CollectorRegistry()
        self._make_line_metrics()
        self._make_far_end_metrics()
        if crew is not None:
            self.registry.register(_Beats(crew))
        self._cameras = _Series[str, _CameraSeries](lambda n: _CameraSeries(self, n), "other")
        self._stations = _Series[str, _StationSeries](lambda n: _StationSeries(self, n), "other")
        self._triggers = _pairs(self.triggers)
        self._overruns = _Series[str, Counter](self.overruns.labels, "other")
        self._confirm_times = _Series[str, Histogram](self.confirm_seconds.labels, "other")
        self._states = _Series[str, Gauge](self.station_states.labels, "other")
        self._links = _Series[str, _Link](lambda n: _Link(self, n), "other")
        self._units = _Series[str, Gauge](self.units.labels, "other")
        self._serving: dict[str, str] = {}
        self._changes = _Series[str, Counter](self.engine_changes.labels, "other")
        self._refusals = _Series[str, Counter](self.engine_refusals.labels, "other")
        self._rows = _Series[str, Gauge](self.outbox_rows.labels, "other")
        self._bytes = _Series[str, Gauge](self.outbox_bytes.labels, "other")
        self._oldest = _Series[str, Gauge](self.outbox_oldest.labels, "other")
        self._confirmed = _Series[str, Counter](self.outbox_confirmed.labels, "other")
        self._connected = _Series[str, Gauge](self.sink_connected.labels, "other")
        self._pubacks = _pairs(self.sink_puback)
        self._let_go = _pairs(self.outbox_dropped)
        self._losses = _Series[str, Counter](self.archive_losses.labels, "other")
        self._requests = _pairs(self.grpc_requests)
        self._request_seconds = _Series[str, Histogram](self.grpc_request_seconds.labels, "other")
        self._rest = _pairs(self.rest_requests)
        self._rest_seconds = _Series[str, Histogram](self.rest_request_seconds.labels, "other")
        self._queue = self.stage_seconds.labels("queue")
        self._infer = self.stage_seconds.labels("infer")

    def _make_line_metrics(self) -> None:
        count, gauge, spread = self._counter, self._gauge, self._histogram
        info = Info("edged_build", "The running edged.", registry=self.registry)
        info.info({"version": __version__})
        self.frames = count("frames", "Frames that a camera delivered.", "camera")
        self.frames_skipped = count(
            "frames_skipped", "Items of a source that are no picture.", "camera"
        )
        self.frames_dropped = count(
            "frames_dropped", "Jobs that ended without inference.", "station", "reason"
        )
        self.camera_up = gauge("camera_up", "0 while the camera is lost.", "camera")
        self.camera_reconnects = count(
            "camera_reconnects", "Times the camera came back after it was lost.", "camera"
        )
        self.results = count("results", "Inspections, by evaluation.", "station", "eval")
        self.no_verdict = count(
            "no_verdict", "Parts that were not judged, by reason.", "station", "reason"
        )
        self.simulated_results = count("simulated_results", "Inspections no real camera saw.")
        self.result_latency = spread(
            "result_latency_seconds", "From capture to decision, of judged parts.", "station"
        )
        self._make_station_metrics()
        self.stage_seconds = spread(
            "stage_seconds",
            "queue: a judged frame's wait for a unit; infer: resize, copy and engine, per batch.",
            "stage",
        )
        self.batch_size = spread("batch_size", "Images in a batch.", buckets=BATCHES)
        self.units = gauge("units", "Running inference units.", "model")
        self.engine = gauge("engine", "1 for the engine that serves a model.", "model", "engine")
        self.engine_changes = count(
            "engine_changes", "Times that a model got an engine, the first included.", "model"
        )
        self.engine_refusals = count(
            "engine_refusals", "Better engines that did not come up or prove themselves.", "model"
        )

    def _make_station_metrics(self) -> None:
        count = self._counter
        self.triggers = count("triggers", "Triggers that came, by answer.", "station", "ack")
        self.deadline_missed_total = count(
            "deadline_missed", "Parts whose verdict did not leave before its deadline.", "station"
        )
        self.late = count("late_verdicts", "Verdicts that came after the deadline.", "station")
        self.overruns = count(
            "results_overrun", "Results that had to make room for newer ones.", "station"
        )
        self.confirm_seconds = self._histogram(
            "result_confirmed_seconds", "From decision to the PLC's `delivered`.", "station"
        )
        self.station_states = self._gauge(
            "station_state", "State of OPC 40100-1, 1 to 8.", "station"
        )

    def _make_far_end_metrics(self) -> None:
        count, gauge = self._counter, self._gauge
        self.outbox_rows = gauge("outbox_rows", "Records not yet acknowledged.", "sink")
        self.outbox_bytes = gauge("outbox_bytes", "Bytes of the records on disk.", "sink")
        self.outbox_oldest = gauge(
            "outbox_oldest_age_seconds", "Age of the oldest record on disk.", "sink"
        )
        self.outbox_confirmed = count(
            "outbox_confirmed", "Records that their receivers confirmed.", "sink"
        )
        self.outbox_dropped = count(
            "outbox_dropped", "Messages that a sink let go of, by policy.", "sink", "policy"
        )
        self.sink_connected = gauge("sink_connected", "1 while the far end is there.", "sink")
        self.sink_puback = count(
            "sink_puback", "Answers of the far end, one per record.", "sink", "reason"
        )
        self.archive_pictures = gauge("archive_pictures", "Pictures that the archive keeps.")
        self.archive_bytes = gauge("archive_bytes", "Size of the archive's pictures.")
        self.archive_thinning = gauge(
            "archive_thinning", "By free disk: 0 none, 1 rejects only are kept, 2 no new picture."
        )
        self.archive_losses = count(
            "archive_dropped", "What the archive let go of or could not take.", "policy"
        )
        self.grpc_requests = count(
            "grpc_requests", "Requests answered, by status code.", "method", "code"
        )
        self.grpc_request_seconds = self._histogram(
            "grpc_request_seconds", "Time to answer a request.", "method"
        )

        self.rest_requests = count(
            "rest_requests", "API requests answered, by status code.", "operation", "code"
        )
        self.rest_request_seconds = self._histogram(
            "rest_request_seconds", "Time to answer an API request.", "operation"
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"edged_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"edged_{name}", text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, *labels: str, buckets: tuple[float, ...] = BUCKETS
    ) -> Histogram:
        return Histogram(f"edged_{name}", text, labels, buckets=buckets, registry=self.registry)

    def page(self, accept: str) -> tuple[bytes, str]:
        """All counts, in the form that a client accepts; the bytes and their content type."""
        encode, kind = choose_encoder(accept)
        return encode(self.registry), kind

    def frame_captured(self, camera: str) -> None:
        """Count a frame."""
        self._cameras[camera].frames.inc()

    def frame_skipped(self, camera: str, name: str, why: str) -> None:
        """Count an item that is no picture; its name and the reason are for the log."""
        self._cameras[camera].skipped.inc()

    def camera_state(self, camera: str, up: bool, detail: str) -> None:
        """Note up or lost; the detail is for the log."""
        self._links[camera].set(up)

    def job_dropped(self, model: str, job: Job, reason: Reason) -> None:
        """Count a frame that was not inspected."""
        self._stations[job.frame.station].dropped[reason].inc()

    def triggered(self, station: str, word: str) -> None:
        """Count a trigger."""
        self._triggers[station, word].inc()

    def deadline_missed(self, station: str) -> None:
        """Count a verdict that could not leave in time."""
        self._stations[station].missed.inc()

    def result_overrun(self, station: str) -> None:
        """Count a result that made room."""
        self._overruns[station].inc()

    def result_confirmed(self, station: str, seconds: float) -> None:
        """Note how long the PLC took."""
        self._confirm_times[station].observe(seconds)

    def station_state(self, station: str, state: StationState) -> None:
        """Note where a station is; its series are there from now on."""
        self._stations[station]
        self._states[station].set(state.value)

    def batch_done(self, model: str, size: int, seconds: float) -> None:
        """Count a batch and its time."""
        self.batch_size.observe(size)
        self._infer.observe(seconds)

    def inspected(self, inspection: Inspection) -> None:
        """Count a result, why there is none, and how long the part waited for it."""
        series, outcome = self._stations[inspection.frame.station], inspection.outcome
        if inspection.late_of:
            series.late.inc()
            return
        if inspection.frame.simulated:
            self.simulated_results.inc()
        if isinstance(outcome, NoVerdict):
            series.results[NOT_DECIDABLE].inc()
            series.no_verdict[outcome.reason].inc()
            if outcome.reason is Reason.TIMEOUT:
                series.missed.inc()
            return
        series.results[NOT_OK if outcome.is_anomalous else OK].inc()
        series.latency.observe(inspection.timing.total_seconds)
        self._queue.observe(inspection.timing.queue_seconds)

    def units_changed(self, model: str, units: int) -> None:
        """Note the size of a pool."""
        self._units[model].set(units)

    def engine_changed(self, model: str, engine: str) -> None:
        """Note which engine serves, and no other."""
        before = self._serving.pop(model, None)
        if before is not None:
            self.engine.remove(model, before)
        if not engine or len(self._serving) >= MOST_SERIES:
            return
        self._serving[model] = engine
        self.engine.labels(model, engine).set(1)
        self._changes[model].inc()
        self._refusals[model].inc(0)

    def engine_refused(self, model: str) -> None:
        """Count one that was to be better."""
        self._refusals[model].inc()

    def sink_state(self, sink: str, connected: bool, detail: str) -> None:
        """Note whether the far end is there."""
        self._connected[sink].set(connected)

    def sink_backlog(self, sink: str, rows: int) -> None:
        """Note how many records wait."""
        self._rows[sink].set(rows)

    def sink_outbox(self, sink: str, size: int, age: float) -> None:
        """Note what lies on disk."""
        self._bytes[sink].set(size)
        self._oldest[sink].set(age)

    def sink_confirmed(self, sink: str, records: int) -> None:
        """Count confirmed records."""
        self._confirmed[sink].inc(records)

    def sink_delivered(self, sink: str, reason: str) -> None:
        """Count an answer of the far end."""
        self._pubacks[sink, reason].inc()

    def sink_dropped(self, sink: str, policy: str) -> None:
        """Count a message a sink let go of."""
        self._let_go[sink, policy].inc()

    def archive_kept(self, pictures: int, size: int, state: int) -> None:
        """Note what the archive has, and what the free disk lets it keep."""
        self.archive_pictures.set(pictures)
        self.archive_bytes.set(size)
        self.archive_thinning.set(state)

    def archive_dropped(self, policy: str) -> None:
        """Count something that the archive has no longer, or never had."""
        self._losses[policy].inc()

    def request_done(self, method: str, code: str, seconds: float) -> None:
        """Count a request and its time."""
        self._requests[method, code].inc()
        self._request_seconds[method].observe(seconds)

    def rest_request(self, operation: str, code: int, seconds: float) -> None:
        """Count an API request and its time; operation: of the API, or empty for none of them."""
        name = operation or "unknown"
        self._rest[name, str(code)].inc()
        self._rest_seconds[name].observe(seconds)


def _pairs(metric: Counter) -> _Series[tuple[str, str], Counter]:
    return _Series(lambda pair: metric.labels(*pair), ("other", "other"))


class _Beats(Collector):
    """The ages of the workers' beats, asked for at each scrape."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ages = GaugeMetricFamily(
            "edged_worker_beat_age_seconds",
            "Time since a worker last said that it is alive.",
            labels=["worker"],
        )
        for worker, age in self._crew.ages().items():
            ages.add_metric([worker], age)
        yield ages
