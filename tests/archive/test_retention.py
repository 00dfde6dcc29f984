"""What the archive lets go of, when, and in which order."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edged.archive.journal import JournalFile, JournalRow
from edged.archive.pictures import PictureFiles, name_of
from edged.archive.retention import ALL, NONE, REJECTS, TURN, Retention
from edged.config import ArchiveConfig
from edged.core.observer import Observer
from edged.wire.results import NOT_DECIDABLE, NOT_OK, OK
from tests.support.archive_box import BAD, GOOD, archive, files, image_of, inspection

NOW = 1_800_000_000.0
DAY = 86400.0


class Shelf:
    """Rules over real rows and files, on clocks and a disk that the test turns."""

    def __init__(self, folder: Path, **config: float) -> None:
        self.journal = JournalFile(folder)
        self.journal.open()
        self.files = PictureFiles(folder)
        self.free, self.now, self.steady = 1e15, NOW, 0.0
        self.folder = folder
        self.rules = Retention(
            ArchiveConfig(**config), self.journal, self.files, Observer(),
            lambda: self.free, lambda: self.now, lambda: self.steady,
        )  # fmt: skip

    def put(self, number: int, evaluation: int, age_days: float = 0.0) -> None:
        id, moment = f"p{number}", NOW - age_days * DAY
        size = self.files.write(name := name_of(id, moment), image_of(1, 8))
        self.journal.append([JournalRow(id, "s", number, moment, evaluation, "{}", name, size)])

    def kept(self) -> set[int]:
        return {int(name[1:-4]) for name in files(self.folder)}

    def settle(self) -> None:
        while self.rules.turn():
            pass


def test_by_size_passes_go_before_rejects_and_the_oldest_first(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "a", max_gb=1.0)
    for number, kind in enumerate([NOT_OK, OK, NOT_DECIDABLE, OK, NOT_OK, OK], 1):
        shelf.put(number, kind)
    one = shelf.journal.bytes / 6
    gone = []
    for most in (5, 4, 3, 2, 1):
        before = shelf.kept()
        shelf.rules._config = ArchiveConfig(max_gb=most * one / 1e9)
        shelf.settle()
        gone += sorted(before - shelf.kept())
    assert gone == [2, 4, 6, 3, 1]
    assert shelf.kept() == {5} and (shelf.journal.pictures, shelf.journal.rows) == (1, 6)


def test_one_turn_removes_no_more_than_its_share(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "a", max_gb=1e-9)
    for number in range(TURN + 5):
        shelf.put(number, OK)
    assert shelf.rules.turn() is True
    assert shelf.journal.pictures == 5
    shelf.settle()
    assert shelf.journal.pictures == 0 and shelf.kept() == set()


def test_pictures_go_by_age_and_their_records_stay(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "a", max_days=90)
    for number in range(10):
        shelf.put(number, NOT_OK, age_days=95 - number)
    for _ in range(2000):
        shelf.steady += 3600
        shelf.rules.turn()
    assert shelf.kept() == {5, 6, 7, 8, 9} and shelf.journal.rows == 10


def test_a_clock_that_jumps_years_ahead_does_not_empty_the_archive(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "a", max_days=90)
    for number in range(200):
        shelf.put(number, NOT_OK)
    shelf.now += 10 * 365 * DAY
    for _ in range(24 * 60):  # a day of turns
        shelf.steady += 60
        shelf.rules.turn()
    assert 180 <= shelf.journal.pictures < 200
    shelf.now = NOW  # somebody put it right
    left = shelf.journal.pictures
    for _ in range(24 * 60):
        shelf.steady += 60
        shelf.rules.turn()
    assert shelf.journal.pictures == left


def test_a_long_quiet_time_saves_up_no_right_to_remove(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "a", max_days=90)
    for number in range(200):
        shelf.put(number, NOT_OK)
    for _ in range(30 * 24):  # a month of turns in which nothing is old
        shelf.steady += 3600
        shelf.rules.turn()
    shelf.now += 10 * 365 * DAY
    shelf.rules.turn()
    assert shelf.journal.pictures >= 197


def test_free_disk_thins_out_before_it_stops_and_does_not_flap(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shelf = Shelf(tmp_path / "a", min_free_gb=2.0, passes=1.0)
    states = []
    for free in (3.0, 1.9, 2.1, 2.4, 2.6, 1.9, 0.9, 1.1, 1.24, 1.3, 2.2, 3.0):
        shelf.free = free * 1e9
        shelf.rules.look()
        states.append(shelf.rules.state)
    assert states == [
        ALL, REJECTS, REJECTS, REJECTS, ALL, REJECTS, NONE, NONE, NONE, REJECTS, REJECTS, ALL
    ]  # fmt: skip
    said = [r.message for r in caplog.records if "GB free" in r.message]
    assert len(said) == 6


def test_under_the_marker_old_passes_go_and_rejects_stay(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "a", min_free_gb=2.0, passes=1.0)
    for number in range(6):
        shelf.put(number, OK if number % 2 else NOT_OK)
    shelf.free = 1.5e9
    shelf.rules.look()
    shelf.settle()
    assert shelf.kept() == {0, 2, 4}
    assert not shelf.rules.wants(inspection(1, GOOD)) and shelf.rules.wants(inspection(1, BAD))
    shelf.free = 0.5e9
    shelf.rules.look()
    assert not shelf.rules.wants(inspection(1, BAD))


def test_records_go_on_when_the_disk_has_room_for_no_picture(tmp_path: Path) -> None:
    with archive(tmp_path / "a", free=lambda: 1e6) as (made, heard):
        for number in range(1, 6):
            made.accept(inspection(number))
        heard.until(lambda: len(heard.entries) == 5 and heard.kept == (0, 0, NONE))
    assert not any(e.picture for e in heard.entries)
    assert all("sha256" in e.record["image"] for e in heard.entries)


def test_thousands_of_old_pictures_go_while_records_come(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "a")
    for number in range(2000):
        shelf.put(number, OK, age_days=number / 100)
    shelf.journal.close()
    with archive(tmp_path / "a", max_gb=1e-7) as (made, heard):
        then = datetime.now(timezone.utc) - timedelta(days=1)
        for number in range(5000, 5050):
            made.accept(inspection(number, at=then))
        heard.until(lambda: len(heard.entries) == 50 and heard.kept[1] <= 100)
    assert len(files(tmp_path / "a")) == heard.kept[0] == 0
