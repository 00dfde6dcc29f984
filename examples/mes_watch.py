"""An MES over gRPC: follow every inspection, and miss none, whoever restarts in between.

    python examples/mes_watch.py --position demo-output/mes.json          # against `make demo`
    python examples/mes_watch.py --target 192.168.1.5:50051 --station s1

`Watch(since)` gives everything after that position, then live. So the position is written down
once an inspection has been dealt with, and not before; after a kill -9 the last one may come twice,
and its `id` says so. With an [archive] the box keeps its positions across restarts, too. An archive
that was thrown away begins anew: therefore the id at the position is kept beside it, and asked for.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import demo_box
import grpc

from edged.wire.pb import results_pb2, results_pb2_grpc

PAUSE_SECONDS = 1.0
"""Until it is tried again; a box that restarts takes some seconds."""
PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
"""Codes of what a later try may cure; others are told and end the program."""


class Mark(NamedTuple):
    """The last inspection that was dealt with; run: of the count, on a box without an archive."""

    position: int = 0
    id: str = ""
    run: str = ""


def load(path: Path | None) -> Mark:
    """The mark of an earlier life, or the beginning."""
    if path is None or not path.exists():
        return Mark()
    return Mark(**json.loads(path.read_text(encoding="utf-8")))


def save(path: Path | None, mark: Mark) -> None:
    """Replace the mark, whole or not at all."""
    if path is not None:
        fresh = path.with_suffix(".new")
        with fresh.open("w", encoding="utf-8") as file:
            json.dump(mark._asdict(), file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)


def agreed(stub: Any, mark: Mark) -> Mark:
    """The mark, if the box still means that inspection by its position; else the beginning."""
    if mark.position == 0 or mark.run:  # without an archive the box itself goes by `run`
        return mark
    request = results_pb2.ListRequest(since=mark.position - 1, limit=1)
    listed = stub.List(request, wait_for_ready=True).inspections
    if listed and listed[0].id == mark.id:
        return mark
    print("the box counts anew: from the beginning", file=sys.stderr)
    return Mark()


def deal_with(inspection: results_pb2.Inspection) -> None:
    """What an MES does with an inspection: here, print a line."""
    if inspection.WhichOneof("outcome") == "verdict":
        verdict = inspection.verdict
        word = "NOT OK" if verdict.is_anomalous else "OK"
        outcome = f"{word:10} score {verdict.score:.4f}"
    else:
        outcome = f"no verdict ({inspection.no_verdict.reason})"
    late = f"  late verdict of {inspection.late_of}" if inspection.late_of else ""
    part = inspection.part or "-"
    print(
        f"{inspection.position:6}  {inspection.station:10}  {inspection.sequence:6}  {part:14}  "
        f"{outcome}{late}",
        flush=True,
    )


def follow(stub: Any, stations: list[str], path: Path | None, count: int | None) -> None:
    """Deal with `count` inspections, None = for ever; goes on after every interruption."""
    mark = load(path)
    seen = 0
    while count is None or seen < count:
        try:
            mark = agreed(stub, mark)
            request = results_pb2.WatchRequest(since=mark.position, run=mark.run, cameras=stations)
            stream = stub.Watch(request, wait_for_ready=True)
            for inspection in stream:
                if inspection.id != mark.id:
                    deal_with(inspection)
                    seen += 1
                mark = Mark(inspection.position, inspection.id, inspection.run)
                save(path, mark)
                if seen == count:
                    stream.cancel()
                    return
            print("the box is stopping; waiting for it", file=sys.stderr)
        except grpc.RpcError as error:
            if error.code() not in PASSING:
                raise
            print(f"interrupted ({error.code().name}); trying again", file=sys.stderr)
        threading.Event().wait(PAUSE_SECONDS)


def main() -> int:
    parser = demo_box.parser(__doc__)
    parser.add_argument("--target", help="HOST:PORT or unix:PATH; with it --config is not read")
    parser.add_argument("--station", action="append", default=[], help="only this; may be repeated")
    parser.add_argument("--position", type=Path, metavar="FILE", help="remembers how far we are")
    parser.add_argument("--count", type=int, help="end after so many (default: never)")
    asked = parser.parse_args()
    target = asked.target or demo_box.grpc_target(demo_box.read(asked.config), asked.config)
    with grpc.insecure_channel(target) as channel:
        stub: Any = results_pb2_grpc.InspectionsStub(channel)  # type: ignore[no-untyped-call]
        try:
            follow(stub, asked.station, asked.position, asked.count)
        except grpc.RpcError as error:
            print(f"{error.code().name}: {error.details()}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
