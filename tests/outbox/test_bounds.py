"""The record disk at its bounds: pace, confirmations, a full outbox, a full disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from edged.core.errors import SinkError
from edged.core.observer import Observer
from edged.daemon.metrics import Metrics
from edged.mqtt.outgoing import Message
from edged.outbox.bounds import Bounds
from edged.outbox.records import OutboxRow, Record
from edged.outbox.send_order import SendOrder
from edged.outbox.store import Outbox
from edged.outbox.writer import QUEUE, Inbox, Writer


def opened(path: Path, bounds: Bounds | None = None, reserve: int = 8 << 20) -> Outbox:
    outbox = Outbox(path, bounds, reserve=reserve)
    outbox.open()
    return outbox


def records(first: int, last: int, topic: str = "a") -> list[Record]:
    return [Record(topic, b"%d" % n, n) for n in range(first, last + 1)]


def sent(send_order: SendOrder, now: float, take: bool = True) -> list[OutboxRow]:
    """What goes at this moment; the far end takes it at once."""
    rows = []
    while (row := send_order.next(now)) is not None:
        rows.append(row)
        if take:
            send_order.taken(row, now)
    return rows


def numbers(rows: list[OutboxRow]) -> list[int]:
    return [int(row.payload) for row in rows]


def test_a_backlog_goes_at_its_pace_and_fresh_records_behind_it_in_order(tmp_path: Path) -> None:
    send_order = SendOrder(opened(tmp_path / "o.sqlite"), rate=100)
    send_order.store(records(1, 300))
    send_order.restart()
    order, seconds = numbers(sent(send_order, 0.0)), 0.0
    assert order == list(range(1, 11)), "the first tenth of a second"
    assert 0.0 < send_order.due() <= 0.011
    fresh = 300
    while order[-1] < fresh:
        seconds += 0.1
        send_order.store(records(fresh + 1, fresh + 5))  # the line makes 50 a second
        fresh += 5
        order += numbers(sent(send_order, seconds))
    assert order == list(range(1, fresh + 1))
    assert 2.8 <= seconds <= 3.1, "100 a second on top of what the line makes"


def test_the_stream_as_such_has_no_pace(tmp_path: Path) -> None:
    send_order = SendOrder(opened(tmp_path / "o.sqlite"), rate=1)
    send_order.restart()
    assert sent(send_order, 0.0) == []
    for first in range(1, 2000, 100):
        send_order.store(records(first, first + 99))
        assert numbers(sent(send_order, 0.0)) == list(range(first, first + 100))


def test_records_passed_over_on_hold_do_not_save_up_a_flood(tmp_path: Path) -> None:
    send_order = SendOrder(opened(tmp_path / "o.sqlite"), rate=100)
    send_order.restart()
    send_order.store(records(1, 1))
    (row,) = sent(send_order, 0.0, take=False)
    send_order.refused(row, 5.0)
    for n in range(2, 502):
        send_order.store(records(n, n))
        assert sent(send_order, 0.0) == []
    burst = sent(send_order, 5.0)
    assert numbers(burst) == list(range(1, len(burst) + 1))
    assert len(burst) <= 12


def test_a_rate_of_0_is_no_limit(tmp_path: Path) -> None:
    send_order = SendOrder(opened(tmp_path / "o.sqlite"), rate=0)
    send_order.store(records(1, 1000))
    send_order.restart()
    assert len(sent(send_order, 0.0)) == 1000


def test_a_record_dropped_by_a_bound_is_not_sent_any_more(tmp_path: Path) -> None:
    send_order = SendOrder(opened(tmp_path / "o.sqlite", Bounds(rows=3)))
    send_order.restart()
    assert sent(send_order, 0.0) == []
    for n in range(1, 6):
        send_order.store(records(n, n))
    assert numbers(sent(send_order, 0.0)) == [3, 4, 5]


def test_a_confirmed_topic_is_kept_past_the_brokers_word_until_its_receivers(
    tmp_path: Path,
) -> None:
    outbox = opened(tmp_path / "o.sqlite")
    send_order = SendOrder(outbox, confirming=["a"], seconds=30)
    send_order.restart()
    send_order.store([*records(1, 5), Record("b", b"1")])
    assert len(sent(send_order, 0.0)) == 6
    send_order.flush()
    assert outbox.count == 5, "b needs the broker's word only"
    send_order.confirm("a", 3, 1.0)
    assert send_order.flush().confirmed == 3
    assert [row.number for row in outbox.pending(0, 9)] == [4, 5]
    send_order.restart()
    assert numbers(sent(send_order, 2.0)) == [4, 5], "a new connection: again"
    assert send_order.idle
    assert send_order.due() == 32.0
    assert sent(send_order, 31.9) == []
    assert numbers(sent(send_order, 32.0)) == [4, 5], "silence: again"
    send_order.confirm("a", 5, 33.0)
    send_order.flush()
    assert outbox.count == 0
    assert send_order.due() == float("inf")


def test_a_confirmation_of_what_was_never_sent_loses_nothing(tmp_path: Path) -> None:
    outbox = opened(tmp_path / "o.sqlite")
    send_order = SendOrder(outbox, confirming=["a"])
    send_order.restart()
    send_order.store(records(1, 4))
    first = send_order.next(0.0)
    assert first is not None
    send_order.confirm("a", 2**32 - 1, 0.0)
    send_order.flush()
    assert outbox.count == 4
    send_order.taken(first, 0.0)
    two, three = send_order.next(0.0), send_order.next(0.0)
    assert two is not None
    assert three is not None
    send_order.refused(two, 1.0)
    send_order.taken(three, 0.0)
    send_order.confirm("a", 2**32 - 1, 0.0)
    send_order.flush()
    assert [row.number for row in outbox.pending(0, 9)] == [2, 3, 4]
    assert numbers(sent(send_order, 1.0)) == [2, 3, 4]


def test_answers_out_of_order_do_not_let_a_confirmation_pass_a_refused_record(
    tmp_path: Path,
) -> None:
    outbox = opened(tmp_path / "o.sqlite")
    send_order = SendOrder(outbox, confirming=["a"])
    send_order.restart()
    send_order.store(records(1, 4))
    first = send_order.next(0.0)
    assert first is not None
    send_order.taken(first, 0.0)
    two, three, four = [row for _ in range(3) if (row := send_order.next(0.0)) is not None]
    send_order.taken(four, 0.0)
    send_order.refused(two, 1.0)
    send_order.refused(three, 1.0)
    send_order.confirm("a", 4, 0.0)
    send_order.flush()
    assert [row.number for row in outbox.pending(0, 9)] == [2, 3, 4]
    assert {2, 3} <= set(numbers(sent(send_order, 1.0)))


class Told(Observer):
    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.confirmed = 0
        self.size = 0

    def sink_dropped(self, sink: str, policy: str) -> None:
        self.dropped[policy] += 1

    def sink_confirmed(self, sink: str, records: int) -> None:
        self.confirmed += records

    def sink_outbox(self, sink: str, size: int, age: float) -> None:
        self.size = size


class DiskLane:
    """Inbox, Writer and SendOrder, as the sink's worker drives them."""

    def __init__(self, outbox: Outbox, *confirming: str) -> None:
        self.told = Told()
        self.inbox = Inbox()
        self.inbox.open()
        self.outbox = outbox
        self.send_order = SendOrder(outbox, confirming=confirming)
        self.send_order.restart()
        self.writer = Writer(self.inbox, self.send_order, self.told, "mqtt")

    def accept(self, first: int, last: int, now: float, padding: int = 0) -> None:
        for n in range(first, last + 1):
            full = b'{"seq":%d,"p":"%s"}' % (n, b"x" * padding)
            self.inbox.put(Message("a/result", b"", "a/full", full, n), 0.0)
        self.writer.write(self.inbox.take(), now)


def test_a_full_outbox_that_refuses_says_so_and_keeps_what_was_accepted(tmp_path: Path) -> None:
    disk = DiskLane(opened(tmp_path / "o.sqlite", Bounds(rows=100, refuse=True)))
    disk.accept(1, 99, 0.0)
    assert disk.writer.accepting
    disk.accept(100, 120, 1.0)
    assert not disk.writer.accepting
    assert "outbox is full (120 records wait)" in disk.writer.refusal
    assert disk.outbox.count == 120
    assert not disk.told.dropped
    sent(disk.send_order, 2.0)
    disk.writer.write([], 3.0)
    assert disk.writer.accepting
    assert disk.outbox.count == 0


def test_a_confirmation_comes_from_any_thread_and_is_counted(tmp_path: Path) -> None:
    disk = DiskLane(opened(tmp_path / "o.sqlite"), "a/full")
    disk.accept(1, 10, 0.0)
    sent(disk.send_order, 0.0)
    disk.writer.confirm("a/full", 7)
    disk.writer.confirm("a/full", 6)
    disk.writer.write([], 1.0)
    disk.writer.write([], 2.0)
    assert disk.told.confirmed == 7
    assert [row.number for row in disk.outbox.pending(0, 9)] == [8, 9, 10]
    assert disk.told.size > 0


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        missing = "a small file system of its own cannot be mounted here: that needs root"
        if os.environ.get("EDGED_REQUIRE_ALL") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path) -> Path:
    filler = disk / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(disk).free)
    return filler


def test_a_full_disk_costs_no_record_and_gets_emptier_as_they_are_delivered(small: Path) -> None:
    disk = DiskLane(opened(small / "o.sqlite", reserve=4 << 20))
    disk.accept(1, 300, 0.0, 4000)
    filler = fill(small)
    now, last, order = 0.0, 300, []
    while disk.writer.waiting < 200:
        now += 2.0
        disk.accept(last + 1, last + 50, now, 4000)
        last += 50
    assert disk.writer.accepting, "there is room in memory"
    stuck = disk.outbox.count
    order += sent(disk.send_order, now)
    for _ in range(50):
        now += 2.0
        disk.writer.write([], now)
        order += sent(disk.send_order, now)
        if not (disk.writer.waiting or disk.outbox.count):
            break
    assert len(order) >= stuck, "what is on the full disk is delivered"
    assert disk.writer.waiting == 0, "forgotten ones have made room for those in memory"
    filler.unlink()
    disk.accept(last + 1, last + 10, now + 2, 4000)
    order += sent(disk.send_order, now + 2)
    seqs = [int(row.payload[7 : row.payload.index(b",")]) for row in order]
    assert seqs == list(range(1, last + 11))
    assert not disk.told.dropped
    assert (small / "o.sqlite.reserve").exists(), "held again for the next time"
    disk.writer.write_the_rest()
    disk.outbox.close()


def test_a_start_on_a_full_disk_has_every_record_and_delivers_it(small: Path) -> None:
    outbox = opened(small / "o.sqlite", reserve=4 << 20)
    outbox.append([Record("a", b"x" * 4000, n) for n in range(1, 301)])
    outbox.close()
    fill(small)
    disk = DiskLane(opened(small / "o.sqlite", reserve=4 << 20))
    assert disk.outbox.count == 300
    assert len(sent(disk.send_order, 0.0)) == 300
    disk.writer.write([], 1.0)
    assert disk.outbox.count == 0
    disk.outbox.close()


def test_memory_in_front_of_a_full_disk_is_bounded_and_refuses_beyond(small: Path) -> None:
    disk = DiskLane(opened(small / "o.sqlite", reserve=1 << 20))
    disk.accept(1, 1, 0.0)
    filler = fill(small)
    n, now = 1, 0.0
    with pytest.raises(SinkError, match="wait for the disk"):
        while n < 20 * QUEUE:
            now += 2.0
            disk.accept(n + 1, n + 64, now, 4000)
            n += 64
    assert not disk.writer.accepting
    assert "check the free space" in disk.writer.refusal
    waiting = disk.writer.waiting
    filler.unlink()
    disk.writer.write([], now + 2)
    assert disk.writer.accepting
    assert disk.writer.waiting == 0
    assert waiting == QUEUE
    disk.outbox.close()


def test_bytes_age_and_confirmations_are_on_the_metrics_page() -> None:
    metrics = Metrics()
    metrics.sink_outbox("mqtt", 4096, 12.5)
    metrics.sink_confirmed("mqtt", 3)
    text = metrics.page("")[0].decode()
    assert 'edged_outbox_bytes{sink="mqtt"} 4096.0' in text
    assert 'edged_outbox_oldest_age_seconds{sink="mqtt"} 12.5' in text
    assert 'edged_outbox_confirmed_total{sink="mqtt"} 3.0' in text
