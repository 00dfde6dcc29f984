"""A publishing process that is killed: what the line sees, and what its successor delivers."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.mqtt.test_delivery import (
    Heard,
    first_of_each,
    numbers,
    on_disk,
    publishing,
    records,
    wait_record,
)
from tests.support.broker import Mosquitto, Subscriber, wait_until

CAMERAS = ("cam1", "cam2")
LAST = 1_000_000
OFFLINE = {"v": 1, "st": "offline", "hb": 0}


class Telling(Heard):
    """Prints how many records are safe: on disk, or with the broker."""

    def sink_backlog(self, sink: str, rows: int) -> None:
        super().sink_backlog(sink, rows)
        print(rows + self.delivered["success"], flush=True)


def publish(outbox: Path, port: int, first: int, more: int) -> None:
    """Accept `first` records of each camera, at a line on standard input `more`; live on."""
    with publishing(outbox, port, Telling()) as station:
        station.sink.set_state("ready")
        station.heard.wait_connected()
        station.accept(range(1, first + 1), *CAMERAS)
        sys.stdin.readline()
        station.accept(range(first + 1, first + more + 1), *CAMERAS)
        threading.Event().wait()


@contextmanager
def publisher(
    outbox: Path, port: int, first: int, more: int = 0
) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs `publish`; killed at the latest when `with` is left."""
    arguments = [str(outbox), str(port), str(first), str(more)]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.mqtt.test_kill", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_safe(process: subprocess.Popen[str], count: int) -> None:
    """Return when `count` records are safe; the test's timeout ends a wait in vain."""
    assert process.stdout is not None
    assert any(int(line) >= count for line in process.stdout), "it ended before"


def kill(process: subprocess.Popen[str]) -> int:
    """SIGKILL; how many records were safe according to its last words (0: it said no more)."""
    process.kill()
    process.wait(10)
    assert process.stdout is not None
    return max(map(int, process.stdout), default=0)


def test_kill_9_of_the_publisher_turns_the_retained_state_to_offline(tmp_path: Path) -> None:
    with (
        Mosquitto() as broker,
        Subscriber(broker.port, "edged/state") as plc,
        publisher(tmp_path / "o.sqlite", broker.port, 1) as process,
    ):
        assert plc.wait_match(lambda m: b'"st":"ready"' in m.payload)
        with Subscriber(broker.port, "edged/state") as late:
            ready = late.wait_for(1)[0]
            assert ready.retained
            assert json.loads(ready.payload)["st"] == "ready"
        process.kill()
        assert plc.wait_match(lambda m: json.loads(m.payload) == OFFLINE and m.at_ns > ready.at_ns)
        with Subscriber(broker.port, "edged/state") as later:
            offline = later.wait_for(1)[0]
    assert offline.retained
    assert json.loads(offline.payload) == OFFLINE


def test_a_clean_close_says_offline_once_and_leaves_it_retained(tmp_path: Path) -> None:
    with Mosquitto() as broker, Subscriber(broker.port, "edged/state") as plc:
        with publishing(tmp_path / "o.sqlite", broker.port, client_id="station-7") as station:
            station.sink.set_state("ready")
            assert plc.wait_match(lambda m: b'"st":"ready"' in m.payload)
            station.sink.set_state("error")
            assert plc.wait_match(lambda m: b'"st":"error"' in m.payload)
        assert wait_until(lambda: "station-7 disconnected." in broker.log), "no will is due"
        with Subscriber(broker.port, "edged/state") as late:
            last = late.wait_for(1)[0]
        plc.wait_match(lambda m: b'"code":7' in m.payload)
        said = [json.loads(message.payload) for message in plc.messages]
    assert last.retained
    assert json.loads(last.payload) == said[-1] == {**OFFLINE, "code": 7}, "not as a loss"
    assert [state["st"] for state in said[-3:]] == ["ready", "error", "offline"]
    beats = [state["hb"] for state in said[:-1]]
    assert beats == sorted(set(beats)), "the beat rises, so that a frozen station is seen"


def test_the_state_is_said_again_to_a_broker_that_comes_back_without_memory(
    tmp_path: Path,
) -> None:
    with Mosquitto() as broker:
        with publishing(tmp_path / "o.sqlite", broker.port) as station:
            station.sink.set_state("ready")
            station.heard.wait_connected()
            broker.kill()
            station.heard.wait(lambda heard: not heard.states[-1][0])
            broker.start()
            with Subscriber(broker.port, "edged/state") as plc:
                assert plc.wait_match(lambda m: b'"st":"ready"' in m.payload)


def test_kill_9_of_the_publisher_loses_no_record_that_was_on_disk_or_delivered(
    tmp_path: Path,
) -> None:
    outbox = tmp_path / "o.sqlite"
    with (
        Mosquitto() as broker,
        Subscriber(broker.port, "edged/+/full") as mes,
        publisher(outbox, broker.port, 200, 200) as process,
    ):
        mes.wait_for(400)
        broker.pause()
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        wait_safe(process, 800)
        kill(process)
        left = on_disk(outbox)
        assert len(left) >= 400
        broker.resume()
        with publishing(outbox, broker.port) as station:
            station.accept(range(401, 421), *CAMERAS)
            station.heard.wait(lambda heard: heard.backlog == 0 and heard.delivered["success"] > 0)
            for camera in CAMERAS:
                wait_record(mes, 420, camera)
        found = mes.messages
    for camera in CAMERAS:
        assert numbers(found, camera) == list(range(1, 421))
    before = {record["id"] for record in map(json.loads, (row.payload for row in left))}
    assert before <= {record["id"] for record in first_of_each(records(found))}
    assert on_disk(outbox) == []


def test_kill_9_at_full_speed_leaves_no_gap_in_what_was_safe(tmp_path: Path) -> None:
    outbox = tmp_path / "o.sqlite"
    with (
        # As configs/mosquitto.conf has it: with its default of 1000 the broker itself drops what
        # a subscriber is slow to take, and the backlog here may be longer.
        Mosquitto(["max_queued_messages 0"]) as broker,
        Subscriber(broker.port, "edged/+/full") as mes,
        publisher(outbox, broker.port, 50_000) as process,
    ):
        wait_safe(process, 500)
        told = kill(process)
        with publishing(outbox, broker.port) as station:
            station.accept([LAST], *CAMERAS)
            for camera in CAMERAS:
                wait_record(mes, LAST, camera)
        found = mes.messages
    safe = [numbers(found, camera)[:-1] for camera in CAMERAS]
    assert max(told, 500) <= sum(map(len, safe)) < 100_000
    for sequence in safe:
        assert sequence == list(range(1, len(sequence) + 1))
    assert on_disk(outbox) == []


if __name__ == "__main__":
    publish(Path(sys.argv[1]), *map(int, sys.argv[2:]))
