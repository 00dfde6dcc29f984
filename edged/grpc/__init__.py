"""The gRPC front door: the Edge Agent of Lookout for Vision, and edged's stream of results.

Decision. The servers are grpc.aio on one asyncio loop on one thread. A stream on the synchronous
server holds a thread for its whole life: four watchers on a pool of four starved the health
check. On the loop fifty cost nothing. The loop's owner (`runtime/loop.py`) knows no gRPC, so that
another server may share it. The data plane is reached through `core.protocols` only.

    calls.py          what all calls share: errors to status codes, counting, the end
    details.py        what an error tells a program beside its sentence
    framing.py        a detection's request as it lies on the wire, without copying its pixels
    shared_memory.py  pixels in POSIX shared memory
    turns.py          one detection at a time for each model
    service.py        the Edge Agent
    results.py        the results stream, also a Sink
    inspections.py    edged's own interface: Inspect, Watch, List, Picture, Label
    admission.py      who may come in: certificates and the token
    ports.py          sockets and ports
    server.py         health, reflection, start and stop

This room is the home of grpc: importing it without the library says which extra to install.
"""

import os
from importlib import import_module

from edged.core.errors import MissingDependency

# The daemon starts children by exec, never by fork alone: gRPC need not prepare for forks.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

for _library, _package in (
    ("grpc.aio", "grpcio"),
    ("grpc_health.v1", "grpcio-health-checking"),
    ("google.protobuf.message", "protobuf"),
    ("google.rpc.status_pb2", "googleapis-common-protos"),
):
    try:
        import_module(_library)
    except ImportError as error:
        raise MissingDependency(_package, "grpc", "The gRPC front door") from error
