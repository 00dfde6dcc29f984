"""edged's own interface for MES software: trigger a part, follow the results, get a picture.

Owns what the calls of edged.v1.Inspections mean. Must not judge, keep or change anything: stations
and journal are reached through core.protocols, and what a box does not have is UNIMPLEMENTED with
the section that would turn it on. Runs on the loop's thread; the journal is read on an executor,
because it may block.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from typing import Any, TypeVar

from edged.core.errors import Busy, DeadlineExceeded, InvalidInput, NotConfigured
from edged.core.protocols import Journal, JournalEntry, Label, Labels, Stations
from edged.core.types import Reason, TriggerRequest
from edged.grpc.calls import Calls, outcome
from edged.grpc.results import SCAN, ResultsStream, Watcher
from edged.wire import proto
from edged.wire.pb import results_pb2 as pb

log = logging.getLogger(__name__)

NAME = "edged.v1.Inspections"
MAX_NAMES = 1024
"""Stations that a request may name."""
ANSWER_SECONDS = 0.01
"""Of a caller's deadline, kept for the way of the answer."""
RECORD_SECONDS = 1.0
"""For the record to be on disk, before an OK is none."""
LONGEST_SECONDS = 3600.0
"""A call's deadline further away is none of the part's."""
USUAL_PAGE, LARGEST_PAGE = 100, 1000
PAGE_BYTES = 3 * 1024 * 1024
"""Of a page: clients take 4 MiB unless they are told otherwise."""
MAX_POSITION = 2**63 - 1
MAX_SEQUENCE = 2**32 - 1
CHUNK_BYTES = 256 * 1024
PICTURE_SECONDS = 30.0
MAX_PICTURES = 8
"""On their way at once: a client that does not read keeps the whole of its own in memory."""

T = TypeVar("T")

_PART = re.compile(r"[A-Za-z0-9._:-]{1,40}")
_ID = re.compile(r"[0-9a-f]{32}")
_NO_ARCHIVE = "This box keeps no pictures: give its configuration an [archive] section."
_NO_LABELS = "This box takes no labels: give its configuration [archive] and [rest] sections."
_NO_STATION = (
    "No station of this box takes triggers by gRPC: give one in [[stations]] trigger = 'grpc'."
)


class InspectionsService:
    """edged.v1.Inspections over the results, the stations and the journal.

    stations: None = no station takes triggers. labels: None = the box takes none. reading: where
    the results' journal is read; labelling: where labels are written, which may wait.
    """

    def __init__(
        self,
        results: ResultsStream,
        stations: Stations | None,
        labels: Labels | None,
        reading: Executor,
        labelling: Executor,
    ) -> None:
        self._results = results
        self._stations = stations
        self._labels = labels
        self._reading = reading
        self._labelling = labelling
        self._pictures = 0

    def handlers(self, calls: Calls) -> dict[str, Any]:
        """The gRPC method handlers by the method's name."""
        return {
            "Inspect": calls.unary("Inspect", pb.InspectRequest, self.inspect),
            "Watch": calls.stream("Watch", pb.WatchRequest, self.watch),
            "List": calls.unary("List", pb.ListRequest, self.list_),
            "Picture": calls.stream("Picture", pb.PictureRequest, self.picture),
            "Label": calls.unary("Label", pb.LabelRequest, self.label),
        }

    async def inspect(self, request: pb.InspectRequest, context: Any) -> pb.Inspection:
        """Trigger a station and wait for the part's one inspection.

        With a journal the answer comes when the record is on disk; if that takes too long, it is no
        OK (`no_record`). Raises what `Stations.inspect` raises, InvalidInput, NotConfigured.
        """
        received_ns = time.monotonic_ns()
        if self._stations is None:
            raise NotConfigured(_NO_STATION)
        asked = _trigger_request(request, context.time_remaining())
        waited = self._stations.inspect(request.station, asked, received_ns)
        inspection = await outcome(waited)
        answer = proto.inspection(inspection)
        if self._results.journal is not None:
            left = context.time_remaining()
            most = RECORD_SECONDS if left is None else min(RECORD_SECONDS, left - ANSWER_SECONDS)
            if not await self._results.recorded(inspection.id, most) and answer.ok:
                answer.ok, answer.code = False, Reason.NO_RECORD.code
        return answer

    async def watch(self, request: pb.WatchRequest, context: Any) -> None:
        """Write the records after `since`, then live ones, until closed.

        Raises Busy beyond MAX_WATCHERS, InvalidInput for too many names.
        """
        results, journal = self._results, self._results.journal
        watcher = Watcher(0, _names(request.cameras, "cameras"))
        results.join(watcher)
        try:
            # Tells the client that it watches, long before there may be a record.
            await context.send_initial_metadata(())
            watcher.position = await self._place(request.since, request.run)
            while True:
                watcher.wake.clear()
                taken = results.take(watcher)
                for record in taken.records:
                    await context.write(record)
                if taken.ended:
                    return
                if taken.lags and journal is not None:
                    await self._catch_up(watcher, journal, taken.until, context)
                elif taken.more:
                    await asyncio.sleep(0)
                else:
                    await watcher.wake.wait()
        finally:
            results.leave(watcher)

    async def list_(self, request: pb.ListRequest, _: Any) -> pb.ListResponse:
        """A page of the records after `since`. Raises InvalidInput."""
        if request.limit > LARGEST_PAGE:
            raise InvalidInput(
                f"limit is {request.limit}; give 1 to {LARGEST_PAGE}, or 0 for {USUAL_PAGE}.",
                "limit",
            )
        most = request.limit or USUAL_PAGE
        stations = _names(request.stations, "stations")
        since = await self._place(request.since, request.run)
        answer = pb.ListResponse(next=since, run=self._results.run)
        size = 0
        messages, seen = await self._page(since, stations, most)
        for message in messages:
            size += message.ByteSize()
            if size > PAGE_BYTES and answer.inspections:
                return answer
            answer.inspections.append(message)
            answer.next = message.position
        answer.next = max(answer.next, seen)  # one that cannot be shown does not end the pages
        return answer

    async def picture(self, request: pb.PictureRequest, context: Any) -> None:
        """Write the picture of an inspection in pieces. Raises InvalidInput, NotFound, Busy."""
        journal = self._results.journal
        if journal is None:
            raise NotConfigured(_NO_ARCHIVE)
        _check_id(request.id)
        if self._pictures >= MAX_PICTURES:
            raise Busy(f"{MAX_PICTURES} pictures are on their way already: try again in a moment.")
        self._pictures += 1
        try:
            await asyncio.wait_for(
                self._send_picture(journal, request.id, context), PICTURE_SECONDS
            )
        except asyncio.TimeoutError:
            raise DeadlineExceeded(
                f"The picture was not read within {PICTURE_SECONDS:g} s: others wait for its place."
            ) from None
        finally:
            self._pictures -= 1

    async def _send_picture(self, journal: Journal, id: str, context: Any) -> None:
        data, media_type = await self._read(journal.picture, id)
        view = memoryview(data)
        first = pb.PictureChunk(media_type=media_type, size=len(data))
        first.data = bytes(view[:CHUNK_BYTES])
        await context.write(first.SerializeToString())
        for begin in range(CHUNK_BYTES, len(data), CHUNK_BYTES):
            chunk = pb.PictureChunk(data=bytes(view[begin : begin + CHUNK_BYTES]))
            await context.write(chunk.SerializeToString())

    async def label(self, request: pb.LabelRequest, context: Any) -> pb.LabelResponse:
        """Make an inspected part an entry of a data set. Raises what `Labels.label` raises."""
        if self._labels is None:
            raise NotConfigured(_NO_LABELS)
        _check_id(request.id)
        dataset = request.dataset or "train"
        if dataset not in ("train", "test"):
            raise InvalidInput(f"dataset is {dataset[:80]!r}: say train or test.", "dataset")
        if len(request.classes) > MAX_NAMES:
            raise InvalidInput(f"At most {MAX_NAMES} classes may be named.", "classes")
        label = Label(request.anomalous, dataset, request.project, tuple(request.classes))
        loop = asyncio.get_running_loop()
        write = self._labels.label
        source_ref = await loop.run_in_executor(self._labelling, write, request.id, label)
        word = "anomaly" if request.anomalous else "normal"
        log.info(
            "label by gRPC from %s: %s is %s, %s", context.peer(), request.id, word, source_ref
        )
        return pb.LabelResponse(source_ref=source_ref)

    async def _place(self, since: int, run: str) -> int:
        """The position to go on from, for a client that has seen `since` of `run`."""
        journal = self._results.journal
        if journal is None:
            return self._results.place(since, run)
        if run or not 0 < since <= MAX_POSITION:  # a run is of a life without the journal
            return 0
        # Nothing from there on: it was read from a journal that is no more.
        return since if await self._read(journal.since, since - 1, 1) else 0

    async def _catch_up(
        self, watcher: Watcher, journal: Journal, until: int | None, context: Any
    ) -> None:
        """Write the next records of the journal up to `until`, or to its end."""
        most = SCAN
        entries = await self._read(journal.since, watcher.position, most, watcher.stations, until)
        for message in _messages(entries):
            await context.write(message.SerializeToString())
        if entries:
            watcher.position = entries[-1].position
        if len(entries) < most:
            watcher.caught_up = True
            watcher.position = max(watcher.position, until or 0)

    async def _page(
        self, since: int, stations: frozenset[str], most: int
    ) -> tuple[list[pb.Inspection], int]:
        """The next records, and the last position that was looked at."""
        journal = self._results.journal
        if journal is None:
            kept = self._results.page(since, stations, most)
            return [pb.Inspection.FromString(each.data) for each in kept], 0
        entries = await self._read(journal.since, since, most, stations)
        return _messages(entries), entries[-1].position if entries else 0

    async def _read(self, what: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._reading, what, *arguments)


def _messages(entries: Sequence[JournalEntry]) -> list[pb.Inspection]:
    """Of those that are whole; a damaged one shows as a gap, and must not end the stream."""
    messages = []
    for entry in entries:
        try:
            messages.append(proto.inspection_from_record(entry))
        except ValueError as error:
            log.error("an inspection is left out: %s", error)
    return messages


def _trigger_request(request: pb.InspectRequest, remaining: float | None) -> TriggerRequest:
    """What the request asks for. Raises InvalidInput, DeadlineExceeded."""
    if not request.station:
        raise InvalidInput("station is missing: give the name of a station.", "station")
    if not _PART.fullmatch(request.part):
        raise InvalidInput(
            f"part {request.part[:80]!r} is not one: 1 to 40 characters of A-Z a-z 0-9 . _ : -",
            "part",
        )
    if request.sequence > MAX_SEQUENCE:
        raise InvalidInput(
            f"sequence is {request.sequence}; it is a number from 0 to {MAX_SEQUENCE}.", "sequence"
        )
    if remaining is None or remaining > LONGEST_SECONDS:
        return TriggerRequest(request.part, request.sequence)
    if remaining <= ANSWER_SECONDS:
        raise DeadlineExceeded("The call's deadline had passed when it arrived.")
    return TriggerRequest(request.part, request.sequence, remaining - ANSWER_SECONDS)


def _check_id(id: str) -> None:
    if not _ID.fullmatch(id):
        raise InvalidInput(
            "id is not that of an inspection: 32 digits of 0-9 and a-f, as Watch and List give it.",
            "id",
        )


def _names(names: Collection[str], field: str) -> frozenset[str]:
    if len(names) > MAX_NAMES:
        raise InvalidInput(
            f"{len(names)} {field} are named; {MAX_NAMES} are allowed, and none means all.", field
        )
    return frozenset(names)
