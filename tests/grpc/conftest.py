from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import shared_memory
from pathlib import Path

import pytest

from edged.wire.pb import edge_agent_pb2_grpc as pb_grpc
from tests.support.grpc_box import Box, channel


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    made.doors.start()
    yield made
    made.doors.close()


@pytest.fixture(params=["unix", "tcp"])
def agent(box: Box, request: pytest.FixtureRequest) -> Iterator[pb_grpc.EdgeAgentStub]:
    with channel(box.targets[request.param]) as opened:
        yield pb_grpc.EdgeAgentStub(opened)


@pytest.fixture
def unix(box: Box) -> Iterator[pb_grpc.EdgeAgentStub]:
    with channel(box.targets["unix"]) as opened:
        yield pb_grpc.EdgeAgentStub(opened)


@pytest.fixture
def segment() -> Iterator[shared_memory.SharedMemory]:
    made = shared_memory.SharedMemory(create=True, size=64 * 300 + 4096)
    yield made
    made.close()
    made.unlink()
