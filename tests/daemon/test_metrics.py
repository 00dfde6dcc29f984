"""The metrics page as Prometheus reads it: over HTTP, from the real server on loopback."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from edged import __version__
from edged.core.errors import WrongState
from edged.core.stations import StationState
from edged.core.types import Frame, Inspection, Job, NoVerdict, Reason, Timing, Verdict
from edged.daemon.metrics import MOST_SERIES, Metrics
from edged.daemon.scrape import MetricsServer
from edged.runtime.workers import Crew
from tests.conftest import HEIGHT, WIDTH
from tests.support.broker import free_port, wait_until

SECONDS = 60
MS = 1_000_000  # nanoseconds

Samples = dict[str, float]


class Page:
    """The running server of some metrics, as a client sees it."""

    def __init__(self, metrics: Metrics, port: int) -> None:
        self.metrics = metrics
        self.port = port

    def ask(
        self, path: str = "/metrics", method: str = "GET", accept: str = ""
    ) -> tuple[int, str, str]:
        """Status, content type and text of an answer."""
        return ask(self.port, path, method, accept)

    def samples(self) -> Samples:
        """Every sample by its name and labels: `edged_results_total{station=a,eval=OK}`."""
        return samples(self.ask()[2])


def ask(
    port: int, path: str = "/metrics", method: str = "GET", accept: str = ""
) -> tuple[int, str, str]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        link.request(method, path, headers={"Accept": accept} if accept else {})
        answer = link.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
    finally:
        link.close()


def samples(text: str) -> Samples:
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{k}={v}" for k, v in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


@pytest.fixture
def page() -> Iterator[Page]:
    crew = Crew()
    metrics = Metrics(crew)
    server = MetricsServer("127.0.0.1:0", metrics.page, crew)
    server.start()
    yield Page(metrics, server.address[1])
    server.close()
    assert crew.ages() == {}, "its thread has ended"


def frame(camera: str = "cam1", simulated: bool = False) -> Frame:
    now = datetime.now(timezone.utc)
    return Frame(camera, 1, 1, now, np.zeros((2, 2, 3), np.uint8), simulated=simulated)


def judged(anomalous: bool, timing: Timing, simulated: bool = False) -> Inspection:
    verdict = Verdict(anomalous, 0.9, 0.9 if anomalous else 0.1, 0.5)
    return Inspection(frame(simulated=simulated), None, verdict, timing)


def not_judged(reason: Reason) -> Inspection:
    return Inspection(frame(), None, NoVerdict(reason), Timing(1, decided_ns=9000 * MS))


def test_the_page_says_which_edged_it_is_and_who_is_alive(page: Page) -> None:
    found = page.samples()
    assert found[f"edged_build_info{{version={__version__}}}"] == 1
    assert 0 <= found["edged_worker_beat_age_seconds{worker=metrics}"] < SECONDS


def test_every_series_of_a_camera_and_its_station_is_there_at_0_from_its_first_sign_of_life(
    page: Page,
) -> None:
    assert not any("cam1" in name for name in page.samples())
    page.metrics.frame_captured("cam1")
    page.metrics.station_state("cam1", StationState.READY)
    found = page.samples()
    assert found["edged_frames_total{camera=cam1}"] == 1
    assert found["edged_station_state{station=cam1}"] == 6
    assert found["edged_deadline_missed_total{station=cam1}"] == 0
    for evaluation in ("OK", "NotOK", "NotDecidable"):
        assert found[f"edged_results_total{{eval={evaluation},station=cam1}}"] == 0
    for reason in Reason:
        assert found[f"edged_no_verdict_total{{reason={reason.word},station=cam1}}"] == 0
        assert found[f"edged_frames_dropped_total{{reason={reason.word},station=cam1}}"] == 0


def test_times_are_seconds(page: Page) -> None:
    timing = Timing(0, 10 * MS, 50 * MS, 200 * MS, 250 * MS)
    page.metrics.inspected(judged(False, timing))
    page.metrics.batch_done("flange", 4, 0.15)
    page.metrics.request_done("DetectAnomalies", "OK", 0.004)
    found = page.samples()
    assert found["edged_result_latency_seconds_sum{station=cam1}"] == pytest.approx(0.25)
    assert found["edged_result_latency_seconds_bucket{le=0.2,station=cam1}"] == 0
    assert found["edged_result_latency_seconds_bucket{le=0.3,station=cam1}"] == 1
    assert found["edged_stage_seconds_sum{stage=queue}"] == pytest.approx(0.04)
    assert found["edged_stage_seconds_sum{stage=infer}"] == pytest.approx(0.15)
    assert found["edged_batch_size_bucket{le=2.0}"] == 0
    assert found["edged_batch_size_bucket{le=4.0}"] == 1
    method = "{method=DetectAnomalies}"
    assert found[f"edged_grpc_request_seconds_sum{method}"] == pytest.approx(0.004)
    assert found["edged_grpc_requests_total{code=OK,method=DetectAnomalies}"] == 1


def test_a_part_without_a_verdict_is_no_ok_and_has_no_latency(page: Page) -> None:
    page.metrics.inspected(judged(False, Timing(0, decided_ns=MS), simulated=True))
    page.metrics.inspected(judged(True, Timing(0, decided_ns=MS)))
    page.metrics.inspected(not_judged(Reason.OVERLOAD))
    page.metrics.job_dropped("flange", Job(frame(), lambda _: None), Reason.OVERLOAD)
    found = page.samples()
    for evaluation in ("OK", "NotOK", "NotDecidable"):
        assert found[f"edged_results_total{{eval={evaluation},station=cam1}}"] == 1
    assert found["edged_no_verdict_total{reason=overload,station=cam1}"] == 1
    assert found["edged_frames_dropped_total{reason=overload,station=cam1}"] == 1
    assert found["edged_frames_dropped_total{reason=timeout,station=cam1}"] == 0
    assert found["edged_simulated_results_total{}"] == 1
    assert found["edged_result_latency_seconds_count{station=cam1}"] == 2


def test_only_a_return_after_a_loss_is_a_reconnect(page: Page) -> None:
    seen = []
    for up in (False, True, False, False, True, True):
        page.metrics.camera_state("cam1", up, "")
        found = page.samples()
        up_now = found["edged_camera_up{camera=cam1}"]
        seen.append((up_now, found["edged_camera_reconnects_total{camera=cam1}"]))
    assert seen == [(0, 0), (1, 0), (0, 0), (0, 0), (1, 1), (1, 1)]


def test_the_far_ends_are_shown(page: Page) -> None:
    page.metrics.sink_state("mqtt", True, "")
    page.metrics.sink_backlog("mqtt", 7)
    page.metrics.sink_delivered("mqtt", "success")
    page.metrics.sink_dropped("mqtt", "oldest")
    page.metrics.frame_skipped("cam1", "broken.png", "no picture")
    page.metrics.units_changed("flange", 3)
    found = page.samples()
    assert found["edged_sink_connected{sink=mqtt}"] == 1
    assert found["edged_outbox_rows{sink=mqtt}"] == 7
    assert found["edged_sink_puback_total{reason=success,sink=mqtt}"] == 1
    assert found["edged_outbox_dropped_total{policy=oldest,sink=mqtt}"] == 1
    assert found["edged_frames_skipped_total{camera=cam1}"] == 1
    assert found["edged_units{model=flange}"] == 3


def test_the_archive_is_shown(page: Page) -> None:
    page.metrics.archive_kept(7, 9000, 1)
    page.metrics.archive_dropped("age")
    found = page.samples()
    assert found["edged_archive_pictures{}"] == 7
    assert found["edged_archive_bytes{}"] == 9000
    assert found["edged_archive_thinning{}"] == 1
    assert found["edged_archive_dropped_total{policy=age}"] == 1


def test_strangers_cannot_make_series_without_end(page: Page) -> None:
    for number in range(MOST_SERIES + 50):
        page.metrics.request_done(f"Method{number}", "OK", 0.001)
    found = page.samples()
    named = [name for name in found if name.startswith("edged_grpc_requests_total{")]
    assert len(named) == MOST_SERIES + 1
    assert found["edged_grpc_requests_total{code=other,method=other}"] == 50
    assert found["edged_grpc_request_seconds_count{method=other}"] == 50


def test_another_path_is_404_and_says_where_the_metrics_are(page: Page) -> None:
    for path in ("/", "/metrics/", "/metric", "/../metrics", "/favicon.ico"):
        status, _, text = page.ask(path)
        assert status == 404, path
        assert "The metrics are at /metrics" in text


def test_another_method_is_refused(page: Page) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert page.ask(method=method)[0] == 501, method


def test_a_query_changes_nothing(page: Page) -> None:
    assert page.ask("/metrics?name=x")[0] == 200


def test_names_and_units_are_prometheus_s(page: Page) -> None:
    page.metrics.inspected(judged(True, Timing(0, decided_ns=MS)))
    status, kind, text = page.ask()
    assert status == 200
    assert kind.startswith("text/plain; version=")
    families = list(text_string_to_metric_families(text))
    assert families
    for family in families:
        assert family.name.startswith("edged_")
        assert family.documentation.endswith("."), family.name
        assert family.type != "unknown", family.name
        assert not family.name.endswith(("_ms", "_milliseconds", "_us")), family.name
        for sample in family.samples:
            assert family.type != "counter" or sample.name.endswith("_total"), sample.name
            assert not sample.name.endswith("_created")


def test_whoever_prefers_open_metrics_gets_it(page: Page) -> None:
    page.metrics.inspected(judged(True, Timing(0, decided_ns=MS)))
    status, kind, text = page.ask(accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    assert kind.startswith("application/openmetrics-text")
    families = openmetrics_families(text)  # type: ignore[no-untyped-call]
    assert "edged_results" in {family.name for family in families}


def test_clients_that_say_nothing_or_leave_do_not_keep_the_page_from_others(page: Page) -> None:
    address = ("127.0.0.1", page.port)
    with socket.create_connection(address), socket.create_connection(address) as rude:
        rude.sendall(b"GET /met")
        rude.close()
        assert page.ask()[0] == 200


def test_what_is_not_http_is_answered_and_survived(page: Page) -> None:
    with socket.create_connection(("127.0.0.1", page.port), timeout=SECONDS) as link:
        link.sendall(b"\x16\x03\x01\x02\x00 hello\r\n\r\n")
        answer = link.makefile("rb").read()
    assert b"400" in answer
    assert page.ask()[0] == 200


def test_a_port_that_is_taken_is_one_sentence_and_free_again_after_close() -> None:
    crew = Crew()
    first = MetricsServer("127.0.0.1:0", Metrics().page, crew)
    first.start()
    port = first.address[1]
    second = MetricsServer(f"127.0.0.1:{port}", Metrics().page, crew)
    assert second.address == ("127.0.0.1", port), "asked for, not taken"
    with pytest.raises(WrongState) as refused:
        second.start()
    assert str(refused.value) == (
        f"metrics: 127.0.0.1:{port} is in use; another edged may be running. "
        "Choose another port ([metrics] listen)."
    )
    second.close()
    assert ask(port)[0] == 200, "the one that has it goes on"
    first.close()
    first.close()
    second.start()
    assert ask(port)[0] == 200
    second.close()
    assert crew.ages() == {}


def test_the_page_of_a_daemon_agrees_with_its_summary(model: Path, tmp_path: Path) -> None:
    port, count = free_port(), 30
    config = tmp_path / "edged.toml"
    config.write_text(
        f'state_dir = "state"\n[metrics]\nlisten = "127.0.0.1:{port}"\n'
        f'[[models]]\nname = "flange"\npath = "{model}"\nengine = "onnxruntime"\nunits = 1\n'
        '[[cameras]]\nname = "cam1"\nmodel = "flange"\nkind = "simulated"\nrate = 0\n'
        f"defect_rate = 0.5\ncount = {count}\nwidth = {WIDTH}\nheight = {HEIGHT}\n",
        encoding="utf-8",
    )
    command = [sys.executable, "-m", "edged.cli", "run", "--config", str(config), "--json"]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(SECONDS)
        manager.bind(str(tmp_path / "notify"))
        environ = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}
        daemon = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True)
        try:
            while not manager.recv(4096).startswith(b"READY=1"):
                continue
            assert wait_until(lambda: counted(port) == count, SECONDS)
            found = samples(ask(port)[2])
            daemon.send_signal(signal.SIGTERM)
            said, _ = daemon.communicate(timeout=SECONDS)
        finally:
            daemon.kill()
            daemon.wait()
    tally = json.loads(said)["cameras"]["cam1"]
    assert found["edged_results_total{eval=OK,station=cam1}"] == tally["ok"] > 0
    assert found["edged_results_total{eval=NotOK,station=cam1}"] == tally["ng"] > 0
    assert found["edged_frames_total{camera=cam1}"] == count
    assert found["edged_simulated_results_total{}"] == count
    assert found["edged_result_latency_seconds_count{station=cam1}"] == count
    assert found["edged_units{model=flange}"] == 1


def counted(port: int) -> float:
    """Parts judged so far, by the last count that each makes rise."""
    return samples(ask(port)[2])["edged_stage_seconds_count{stage=queue}"]
