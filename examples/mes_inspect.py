"""An MES, or a rework bench, over gRPC: have a part inspected, and get its answer and its picture.

    python examples/mes_inspect.py                                        # against `make demo`
    python examples/mes_inspect.py --target 192.168.1.5:50051 --station s2 --part P-17

The call's deadline is the part's: its answer is a verdict before that, or `no_verdict` with the
reason. With an [archive] the answer comes when the record is on disk, so the picture can be fetched
at once, if it is kept: of rejects and of what was not judged always, of good parts a sample.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import demo_box
import grpc

from edged.wire.pb import results_pb2, results_pb2_grpc

PICTURE_SECONDS = 10.0
ANSWER_SECONDS = 1.0
"""Of the deadline, for the way of the answer: the client's own clock must not come first."""


def show(inspection: results_pb2.Inspection) -> str:
    """An answer for people."""
    if inspection.WhichOneof("outcome") == "no_verdict":
        why = inspection.no_verdict
        return f"no verdict: {why.reason} ({why.detail})"
    verdict = inspection.verdict
    word = "NOT OK" if verdict.is_anomalous else "OK"
    simulated = ", simulated" if inspection.simulated else ""
    return (
        f"{word:7} score {verdict.score:.4f}, threshold {verdict.threshold:.4f}, "
        f"{inspection.timing.total_seconds * 1000:.0f} ms, model {inspection.model.name}{simulated}"
    )


def fetch(stub: Any, id: str, folder: Path) -> Path | None:
    """Write the picture of an inspection into the folder; None when the box has not kept it."""
    data = bytearray()
    suffix = "png"
    try:
        for chunk in stub.Picture(results_pb2.PictureRequest(id=id), timeout=PICTURE_SECONDS):
            suffix = chunk.media_type.partition("/")[2] or suffix  # in the first piece only
            data += chunk.data
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{id}.{suffix}"
    path.write_bytes(data)
    return path


def main() -> int:
    parser = demo_box.parser(__doc__)
    parser.add_argument("--target", help="HOST:PORT or unix:PATH; with it --config is not read")
    parser.add_argument("--station", help="its trigger must be grpc (default: the first such)")
    parser.add_argument("--part", help="its name (default: made of the number)")
    parser.add_argument("--count", type=int, default=3, help="parts, one after the other")
    parser.add_argument("--deadline", type=float, default=5.0, metavar="SECONDS")
    parser.add_argument("--pictures", type=Path, default=Path("demo-output/pictures"))
    asked = parser.parse_args()
    target, station = asked.target, asked.station
    if target is None:
        config = demo_box.read(asked.config)
        target = demo_box.grpc_target(config, asked.config)
        station = demo_box.station(config, asked.station, trigger="grpc")["name"]
    first = int(time.time() * 100) % 2**32  # a number of its own for each part, across restarts
    with grpc.insecure_channel(target) as channel:
        stub: Any = results_pb2_grpc.InspectionsStub(channel)  # type: ignore[no-untyped-call]
        try:
            for number in range(first, first + asked.count):
                part = asked.part or f"R-{number}"
                request = results_pb2.InspectRequest(station=station, part=part, sequence=number)
                answer = stub.Inspect(request, timeout=asked.deadline + ANSWER_SECONDS)
                path = fetch(stub, answer.id, asked.pictures)
                print(f"{part}  {show(answer)}")
                print(f"    {path or 'its picture was not kept'}")
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
