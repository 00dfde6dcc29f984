"""edged's own interface over FAKE stations and a FAKE journal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from edged.core.protocols import JournalEntry, Label
from edged.core.types import Reason, TriggerRequest
from edged.grpc.inspections import CHUNK_BYTES, MAX_PICTURES
from edged.grpc.results import SCAN
from edged.wire.pb import results_pb2 as pb
from edged.wire.pb import results_pb2_grpc as pb_grpc
from edged.wire.results import full
from tests.support.broker import wait_until
from tests.support.fake_line import FakeJournal, FakeLabels, FakeStations
from tests.support.grpc_box import Box, channel, refused


@contextmanager
def opened(
    folder: Path,
    stations: FakeStations | None = None,
    journal: FakeJournal | None = None,
    capacity: int = 64,
) -> Iterator[tuple[Box, pb_grpc.InspectionsStub]]:
    box = Box(folder, None, stations, journal, capacity)
    box.doors.start()
    try:
        with channel(f"unix:{box.socket}") as line:
            yield box, pb_grpc.InspectionsStub(line)
    finally:
        box.results.close()
        box.doors.close()


def order(**changes: object) -> pb.InspectRequest:
    facts: dict[str, object] = {"station": "gate", "part": "P-1", "sequence": 3}
    return pb.InspectRequest(**{**facts, **changes})  # type: ignore[arg-type]


def read(call: grpc.Call, count: int) -> list[int]:
    return [next(call).position for _ in range(count)]


def test_a_triggered_part_is_answered_with_its_one_inspection(tmp_path: Path) -> None:
    with opened(tmp_path, FakeStations()) as (_, stub):
        answer = stub.Inspect(order())
        assert (answer.station, answer.part, answer.ok, answer.code) == ("gate", "P-1", True, 0)
        assert (answer.trigger.sequence, answer.trigger.kind) == (3, "grpc")
        assert (answer.engine, answer.position) == ("fake", 0)
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "came before"):
            stub.Inspect(order())


def test_an_ok_is_given_when_it_is_on_disk_and_is_none_when_the_disk_does_not_answer(
    tmp_path: Path,
) -> None:
    stations, journal = FakeStations(), FakeJournal()
    with opened(tmp_path, stations, journal) as (_, stub):
        silent = stub.Inspect(order())
        assert (silent.ok, silent.code) == (False, Reason.NO_RECORD.code)
        stations.hold = True
        call = stub.Inspect.future(order(sequence=4))
        assert wait_until(lambda: len(stations.futures) == 2)
        made = stations.judged(TriggerRequest("P-1", 4), 1)
        stations.futures[1].set_result(made)
        for tell in journal.callbacks:
            tell([JournalEntry(1, full(made))])
        answer = call.result(10)
    assert (answer.id, answer.ok, answer.code) == (made.id, True, 0)


def test_the_calls_deadline_is_the_parts_and_none_leaves_the_stations(tmp_path: Path) -> None:
    stations = FakeStations()
    with opened(tmp_path, stations) as (_, stub):
        stub.Inspect(order(), timeout=30)
        stub.Inspect(order(sequence=4))
        stub.Inspect(order(sequence=5), timeout=100_000)
    deadlines = [o.deadline for o, _ in stations.requests]
    assert deadlines[0] is not None
    assert 0 < deadlines[0] <= 31  # gRPC rounds up on the wire
    assert deadlines[1:] == [None, None]


def test_a_part_that_was_not_judged_in_time_is_an_answer_and_never_ok(tmp_path: Path) -> None:
    stations = FakeStations()
    stations.hold = True
    with opened(tmp_path, stations) as (_, stub):
        call = stub.Inspect.future(order())
        assert wait_until(lambda: bool(stations.futures), 20)
        stations.futures[0].set_result(stations.judged(TriggerRequest("P-1", 3), 1, late=True))
        answer = call.result(20)
    assert answer.no_verdict.reason == "timeout"
    assert (answer.ok, answer.code) == (False, 3)


def test_a_caller_that_leaves_does_not_take_its_part_along(tmp_path: Path) -> None:
    stations = FakeStations()
    stations.hold = True
    with opened(tmp_path, stations) as (box, stub):
        call = stub.Inspect.future(order())
        assert wait_until(lambda: bool(stations.futures), 20)
        call.cancel()
        box.observer.wait_for("Inspect", "CANCELLED")
        assert not stations.futures[0].cancelled()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"station": ""}, "station is missing"),
        ({"part": ""}, "1 to 40 characters"),
        ({"part": "a b"}, "1 to 40 characters"),
        ({"part": "x" * 41}, "1 to 40 characters"),
        ({"sequence": 2**32}, "4294967295"),
    ],
)
def test_an_order_that_is_none_is_refused_before_the_station(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    stations = FakeStations()
    with opened(tmp_path, stations) as (_, stub):
        with refused(grpc.StatusCode.INVALID_ARGUMENT, words):
            stub.Inspect(order(**changes))
        with refused(grpc.StatusCode.NOT_FOUND, "stations: gate"):
            stub.Inspect(order(station="nowhere"))
    assert stations.requests == []


def test_what_this_box_does_not_have_is_unimplemented_and_says_which_section(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as (_, stub):
        with refused(grpc.StatusCode.UNIMPLEMENTED, "[[stations]]"):
            stub.Inspect(order())
        with refused(grpc.StatusCode.UNIMPLEMENTED, "[archive]"):
            list(stub.Picture(pb.PictureRequest(id="0" * 32)))
        with refused(grpc.StatusCode.UNIMPLEMENTED, "[archive] and [rest]"):
            stub.Label(pb.LabelRequest(id="0" * 32))


def test_positions_go_on_across_restarts_and_a_watcher_misses_nothing(tmp_path: Path) -> None:
    journal = FakeJournal()
    with opened(tmp_path, journal=journal) as (_, stub):
        journal.add(1, 2, 3)
        assert read(stub.Watch(pb.WatchRequest(), timeout=60), 3) == [1, 2, 3]
    journal.restarted().add(4, 5, tell=False)  # written, and killed before anybody was told
    with opened(tmp_path, journal=journal) as (_, stub):
        call = stub.Watch(pb.WatchRequest(since=3), timeout=60)
        assert read(call, 2) == [4, 5]
        journal.add(6)
        first = next(call)
        assert (first.position, first.sequence, first.run, first.station) == (6, 6, "", "top")


def test_a_watcher_reads_the_journal_and_then_the_ring_without_a_gap_or_a_double(
    tmp_path: Path,
) -> None:
    journal = FakeJournal()
    journal.add(*range(1, 2 * SCAN + 10))
    total = 2 * SCAN + 9 + 200
    with opened(tmp_path, journal=journal, capacity=16) as (_, stub):
        call = stub.Watch(pb.WatchRequest(), timeout=60)
        got = read(call, 10)
        for sequence in range(200):  # the ring of 16 is overtaken many times
            journal.add(sequence)
        got += read(call, total - 10)
        assert got == list(range(1, total + 1))
        journal.add(1)
        assert next(call).position == total + 1


def test_what_the_journal_no_longer_keeps_shows_as_a_gap(tmp_path: Path) -> None:
    journal = FakeJournal()
    journal.add(*range(1, 11))
    journal.prune(6)
    with opened(tmp_path, journal=journal) as (_, stub):
        assert read(stub.Watch(pb.WatchRequest(since=2), timeout=60), 4) == [7, 8, 9, 10]


def test_a_position_of_a_journal_that_is_no_more_starts_with_the_oldest(tmp_path: Path) -> None:
    journal = FakeJournal()
    journal.add(1, 2)
    with opened(tmp_path, journal=journal) as (_, stub):
        for request in (
            pb.WatchRequest(since=500),
            pb.WatchRequest(since=2**64 - 1),
            pb.WatchRequest(since=2, run="a life without a journal"),
        ):
            assert read(stub.Watch(request, timeout=60), 2) == [1, 2]
        assert [i.position for i in stub.List(pb.ListRequest(since=500)).inspections] == [1, 2]


def test_only_the_stations_asked_for_come_from_journal_and_ring(tmp_path: Path) -> None:
    journal = FakeJournal()
    journal.add(1, station="top")
    journal.add(1, station="side")
    with opened(tmp_path, journal=journal) as (_, stub):
        call = stub.Watch(pb.WatchRequest(cameras=["side"]), timeout=60)
        assert next(call).position == 2
        journal.add(2, station="top")
        journal.add(2, station="side")
        assert next(call).position == 4
        page = stub.List(pb.ListRequest(stations=["top"]))
        assert [i.position for i in page.inspections] == [1, 3]


@pytest.mark.parametrize("kept", [True, False])
def test_pages_follow_each_other_until_there_is_no_more(tmp_path: Path, kept: bool) -> None:
    journal = FakeJournal() if kept else None
    with opened(tmp_path, journal=journal) as (box, stub):
        source = FakeJournal()
        if journal is not None:
            journal.add(*range(1, 8))
        else:
            stations = FakeStations()
            for number in range(7):
                box.results.accept(stations.judged(TriggerRequest("P", number), 1))
        assert source.entries == []
        pages, since = [], 0
        while True:
            page = stub.List(pb.ListRequest(since=since, limit=3, run=""))
            if page.next == since:
                break
            pages.append([i.position for i in page.inspections])
            since = page.next
        assert pages == [[1, 2, 3], [4, 5, 6], [7]]
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "1 to 1000"):
            stub.List(pb.ListRequest(limit=1001))


def test_a_page_stays_below_what_clients_take(tmp_path: Path) -> None:
    journal = FakeJournal()
    journal.add(*range(1, 101))
    for entry in journal.entries:
        entry.record["name"] = "x" * 100_000  # type: ignore[index]
    with opened(tmp_path, journal=journal) as (box, _):
        with grpc.insecure_channel(f"unix:{box.socket}") as plain:
            page = pb_grpc.InspectionsStub(plain).List(pb.ListRequest(limit=100))
    assert 20 < len(page.inspections) < 42
    assert page.next == len(page.inspections)


def test_a_damaged_record_is_a_gap_and_ends_no_stream(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = FakeJournal()
    journal.add(1, 2, 3)
    del journal.entries[1].record["id"]  # type: ignore[attr-defined]
    with opened(tmp_path, journal=journal) as (_, stub):
        assert read(stub.Watch(pb.WatchRequest(), timeout=60), 2) == [1, 3]
    assert "position 2 is damaged" in caplog.text


def test_a_picture_comes_whole_in_pieces(tmp_path: Path) -> None:
    journal = FakeJournal()
    journal.add(1)
    id = journal.entries[0].record["id"]
    data = bytes(range(256)) * (CHUNK_BYTES // 100)
    journal.pictures[id] = data
    with opened(tmp_path, journal=journal) as (box, stub):
        for _ in range(2 * MAX_PICTURES):  # none holds its place for ever
            chunks = list(stub.Picture(pb.PictureRequest(id=id)))
        assert b"".join(c.data for c in chunks) == data
        assert (chunks[0].media_type, chunks[0].size) == ("image/png", len(data))
        assert len(chunks) == 3
        with refused(grpc.StatusCode.NOT_FOUND, "not kept"):
            list(stub.Picture(pb.PictureRequest(id="0" * 32)))
        for bad in ("", "../../etc/passwd", "A" * 32, "0" * 33):
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "32 digits"):
                list(stub.Picture(pb.PictureRequest(id=bad)))
        box.observer.wait_for("Picture", "INVALID_ARGUMENT")


def test_a_label_goes_to_the_data_set_and_a_wrong_one_nowhere(tmp_path: Path) -> None:
    labels = FakeLabels()
    box = Box(tmp_path, None, labels=labels)
    box.doors.start()
    try:
        with channel(f"unix:{box.socket}") as line:
            stub = pb_grpc.InspectionsStub(line)
            id = "a" * 32
            said = stub.Label(pb.LabelRequest(id=id, anomalous=True, classes=["dent"]))
            assert said.source_ref == f"s3://edged-line/top/{id}.png"
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "train or test"):
                stub.Label(pb.LabelRequest(id=id, dataset="other"))
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "32 digits"):
                stub.Label(pb.LabelRequest(id="../x"))
            with refused(grpc.StatusCode.NOT_FOUND, "archive"):
                stub.Label(pb.LabelRequest(id="0" * 32))
    finally:
        box.doors.close()
    assert labels.said == [(id, Label(True, "train", "", ("dent",)))]
