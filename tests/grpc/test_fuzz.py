"""20,000 malformed calls over the wire: each gets a right status, and nothing grows or breaks."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import psutil

from edged.wire.pb import edge_agent_pb2 as pb
from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from edged.wire.pb import results_pb2
from tests.support.fake_line import FakeJournal, FakeStations
from tests.support.grpc_box import Box, ask, channel, pixels

CALLS, WARM, WINDOW = 20_000, 4_000, 64
GROWTH = 24 * 1024 * 1024
"""Bytes of memory that 16,000 calls may leave behind: what allocators do not give back."""
AGENT, OWN = "/AWS.LookoutVision.EdgeAgent/", "/edged.v1.Inspections/"
Code = grpc.StatusCode
RIGHT = {
    "DetectAnomalies": {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED},
    "StartModel": {Code.INVALID_ARGUMENT, Code.NOT_FOUND},
    "StopModel": {Code.INVALID_ARGUMENT, Code.NOT_FOUND},
    "DescribeModel": {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND},
    "ListModels": {Code.OK, Code.INVALID_ARGUMENT},
    "Inspect": {Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.FAILED_PRECONDITION},
    "List": {Code.OK, Code.INVALID_ARGUMENT},
    "Picture": {Code.INVALID_ARGUMENT, Code.NOT_FOUND},
    "Nothing": {Code.UNIMPLEMENTED},
}
HUGE = (0, 1, 63, 64, 4096, 4097, 2**31 - 1, -1, -64, -(2**31))
SIZES = (0, 1, 12287, 12288, 12289, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1)
NAMES = (
    "", "/", "..", ".", "a/b", "/../etc/passwd", "\0", "x" * 300, "fuzz-gone", "fuzz-short",
    "fuzz-link", "fuzz-dir", "fuzz-good", "ä",
)  # fmt: skip


def handle(dice: random.Random) -> pb.SharedMemoryHandle:
    return pb.SharedMemoryHandle(
        name=dice.choice(NAMES), size=dice.choice(SIZES), offset=dice.choice(SIZES)
    )


def detection(dice: random.Random) -> pb.DetectAnomaliesRequest:
    """A request that lies about something: sides, sizes, segments, or the mask's place."""
    bitmap = pb.Bitmap(width=64, height=64)
    if dice.random() < 0.5:
        bitmap.width, bitmap.height = dice.choice(HUGE), dice.choice(HUGE)
    if dice.random() < 0.6:
        bitmap.shared_memory_handle.CopyFrom(handle(dice))
    elif dice.random() < 0.9:
        bitmap.byte_data = bytes(dice.choice((0, 1, 12287, 12289, 70_000)))
    request = pb.DetectAnomaliesRequest(bitmap=bitmap)
    request.model_component = dice.choice(("screws", "screws", "", "nuts", "../screws"))
    if dice.random() < 0.3:
        place = dice.choice(("shared_memory_handle", "shared_memory_handle_v1"))
        getattr(request.anomaly_mask_params, place).CopyFrom(handle(dice))
    return request


def damaged(dice: random.Random, data: bytes) -> bytes:
    """Bytes flipped, cut off, doubled or put in front."""
    kind = dice.randrange(5)
    if kind == 0:
        return dice.randbytes(dice.randrange(1, 200))
    if kind == 1:
        return data[: dice.randrange(len(data) + 1)]
    if kind == 2:
        return data + data
    if kind == 3:
        return b"\xff" * dice.randrange(1, 20) + data
    copy = bytearray(data or b"\0")
    for _ in range(dice.randrange(1, 9)):
        copy[dice.randrange(len(copy))] = dice.randrange(256)
    return bytes(copy)


def message(dice: random.Random) -> tuple[str, bytes]:
    """A method's path, and what it is sent."""
    method = dice.choice(
        (*["DetectAnomalies"] * 6, "StartModel", "StopModel", "DescribeModel", "ListModels",
         "Inspect", "List", "Picture", "Nothing")
    )  # fmt: skip
    path = (OWN if method in ("Inspect", "List", "Picture") else AGENT) + method
    if method == "DetectAnomalies":
        data = detection(dice).SerializeToString()
        return path, data if dice.random() < 0.6 else damaged(dice, data)
    made: dict[str, Callable[[], bytes]] = {
        "Inspect": results_pb2.InspectRequest(
            station=dice.choice(("gate", "", "x")), part=dice.choice(("P", "", "a b")),
            sequence=dice.choice(SIZES),
        ).SerializeToString,
        "List": results_pb2.ListRequest(
            since=dice.choice(SIZES), limit=dice.randrange(2**32), run=dice.choice(("", "x"))
        ).SerializeToString,
        "Picture": results_pb2.PictureRequest(
            id=dice.choice(("", "0" * 32, "../" * 11, "f" * 31))
        ).SerializeToString,
    }  # fmt: skip
    ghost = pb.StartModelRequest(model_component=dice.choice(("ghost", "", "g" * 500)))
    data = made.get(method, ghost.SerializeToString)()
    return path, damaged(dice, data)


def code_of(call: grpc.Future) -> grpc.StatusCode:
    error = call.exception(60)
    return Code.OK if error is None else error.code()


def resources() -> tuple[int, int, set[str]]:
    """Bytes of memory, open files, and the names of the shared memory there is."""
    process = psutil.Process()
    names = {path.name for path in Path("/dev/shm").iterdir()}
    return process.memory_info().rss, process.num_fds(), names


def prepare(folder: Path) -> list[Path]:
    """Segments that are too short, a link, a folder, and a good one."""
    shm = Path("/dev/shm")
    (shm / "fuzz-short").write_bytes(bytes(100))
    (shm / "fuzz-good").write_bytes(bytes(12288))
    (shm / "fuzz-link").symlink_to(folder / "elsewhere")
    (shm / "fuzz-dir").mkdir()
    return [shm / f"fuzz-{what}" for what in ("short", "good", "link")]


def test_20000_malformed_calls_get_a_right_status_and_leave_nothing_behind(tmp_path: Path) -> None:
    dice, seen = random.Random(7), Counter[str]()
    journal = FakeJournal()
    journal.add(1, 2, 3)
    box = Box(tmp_path, None, FakeStations(), journal)
    made = prepare(tmp_path)
    box.doors.start()
    try:
        with channel(f"unix:{box.socket}") as line:
            before = resources()
            for begin in range(0, CALLS, WINDOW):
                calls = []
                for _ in range(WINDOW):
                    path, data = message(dice)
                    method = path.rpartition("/")[2]
                    kind = line.unary_unary(path)
                    calls.append((method, data, kind.future(data, timeout=60)))
                for method, data, call in calls:
                    code = code_of(call)
                    assert code in RIGHT[method], (method, code, call.details(), data[:200])
                    seen[code.name] += 1
                box.host.images.clear()
                if begin <= WARM < begin + WINDOW:
                    before = resources()
            after = resources()
            rgb = pixels()
            agent = pb_grpc.EdgeAgentStub(line)
            assert agent.DetectAnomalies(ask(rgb)).HasField("detect_anomaly_result")
            assert np.array_equal(box.host.images[0], rgb[..., ::-1])
    finally:
        box.doors.close()
        for path in made:
            path.unlink()
        (Path("/dev/shm") / "fuzz-dir").rmdir()
    assert sum(seen.values()) >= CALLS
    assert {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"} <= set(seen)
    assert after[0] - before[0] < GROWTH, (before[0], after[0], seen)
    assert after[1] <= before[1]
    assert after[2] == before[2]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
