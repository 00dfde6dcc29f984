"""The archive as its users meet it: records in, records and pictures out, whatever happens."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.archive import sink as room
from edged.archive.journal import JournalFile
from edged.archive.reader import JOURNAL, PICTURES, ArchiveReader
from edged.core.errors import NotFound, SinkError
from edged.core.types import NO_IMAGE
from edged.wire import imaging
from tests.support.archive_box import GOOD, NONE, archive, files, image_of, inspection, triggered
from tests.support.broker import wait_until
from tests.support.fakes import PATIENCE


def test_a_reject_comes_back_with_its_record_and_its_pixels(tmp_path: Path) -> None:
    sent = inspection(1)
    with archive(tmp_path / "a") as (made, heard):
        made.accept(sent)
        heard.until(lambda: len(heard.entries) == 1)
        found = made.find(sent.id)
        data, kind = made.picture(sent.id)
    assert kind == "image/png" and found.picture and found == heard.entries[0]
    assert np.array_equal(imaging.decode(data, "x"), sent.frame.image)
    record = found.record
    assert record["image"] == {
        "sha256": hashlib.sha256(sent.frame.image.tobytes()).hexdigest(),
        "height": 64,
        "width": 64,
    }
    assert record["model"]["sha256"] == "ab" * 32 and record["engine"] == "onnxruntime cpu fp32"
    assert (record["station"], record["seq"], record["threshold"]) == ("cam", 1, 0.5)


def test_an_order_without_a_picture_is_recorded_with_its_trigger(tmp_path: Path) -> None:
    sent = triggered(3)
    with archive(tmp_path / "a") as (made, heard):
        made.accept(sent)
        heard.until(lambda: len(heard.entries) == 1)
        with pytest.raises(NotFound, match=r"picture .* is not kept"):
            made.picture(sent.id)
    entry = heard.entries[0]
    assert not entry.picture and "image" not in entry.record
    assert entry.record["trigger"] == {"part": "P-1", "seq": 7, "kind": "mqtt"}
    assert sent.frame.image is NO_IMAGE


def test_files_are_for_the_daemon_s_user_alone(tmp_path: Path) -> None:
    with archive(tmp_path / "a") as (made, heard):
        made.accept(inspection(1))
        heard.until(lambda: len(heard.entries) == 1)
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "a").rglob("*")}
    assert len(modes) == 4
    assert all(mode == (0o700 if p.is_dir() else 0o600) for p, mode in modes.items())


def test_a_sample_of_passes_is_kept_and_all_else(tmp_path: Path) -> None:
    passes = [inspection(n, GOOD) for n in range(1, 41)]
    others = [inspection(n, NONE if n % 2 else "bad") for n in range(41, 61)]
    with archive(tmp_path / "a", passes=0.3) as (made, heard):
        for each in (*passes, *others):
            made.accept(each)
        heard.until(lambda: len(heard.entries) == 60)
    kept = {e.record["id"] for e in heard.entries if e.picture}
    assert {each.id for each in others} <= kept
    sampled = kept & {each.id for each in passes}
    assert 0 < len(sampled) < 40
    with archive(tmp_path / "b", passes=0.3) as (made, heard):  # the same, whoever asks
        for each in passes:
            made.accept(each)
        heard.until(lambda: len(heard.entries) == 40)
    assert {e.record["id"] for e in heard.entries if e.picture} == sampled


def test_entries_are_read_in_order_by_position_and_by_station(tmp_path: Path) -> None:
    with archive(tmp_path / "a") as (made, heard):
        for number in range(1, 31):
            made.accept(inspection(number, station="ab"[number % 2], image=NO_IMAGE))
        heard.until(lambda: len(heard.entries) == 30)
        assert [e.position for e in heard.entries] == list(range(1, 31))
        assert [e.position for e in made.since(10, 5)] == [11, 12, 13, 14, 15]
        assert [e.position for e in made.since(10, 5, ["a"])] == [12, 14, 16, 18, 20]
        assert [e.position for e in made.since(10, 99, ["a", "b"], until=14)] == [11, 12, 13, 14]
        assert made.since(30, 5) == []


def test_positions_are_not_used_again_after_a_restart_and_pruning(tmp_path: Path) -> None:
    with archive(tmp_path / "a", max_records=1000) as (made, heard):
        for number in range(1, 1101):
            made.accept(inspection(number, image=NO_IMAGE))
        heard.until(lambda: len(heard.entries) == 1100 and heard.lost == ["records"] * 100)
        assert made.since(0, 1)[0].position == 101
    with sqlite3.connect(tmp_path / "a" / JOURNAL) as db:
        db.execute("DELETE FROM inspections")
    db.close()
    with archive(tmp_path / "a") as (made, heard):
        made.accept(inspection(2000))
        heard.until(lambda: len(heard.entries) == 1)
    assert heard.entries[0].position == 1101


def test_a_repeated_record_is_not_added_and_counted(tmp_path: Path) -> None:
    with archive(tmp_path / "a") as (made, heard):
        made.accept(inspection(1))
        made.accept(inspection(1))
        heard.until(lambda: heard.lost == ["duplicate"])
        assert len(made.since(0, 9)) == 1


def test_a_full_queue_leaves_pictures_out_and_keeps_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = image_of(1).nbytes
    monkeypatch.setattr(room, "TO_KEEP", 2 * size)
    monkeypatch.setattr(room, "HELD", 4 * size)
    with archive(tmp_path / "a") as (made, heard):
        gate, entered = threading.Event(), threading.Event()

        def hold(_: object) -> None:
            entered.set()
            gate.wait()

        end = made.subscribe(hold)
        made.accept(inspection(1))
        assert entered.wait(20)  # the worker holds no image now, and takes none
        for number in range(2, 9):
            made.accept(inspection(number))
        end()
        gate.set()
        heard.until(lambda: len(heard.entries) == 8)
        entries = made.since(0, 99)
    assert [e.record["seq"] for e in entries] == list(range(1, 9))
    assert [e.record["image"].get("left_out") for e in entries] == [
        *[None] * 3, "picture", "picture", "image", "image", "image"
    ]  # fmt: skip
    assert [e.picture for e in entries] == [True] * 3 + [False] * 5
    assert "sha256" in entries[3].record["image"] and "sha256" not in entries[7].record["image"]
    assert heard.lost == ["picture"] * 2 + ["image"] * 3


def test_records_wait_for_a_disk_that_refuses_and_then_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(room, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(room, "RECORDS", 100)
    with archive(tmp_path / "a") as (made, heard):
        lock = sqlite3.connect(tmp_path / "a" / JOURNAL, isolation_level=None)
        lock.execute("CREATE TRIGGER full BEFORE INSERT ON inspections BEGIN "
                     "SELECT RAISE(ABORT, 'database or disk is full'); END")  # fmt: skip
        for number in range(1, 201):
            made.accept(inspection(number, image=NO_IMAGE))
        heard.until(lambda: "record" in heard.lost)
        lost = len(heard.lost)
        assert wait_until(lambda: len(refusals(caplog)) > 3, PATIENCE)
        lock.execute("DROP TRIGGER full")
        lock.close()
        heard.until(lambda: len(heard.entries) + len(heard.lost) == 200)
        assert len(heard.lost) == lost
        made.accept(inspection(300))
        heard.until(lambda: any(e.record["seq"] == 300 for e in heard.entries))
    assert [r.levelno for r in refusals(caplog)].count(logging.ERROR) == 1
    numbers = [e.record["seq"] for e in heard.entries]
    assert numbers == sorted(set(numbers)) and len(numbers) == 201 - lost


def refusals(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [r for r in list(caplog.records) if "disk is full" in r.getMessage()]


def test_a_picture_that_cannot_be_written_does_not_cost_the_record(tmp_path: Path) -> None:
    with archive(tmp_path / "a") as (made, heard):
        (tmp_path / "a" / PICTURES).rmdir()
        (tmp_path / "a" / PICTURES).write_text("in the way")
        made.accept(inspection(1))
        heard.until(lambda: len(heard.entries) == 1)
    assert heard.entries[0].record["image"]["left_out"] == "disk"
    assert not heard.entries[0].picture and heard.lost == ["disk"]


def test_a_damaged_journal_is_moved_aside_with_its_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with archive(folder) as (made, heard):
        made.accept(inspection(1))
        heard.until(lambda: len(heard.entries) == 1)
    (folder / JOURNAL).write_bytes(b"rubbish" * 1000)
    before = time.time_ns() // 1_000_000
    with archive(folder) as (made, heard):
        made.accept(inspection(1))
        heard.until(lambda: len(heard.entries) == 1)
        assert heard.entries[0].position > before
    assert (folder / "damaged-1" / JOURNAL).exists()
    assert len(list((folder / "damaged-1" / PICTURES).rglob("*.png"))) == 1


def test_an_archive_that_could_not_be_replaced_is_when_there_is_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a"
    rows = JournalFile(folder)
    rows.open()
    rows.close()
    (folder / JOURNAL).write_bytes(b"rubbish" * 1000)
    make = Path.mkdir

    def full(path: Path, *arguments: Any, **named: Any) -> None:
        """A disk without room for a folder, which no machine here has."""
        if path.name.startswith("damaged-"):
            raise OSError(errno.ENOSPC, "No space left on device")
        make(path, *arguments, **named)

    with monkeypatch.context() as disk:
        disk.setattr(Path, "mkdir", full)
        with pytest.raises(SinkError, match="cannot be replaced"):
            rows.open()
    assert rows.append([]) == []
    assert (folder / "damaged-1" / JOURNAL).exists()
    rows.close()


def test_a_journal_that_is_missing_does_not_cost_its_pictures(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with archive(folder) as (made, heard):
        made.accept(inspection(1))
        heard.until(lambda: len(heard.entries) == 1)
    (folder / JOURNAL).unlink()
    with archive(folder):
        pass
    assert len(list((folder / "damaged-1" / PICTURES).rglob("*.png"))) == 1


def test_files_without_a_row_go_and_rows_without_their_file_say_so(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    sent = [inspection(n) for n in (1, 2)]
    with archive(folder) as (made, heard):
        for each in sent:
            made.accept(each)
        heard.until(lambda: len(heard.entries) == 2)
    (gone,) = (folder / PICTURES).rglob(f"{sent[0].id}.png")
    gone.unlink()
    gone.with_name("orphan.png").write_bytes(b"")
    gone.with_name("half.png.part").write_bytes(b"half")
    old = folder / PICTURES / "2020-01-01"
    old.mkdir()
    (old / "orphan.png").write_bytes(b"x")
    with archive(folder) as (made, heard):
        heard.until(lambda: files(folder) == {f"{sent[1].id}.png"} and heard.kept[0] == 1)
        assert [made.find(each.id).picture for each in sent] == [False, True]
    assert not old.exists()


def test_a_picture_that_goes_between_look_and_reading_is_not_found(tmp_path: Path) -> None:
    sent = inspection(1)
    with archive(tmp_path / "a") as (made, heard):
        made.accept(sent)
        heard.until(lambda: len(heard.entries) == 1)
        assert made.find(sent.id).picture
        next((tmp_path / "a" / PICTURES).rglob("*.png")).unlink()
        with pytest.raises(NotFound, match="is not kept"):
            made.picture(sent.id)


def test_an_id_with_a_path_in_it_is_not_found(tmp_path: Path) -> None:
    with archive(tmp_path / "a") as (made, _):
        for id in ("../../etc/passwd", "", "a/b", "x" * 65, "a\x00"):
            with pytest.raises(NotFound, match="No inspection"):
                made.find(id)


def test_a_second_process_reads_while_the_first_writes(tmp_path: Path) -> None:
    with archive(tmp_path / "a") as (made, heard):
        made.accept(inspection(1))
        heard.until(lambda: len(heard.entries) == 1)
        other = ArchiveReader(tmp_path / "a")
        assert [e.position for e in other.since(0, 9)] == [1]
        made.accept(inspection(2))
        heard.until(lambda: len(heard.entries) == 2)
        assert [e.position for e in other.since(0, 9)] == [1, 2]
        other.close()
    with pytest.raises(SinkError, match="cannot be read"):
        ArchiveReader(tmp_path / "nowhere").since(0, 1)


KILLED = """
import sys
from pathlib import Path
from typing import Any
from tests.support.archive_box import archive, inspection
with archive(Path(sys.argv[1])) as (made, heard):
    made.subscribe(lambda entries: print(entries[-1].position, flush=True))
    number = int(sys.argv[2])
    while True:
        number += 1
        made.accept(inspection(number))
        with heard.changed:
            heard.changed.wait_for(lambda: len(heard.entries) > number - int(sys.argv[2]) - 20, 5)
"""


def test_what_was_told_survives_kill_9_and_nothing_half_stays(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    told = 0
    for round in range(3):
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(folder), str(round * 100_000)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": "."},
        )  # fmt: skip
        assert child.stdout is not None
        first = told
        while told < first + 30:
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        told = max([told, *map(int, child.stdout.read().split())])
        child.wait()
        child.stdout.close()
    with archive(folder) as (made, heard):
        entries = made.since(0, 100_000)
        heard.until(lambda: heard.kept[0] > 0 and len(files(folder)) == heard.kept[0])
        entries = made.since(0, 100_000)
        assert [e.position for e in entries] == list(range(1, len(entries) + 1))
        assert len(entries) >= told
        for entry in entries:
            image = imaging.decode(made.picture(entry.record["id"])[0], "x")
            assert hashlib.sha256(image.data).hexdigest() == entry.record["image"]["sha256"]
