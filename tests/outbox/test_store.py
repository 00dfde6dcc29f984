"""What an outbox keeps, for how long, and what it makes of older files."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pytest

from edged.core.errors import SinkError
from edged.outbox.bounds import Bounds
from edged.outbox.records import Confirmed, Record
from edged.outbox.store import VERSION, Outbox
from edged.outbox.uptime import Saved, Uptime


class Box:
    """A box that is up for so many seconds, in a boot of some name."""

    def __init__(self) -> None:
        self.boot = "first"
        self.up = 1000.0

    def uptime(self) -> Uptime:
        return Uptime(lambda: self.boot, lambda: self.up)

    def outbox(self, path: Path, bounds: Bounds) -> Outbox:
        outbox = Outbox(path, bounds, self.uptime())
        outbox.open()
        return outbox


def batch(*payloads: bytes) -> list[Record]:
    return [Record("t", payload) for payload in payloads]


def kept(outbox: Outbox) -> list[bytes]:
    return [row.payload for row in outbox.pending(0, 1000)]


def form_1(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(
        "CREATE TABLE outbox (seq INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL)"
    )
    db.executemany("INSERT INTO outbox VALUES (?, 'topic', ?)", [(n, b"x" * n) for n in (3, 4, 9)])
    db.execute("PRAGMA user_version = 1")
    db.commit()
    db.close()


def test_a_file_of_form_1_becomes_form_2_with_every_record_and_its_number(tmp_path: Path) -> None:
    path, box = tmp_path / "o.sqlite", Box()
    form_1(path)
    box.up = 1e7
    outbox = box.outbox(path, Bounds(seconds=100))
    assert [(row.seq, row.topic, row.payload) for row in outbox.pending(0, 9)] == [
        (n, "topic", b"x" * n) for n in (3, 4, 9)
    ]
    assert (outbox.count, outbox.size) == (3, 3 * 5 + 16)
    assert outbox.oldest_age() == 0, "nothing told when they came: they age from now on"
    assert list(outbox.append(batch(b"new")).seqs) == [10]
    outbox.close()
    assert sqlite3.connect(path).execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    form_1(path)
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE numbered (stands, where_the_index, must_go)")
    db.commit()
    with pytest.raises(SinkError, match="cannot be opened"):
        Outbox(path).open()
    assert db.execute("PRAGMA user_version").fetchone() == (1,)
    columns = [row[1] for row in db.execute("PRAGMA table_info(outbox)")]
    assert columns == ["seq", "topic", "payload"]
    assert db.execute("SELECT count(*) FROM outbox").fetchone() == (3,)
    db.close()


def test_a_newer_form_is_refused_and_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    form_1(path)
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(SinkError, match="newer edged"):
        Outbox(path).open()
    assert db.execute("SELECT count(*) FROM outbox").fetchone() == (3,)
    db.close()


def test_each_bound_drops_the_oldest_and_is_counted_by_its_own_word(tmp_path: Path) -> None:
    box = Box()
    outbox = box.outbox(tmp_path / "o.sqlite", Bounds(rows=4, size=100, seconds=60))
    assert outbox.append(batch(*(b"%d" % n for n in range(6)))).dropped == {
        "rows": 2,
        "bytes": 0,
        "age": 0,
    }
    assert outbox.append(batch(b"x" * 95)).dropped == {"rows": 1, "bytes": 1, "age": 0}
    assert kept(outbox) == [b"4", b"5", b"x" * 95]
    assert outbox.size == 2 * 2 + 96
    box.up += 61
    assert outbox.append(batch(b"new")).dropped == {"rows": 0, "bytes": 0, "age": 3}
    assert kept(outbox) == [b"new"]
    assert (outbox.count, outbox.size, outbox.floor) == (1, 4, 7)
    outbox.close()


def test_rows_and_bytes_are_counted_alike_before_and_after_a_restart(tmp_path: Path) -> None:
    path, box = tmp_path / "o.sqlite", Box()
    outbox = box.outbox(path, Bounds())
    seqs = outbox.append(batch(*(b"y" * n for n in range(50)))).seqs
    outbox.acknowledge([*seqs[3:9], *seqs[20:22], 9999])
    before = outbox.count, outbox.size
    outbox.close()
    again = box.outbox(path, Bounds())
    assert (again.count, again.size) == before
    assert again.count == 42
    again.close()


def test_an_outbox_that_refuses_drops_nothing_and_says_full_until_there_is_room(
    tmp_path: Path,
) -> None:
    box = Box()
    outbox = box.outbox(tmp_path / "o.sqlite", Bounds(rows=100, seconds=1, refuse=True))
    seqs = outbox.append(batch(*[b"x"] * 99)).seqs
    assert not outbox.full
    assert outbox.full_with(1), "what waits in memory counts"
    box.up += 1e6
    assert not any(outbox.append(batch(b"x", b"x")).dropped.values())
    assert outbox.count == 101
    assert outbox.full
    outbox.acknowledge(seqs[:2])
    assert outbox.full, "99 of 100: a line would stop and go with each record"
    outbox.acknowledge(seqs[2:5])
    assert not outbox.full
    outbox.close()


def test_age_goes_on_while_edged_is_stopped_and_stands_while_the_box_has_no_power(
    tmp_path: Path,
) -> None:
    path, box = tmp_path / "o.sqlite", Box()
    outbox = box.outbox(path, Bounds())
    outbox.append(batch(b"x"))
    outbox.close()
    box.up += 500
    outbox = box.outbox(path, Bounds())
    assert outbox.oldest_age() == 500
    outbox.append(batch(b"y"))
    outbox.close()
    box.boot, box.up = "second", 20.0
    outbox = box.outbox(path, Bounds())
    assert outbox.oldest_age() == 520
    outbox.close()
    box.boot, box.up = "", 70.0
    outbox = box.outbox(path, Bounds())
    assert outbox.oldest_age() == 500, "no boot's name: counted from what was written down"
    outbox.close()


def test_uptime_never_goes_back_behind_what_was_written_down() -> None:
    uptime = Uptime(lambda: "same", lambda: 5.0)
    uptime.resume(Saved("same", 100.0), 400.0)
    assert uptime.now() == 400.0


@pytest.mark.parametrize("step", [365 * 86_400, -365 * 86_400])
def test_a_stepped_wall_clock_ages_nothing(
    tmp_path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    path = tmp_path / "o.sqlite"
    outbox = Outbox(path, Bounds(seconds=3600))
    outbox.open()
    outbox.append(batch(b"x"))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + step)
    assert not any(outbox.append(batch(b"y")).dropped.values())
    outbox.close()
    outbox = Outbox(path, Bounds(seconds=3600))
    outbox.open()
    assert not any(outbox.append(batch(b"z")).dropped.values())
    assert 0 <= outbox.oldest_age() < 3600
    assert kept(outbox) == [b"x", b"y", b"z"]
    outbox.close()


def test_a_confirmation_forgets_its_topic_up_to_its_number_only(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.open()
    outbox.append([Record(t, b"x", n) for n in (1, 2, 3) for t in ("a", "b")] + [Record("a", b"0")])
    assert outbox.acknowledge((), [Confirmed("a", 2)]).confirmed == 2
    left = [(row.topic, row.number) for row in outbox.pending(0, 10)]
    assert left == [("b", 1), ("b", 2), ("a", 3), ("b", 3), ("a", 0)]
    outbox.close()


def test_the_reserve_is_held_beside_the_outbox_where_there_is_plenty(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", reserve=1 << 20)
    outbox.open()
    outbox.close()
    assert (tmp_path / "o.sqlite.reserve").stat().st_size == 1 << 20
    free = shutil.disk_usage(tmp_path).free
    other = Outbox(tmp_path / "p.sqlite", reserve=free)
    other.open()
    other.close()
    assert not (tmp_path / "p.sqlite.reserve").exists()
