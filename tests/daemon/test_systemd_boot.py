"""The shipped unit under a real systemd: start, stop, and what happens to a daemon that hangs.

The box runs `systemd/edged.service` as it is shipped, with its user, its sandbox and its limits.
A drop-in shortens the waits and makes systemd itself report each start and end of the service.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import HEIGHT, WIDTH
from tests.support import systemd_box
from tests.support.broker import free_port, wait_until

UNIT = Path(__file__).parents[2] / "systemd" / "edged.service"
SECONDS = 60

CONFIG = f"""
state_dir = "/var/lib/edged"
[[models]]
name = "flange"
path = "/run/box/model"
engine = "onnxruntime"
units = 1
[[cameras]]
name = "cam1"
model = "flange"
kind = "simulated"
width = {WIDTH}
height = {HEIGHT}
[grpc]
socket = "/run/edged/edge-agent.sock"
[metrics]
listen = "127.0.0.1:{{port}}"
"""

DROP_IN = """
[Service]
WatchdogSec=4s
RestartSec=0
ExecStartPost=/opt/edged/bin/python /opt/edged/tell started ${MAINPID}
ExecStopPost=/opt/edged/bin/python /opt/edged/tell ended ${SERVICE_RESULT} ${EXIT_STATUS}
"""

TELL = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
    out.sendto(" ".join(sys.argv[1:]).encode(), "/run/box/events")
"""


class Service:
    """The service in its box, not started yet."""

    def __init__(self, box: systemd_box.Box, port: int) -> None:
        self.box = box
        self._port = port

    def start(self) -> int:
        """Start it; the process that said READY."""
        self.box.systemctl("start", "edged.service")
        return self._told_to_have_started()

    def started_again(self) -> int:
        """The process of a start that systemd made by itself."""
        pid = self._told_to_have_started()
        self.box.systemctl("start", "edged.service")  # waits for the end of that start
        return pid

    def _told_to_have_started(self) -> int:
        word, pid = self.box.event(SECONDS).split()
        assert word == "started", self.box.log
        return int(pid)

    def results(self) -> float:
        """Parts judged so far by the process that runs now."""
        url = f"http://127.0.0.1:{self._port}/metrics"
        with urllib.request.urlopen(url, timeout=SECONDS) as page:
            families = text_string_to_metric_families(page.read().decode())
            return sum(
                s.value
                for family in families
                for s in family.samples
                if s.name == "edged_results_total" and s.labels["eval"] != "NotDecidable"
            )

    def judges(self) -> bool:
        """Whether a part more is judged in time."""
        before = self.results()
        return wait_until(lambda: self.results() > before, SECONDS)


@pytest.fixture
def service(model: Path) -> Iterator[Service]:
    lacking = systemd_box.missing()
    if lacking:
        if os.environ.get("EDGED_REQUIRE_ALL") == "1":
            pytest.fail(f"a systemd of its own needs {lacking}")
        pytest.skip(f"a systemd of its own needs {lacking}")
    port = free_port()
    files = {
        "/etc/edged/edged.toml": CONFIG.format(port=port),
        "/etc/edged/credentials/broker": "secret",
        "/opt/edged/tell": TELL,
        "/run/systemd/system/edged.service.d/60-test.conf": DROP_IN,
    }
    with systemd_box.boot(UNIT.read_text(encoding="utf-8"), files) as box:
        shutil.copytree(model, box.folder / "model")
        yield Service(box, port)


def test_the_service_starts_judges_and_stops_cleanly(service: Service) -> None:
    pid = service.start()
    box = service.box
    seen = box.show("ActiveState", "MainPID", "StatusText", "NRestarts")
    assert seen["ActiveState"] == "active"
    assert seen["MainPID"] == str(pid)
    assert seen["StatusText"].startswith("1 of 1 models hosted, ")
    assert service.judges(), box.log
    ping = box.show("WatchdogTimestampMonotonic")
    assert wait_until(lambda: box.show("WatchdogTimestampMonotonic") != ping, SECONDS)
    owner = box.run("stat", "--format=%U:%G %a", "/run/edged/edge-agent.sock").strip()
    assert owner == "edged:edged 660"
    box.systemctl("stop", "edged.service")
    assert box.event(SECONDS) == "ended success 0"
    seen = box.show("ActiveState", "Result", "ExecMainStatus", "NRestarts")
    assert seen == {
        "ActiveState": "inactive",
        "Result": "success",
        "ExecMainStatus": "0",
        "NRestarts": "0",
    }
    assert "Traceback" not in box.log
    assert '"level": "error"' not in box.log


def test_a_daemon_that_hangs_is_killed_and_started_again(service: Service) -> None:
    first = service.start()
    box = service.box
    box.run("kill", "-STOP", str(first))
    assert box.event(SECONDS).startswith("ended watchdog ")
    second = service.started_again()
    assert second != first
    seen = box.show("ActiveState", "MainPID", "NRestarts")
    assert seen == {"ActiveState": "active", "MainPID": str(second), "NRestarts": "1"}
    assert service.judges(), box.log
    box.systemctl("stop", "edged.service")
    assert box.event(SECONDS) == "ended success 0"


def test_only_the_daemon_and_root_read_what_the_administrator_put_there(service: Service) -> None:
    box = service.box
    modes = {
        "/etc/edged": "root:edged 750",
        "/etc/edged/credentials": "root:edged 750",
        "/etc/edged/edged.toml": "edged:root 640",
        "/etc/edged/credentials/broker": "edged:root 400",
        "/var/lib/edged": "edged:edged 700",
        "/var/lib/edged/models": "edged:edged 750",
    }
    assert box.run("stat", "--format=%U:%G %a", *modes).splitlines() == list(modes.values())
    box.run("systemd-tmpfiles", "--create", "/opt/edged/source/systemd/edged.tmpfiles.conf")
    assert box.run("stat", "--format=%U:%G %a", *modes).splitlines() == list(modes.values())
    daemon = ("setpriv", "--reuid=edged", "--regid=edged", "--clear-groups")
    client = ("setpriv", "--reuid=nobody", "--regid=edged", "--clear-groups")
    for name in ("/etc/edged/edged.toml", "/etc/edged/credentials/broker"):
        assert box.run(*daemon, "cat", name)
        with pytest.raises(subprocess.CalledProcessError) as refused:
            box.run(*client, "cat", name)
        assert "Permission denied" in refused.value.stderr


def test_the_user_of_the_service_cannot_log_in_and_the_device_groups_exist(
    service: Service,
) -> None:
    box = service.box
    name, _, _, _, _, home, shell = box.run("getent", "passwd", "edged").strip().split(":")
    assert (name, home) == ("edged", "/var/lib/edged")
    assert shell.endswith("/nologin")
    found = box.run("getent", "group", "edged", "video", "render").splitlines()
    assert [line.partition(":")[0] for line in found] == ["edged", "video", "render"]
