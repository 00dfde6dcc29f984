from __future__ import annotations

import gc
import queue
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import grpc
import numpy as np
import pytest

from edged.config import GrpcConfig
from edged.core.errors import NotFound
from edged.core.lifecycle import ModelStatus
from edged.core.observer import Observer
from edged.core.protocols import HostedModel, Sink
from edged.core.types import Frame, Image, Inspection, NoVerdict, Reason, Timing, Verdict
from edged.grpc import results as results_room
from edged.grpc.results import ResultsStream
from edged.grpc.server import Doors
from edged.runtime.workers import Crew, Deadline
from edged.wire.pb import results_pb2 as pb
from edged.wire.pb import results_pb2_grpc as pb_grpc


class NoModels:
    """A ModelHost without a model: these tests feed the stream themselves."""

    def start(self, name: str) -> ModelStatus:
        raise NotFound(name)

    def stop(self, name: str) -> ModelStatus:
        raise NotFound(name)

    def models(self) -> list[HostedModel]:
        return []

    def detect(self, name: str, image: Image, deadline_ns: int = 0) -> Future[Inspection]:
        raise NotFound(name)


class Ended(Observer):
    """Hands out the codes that calls ended with."""

    def __init__(self) -> None:
        self.codes: queue.Queue[str] = queue.Queue()

    def request_done(self, method: str, code: str, seconds: float) -> None:
        self.codes.put(code)


class Served:
    """A results stream behind doors on a Unix socket."""

    def __init__(self, folder: Path, capacity: int = 64) -> None:
        self.stream = ResultsStream(capacity)
        self.observer = Ended()
        self.deadline = Deadline()
        config = GrpcConfig(socket=folder / "s")
        self.target = f"unix:{config.socket}"
        self.doors = Doors(config, NoModels(), self.stream, Crew(), self.observer, self.deadline)

    def accept(self, *sequences: int, camera: str = "top") -> None:
        for sequence in sequences:
            self.stream.accept(record(sequence, camera))


@contextmanager
def serving(folder: Path, capacity: int = 64) -> Iterator[Served]:
    served = Served(folder, capacity)
    served.stream.start()
    served.doors.start()
    try:
        yield served
    finally:
        served.stream.close()
        served.doors.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path) as made:
        yield made


@pytest.fixture
def stub(served: Served) -> Iterator[pb_grpc.InspectionsStub]:
    with grpc.insecure_channel(served.target) as channel:
        yield pb_grpc.InspectionsStub(channel)


def record(sequence: int, camera: str = "top", detail: str = "") -> Inspection:
    image = np.zeros((64, 64, 3), np.uint8)
    frame = Frame(camera, sequence, 1, datetime.now(timezone.utc), image)
    outcome = NoVerdict(Reason.OVERLOAD, detail) if detail else Verdict(True, 0.75, 0.75, 0.5)
    return Inspection(frame, None, outcome, Timing(1))


def watch(stub: pb_grpc.InspectionsStub, **request: object) -> grpc.Call:
    """A stream that the server has begun: what is accepted from here on is live."""
    call = stub.Watch(pb.WatchRequest(**request), timeout=60)  # type: ignore[arg-type]
    call.initial_metadata()
    return call


def positions(messages: list[pb.Inspection]) -> list[int]:
    return [message.position for message in messages]


def test_the_stream_is_a_sink() -> None:
    sink: Sink = ResultsStream()
    assert sink.name == "results"
    sink.start()
    sink.accept(record(1))
    sink.close()


def test_what_was_accepted_is_replayed_in_order_from_position_1(
    served: Served, stub: pb_grpc.InspectionsStub
) -> None:
    served.accept(11, 12, 13)
    call = watch(stub)
    got = [next(call) for _ in range(3)]
    assert positions(got) == [1, 2, 3]
    assert [m.sequence for m in got] == [11, 12, 13]
    assert got[0].verdict.is_anomalous
    assert got[0].run


def test_after_the_replay_the_stream_is_live(served: Served, stub: pb_grpc.InspectionsStub) -> None:
    served.accept(1)
    call = watch(stub)
    assert next(call).position == 1
    for sequence in (2, 3, 4):
        served.accept(sequence)
        assert next(call).position == sequence


def test_a_watcher_goes_on_after_the_position_it_knows(
    served: Served, stub: pb_grpc.InspectionsStub
) -> None:
    served.accept(1, 2, 3, 4)
    assert next(watch(stub, since=3)).position == 4
    at_the_end = watch(stub, since=4)
    served.accept(5)
    assert next(at_the_end).position == 5


def test_a_position_from_an_earlier_life_starts_with_the_oldest(
    served: Served, stub: pb_grpc.InspectionsStub
) -> None:
    served.accept(1, 2, 3)
    first = next(watch(stub, since=500_000))
    assert first.position == 1
    assert next(watch(stub, since=2, run="another life")).position == 1
    assert next(watch(stub, since=2, run=first.run)).position == 3


def test_each_life_has_its_own_run(tmp_path: Path) -> None:
    runs = set()
    for life in ("a", "b"):
        (tmp_path / life).mkdir()
        with serving(tmp_path / life) as served:
            served.accept(1)
            with grpc.insecure_channel(served.target) as channel:
                runs.add(next(watch(pb_grpc.InspectionsStub(channel))).run)
    assert len(runs) == 2


def test_only_the_cameras_asked_for_are_sent(served: Served, stub: pb_grpc.InspectionsStub) -> None:
    served.accept(1, camera="top")
    served.accept(1, camera="side")
    call = watch(stub, cameras=["side", "back"])
    served.accept(2, camera="top")
    served.accept(1, camera="back")
    got = [next(call), next(call)]
    assert [(m.camera, m.position) for m in got] == [("side", 2), ("back", 4)]


def test_too_many_cameras_are_an_invalid_argument(
    stub: pb_grpc.InspectionsStub,
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.Watch(pb.WatchRequest(cameras=["c"] * 1025)))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("count", [7, 8, 9, 16, 20])
def test_the_ring_holds_the_newest_and_the_gap_shows_in_the_position(
    tmp_path: Path, count: int
) -> None:
    with serving(tmp_path, capacity=8) as served:
        served.accept(*range(1, count + 1))
        with grpc.insecure_channel(served.target) as channel:
            call = watch(pb_grpc.InspectionsStub(channel))
            served.stream.close()
            got = list(call)
    assert positions(got) == list(range(max(1, count - 7), count + 1))
    assert [m.sequence for m in got] == positions(got)


def test_a_replay_longer_than_one_look_is_complete(tmp_path: Path) -> None:
    count = 3 * results_room.SCAN + 1
    with serving(tmp_path, capacity=count) as served:
        served.accept(*range(1, count + 1))
        with grpc.insecure_channel(served.target) as channel:
            call = watch(pb_grpc.InspectionsStub(channel))
            served.stream.close()
            assert positions(list(call)) == list(range(1, count + 1))


def test_close_delivers_everything_accepted_and_ends_with_ok(
    served: Served, stub: pb_grpc.InspectionsStub
) -> None:
    calls = [watch(stub) for _ in range(3)]
    served.accept(*range(1, 51))
    served.stream.close()
    served.doors.close()
    for call in calls:
        assert positions(list(call)) == list(range(1, 51))
        assert call.code() is grpc.StatusCode.OK
    assert [served.observer.codes.get(timeout=20) for _ in calls] == ["OK"] * 3


def test_many_threads_give_each_record_one_position_and_none_is_lost(tmp_path: Path) -> None:
    threads, each = 4, 200
    with serving(tmp_path, capacity=threads * each) as served:
        with grpc.insecure_channel(served.target) as channel:
            call = watch(pb_grpc.InspectionsStub(channel))
            units = [
                threading.Thread(
                    target=lambda name=f"c{n}": served.accept(*range(1, each + 1), camera=name)
                )
                for n in range(threads)
            ]
            for unit in units:
                unit.start()
            for unit in units:
                unit.join(30)
            served.stream.close()
            got = list(call)
    assert positions(got) == list(range(1, threads * each + 1))
    for n in range(threads):
        assert [m.sequence for m in got if m.camera == f"c{n}"] == list(range(1, each + 1))


def test_a_slow_reader_loses_the_oldest_and_costs_the_others_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count, detail = 400, "x" * 64 * 1024  # more than gRPC's own buffers hold
    with serving(tmp_path, capacity=16) as served:
        with (
            grpc.insecure_channel(served.target) as slow_channel,
            grpc.insecure_channel(served.target) as channel,
        ):
            slow = watch(pb_grpc.InspectionsStub(slow_channel))
            quick = watch(pb_grpc.InspectionsStub(channel))
            for sequence in range(1, count + 1):
                served.stream.accept(record(sequence, detail=detail))
                # In step: the quick reader has each one before the next is accepted.
                assert next(quick).position == sequence
            served.stream.close()
            late = positions(list(slow))
        assert list(quick) == []
    assert late == sorted(set(late))
    assert len(late) < count
    assert late[0] == 1
    assert late[-16:] == list(range(count - 15, count + 1))
    assert f"{count - len(late)} passed it by" in caplog.text


def test_a_reader_that_never_reads_does_not_stop_the_end(tmp_path: Path) -> None:
    served = Served(tmp_path, 512)
    served.doors.start()
    with grpc.insecure_channel(served.target) as channel:
        call = watch(pb_grpc.InspectionsStub(channel))
        for sequence in range(400):
            served.stream.accept(record(sequence, detail="x" * 64 * 1024))
        served.stream.close()
        served.deadline.set(0)
        served.doors.close()
        call.cancel()
    assert served.observer.codes.get(timeout=20) == "CANCELLED"


def test_a_client_that_leaves_is_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clients = results_room.MAX_WATCHERS + 1
    room = serving(tmp_path, capacity=clients)  # a fuller one would pass new watchers by
    with room as served, grpc.insecure_channel(served.target) as channel:
        for _ in range(clients):
            call = watch(pb_grpc.InspectionsStub(channel))
            served.accept(1)
            call.cancel()
            assert served.observer.codes.get(timeout=20) == "CANCELLED"
    assert caplog.text == ""


def test_watchers_beyond_the_limit_are_refused(
    served: Served, stub: pb_grpc.InspectionsStub
) -> None:
    calls = [watch(stub) for _ in range(results_room.MAX_WATCHERS)]
    with pytest.raises(grpc.RpcError) as caught:
        next(stub.Watch(pb.WatchRequest()))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "64 clients watch already" in caught.value.details()
    served.accept(1)
    assert [next(call).position for call in calls] == [1] * len(calls)


def test_no_frame_is_kept_alive(served: Served) -> None:
    accepted = record(1)
    image = weakref.ref(accepted.frame.image)
    served.stream.accept(accepted)
    del accepted
    gc.collect()
    assert image() is None


def test_records_are_accepted_after_the_doors_are_gone(served: Served) -> None:
    with grpc.insecure_channel(served.target) as channel:
        watch(pb_grpc.InspectionsStub(channel))
        served.deadline.set(0)
        served.doors.close()
    served.accept(1, 2)
