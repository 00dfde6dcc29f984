"""Which record of an outbox goes next, and which may be forgotten.

Knows the outbox and no protocol. It must neither forget a record nor overtake one of its topic.

Decision: a far end that refuses one topic must not hold up the others. A refused record puts its
topic on hold; after a while one record of it is sent as a probe, and if that is taken the topic
is read again from its first refused record. Order holds per topic, which is all MQTT promises.
So the first record of a topic on a new connection goes alone, and its answer is awaited: were many
out at once, a subscriber that comes back between two would get the later ones before the earlier.

Decision: there is one line for all topics, the backlog before what is fresh, at the pace of
`ReplayPace`. A fresh record may not overtake an old one of its topic, and stays behind those of
others, too: the backlog gets less at a known rate, and whoever is in a hurry acts on the result.

Decision: a topic in `confirming` is forgotten by confirmation only (`Confirmations`). One that
comes for records the broker has not taken is cut to those it has: a receiver's mistake must lose
nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from edged.outbox.confirmation import Confirmations
from edged.outbox.pace import ReplayPace
from edged.outbox.records import Appended, Confirmed, OutboxRow, Record
from edged.outbox.store import Outbox

_LOAD = 256
_LOADS = 16  # at a time, when they hold nothing but what must wait: results want their turn
_AHEAD = 1024
_FLUSH_SECONDS = 0.2


@dataclass(slots=True)
class _Hold:
    """A topic whose records the far end does not take now."""

    first: int
    """The oldest record it refused or that was passed over."""
    until: float
    probe: int = 0
    """The record that is out to try; 0 = none."""


class SendOrder:
    """Which record of an outbox goes next, on one connection at a time. Worker thread only.

    Recent records are kept in memory besides, so the disk is read only after an outage. Times are
    `time.monotonic()`. Methods that touch the disk raise SinkError.

    rate: records of a backlog per second; 0 = no limit. confirming: topics whose receivers
    confirm; seconds: how long without one until unconfirmed records go again.
    """

    def __init__(
        self,
        outbox: Outbox,
        rate: float = 0.0,
        confirming: Collection[str] = (),
        seconds: float = 30.0,
    ) -> None:
        self._outbox = outbox
        self._pace = ReplayPace(rate)
        self._confirmations_of = {topic: Confirmations() for topic in confirming}
        self._confirm_seconds = seconds
        self._out: set[int] = set()
        self._done: set[int] = set()
        self._confirmed: set[str] = set()
        """Topics with a confirmation that is not on disk yet."""
        self._unflushed_since = float("inf")
        self._holds: dict[str, _Hold] = {}
        self._taking: set[str] = set()
        """Topics of which the far end has taken a record on this connection."""
        self._trial = 0
        """The record that is out as the first of its topic; 0 = none."""
        self._cursor = 0
        self._frontier = 0
        """The last record that has had its turn on this connection."""
        self._ahead: deque[OutboxRow] = deque()
        self._complete = False
        self._unread = False
        self._waits = False
        self.owed: list[Appended] = []
        """What was let go of on the way, and not told yet."""

    def await_confirmations(self, topics: Collection[str]) -> None:
        """Their receivers confirm; called before the first record."""
        self._confirmations_of.update({topic: Confirmations() for topic in topics})

    @property
    def outbox(self) -> Outbox:
        """Where the records are."""
        return self._outbox

    @property
    def confirming(self) -> Mapping[str, Confirmations]:
        """The topics whose records wait for a confirmation."""
        return self._confirmations_of

    @property
    def backlog(self) -> int:
        """Records on disk that the far end has not taken, or not confirmed where it should."""
        return max(0, self._outbox.count - len(self._done))

    @property
    def idle(self) -> bool:
        """Nothing is out and nothing can be sent: what is left is on hold or unconfirmed."""
        return self._complete and not self._ahead and not self._out

    def store(self, batch: Sequence[Record]) -> Appended:
        """Put records on disk, and on disk forget what has been answered."""
        appended = self._outbox.append(batch, self._done, self._confirmations())
        self._flushed()
        self._pace.grant(len(batch))
        if self._complete and len(self._ahead) + len(batch) <= _AHEAD:
            self._ahead.extend(
                OutboxRow(seq, *record) for seq, record in zip(appended.seqs, batch, strict=True)
            )
        else:
            self._complete = False
        return appended

    def restart(self) -> None:
        """A new connection: whatever was out is unknown and goes again, in order."""
        self._out.clear()
        self._holds.clear()
        self._taking.clear()
        for confirmations in self._confirmations_of.values():
            confirmations.restart()
        self._trial = 0
        self._pace.restart()
        self._frontier = self._outbox.last
        self._rewind(1)

    def next(self, now: float) -> OutboxRow | None:
        """The record to send now, or None. It counts as out until answered or restarted."""
        for confirmations in self._confirmations_of.values():
            if now >= confirmations.due(self._confirm_seconds):
                confirmations.repeat(now)
                self._rewind(1)
        row = self._next_probe(now) or self._next_in_order(now)
        if row is not None:
            self._out.add(row.seq)
            self._pace.sent()
        return row

    def taken(self, row: OutboxRow, now: float) -> None:
        """The far end has this record."""
        self._answered(row)
        self._taking.add(row.topic)
        hold = self._holds.get(row.topic)
        if hold is not None and hold.probe == row.seq:
            del self._holds[row.topic]
            self._rewind(hold.first)
            hold = None
        confirmations = self._confirmations_of.get(row.topic)
        if confirmations is None or not row.number:
            self._done.add(row.seq)
            self._unflushed_since = min(self._unflushed_since, now)
        elif hold is None:
            confirmations.take(row.seq, row.number, now)

    def refused(self, row: OutboxRow, until: float) -> None:
        """The far end does not take this record: keep it, try its topic again at `until`."""
        self._answered(row)
        hold = self._holds.setdefault(row.topic, _Hold(row.seq, until))
        hold.first = min(hold.first, row.seq)
        hold.until = until
        if hold.probe == row.seq:
            hold.probe = 0
        if row.topic in self._confirmations_of and row.number:
            self._confirmations_of[row.topic].refuse(row.seq, row.number)

    def confirm(self, topic: str, up_to: int, now: float) -> None:
        """The receiver has processed the records of `topic` up to this number of theirs."""
        confirmations = self._confirmations_of.get(topic)
        if confirmations is not None and confirmations.confirm(up_to, now):
            self._confirmed.add(topic)
            self._unflushed_since = min(self._unflushed_since, now)

    def due(self) -> float:
        """When `next` should be asked again without news: a hold, the pace, records unread."""
        if self._unread:
            return 0.0
        times = [hold.until for hold in self._holds.values() if not hold.probe]
        times += [
            confirmations.due(self._confirm_seconds)
            for confirmations in self._confirmations_of.values()
        ]
        if self._waits:
            times.append(self._pace.due)
        return min(times, default=float("inf"))

    def flush_due(self) -> float:
        """When answered records should be forgotten on disk, if no append does it before."""
        return self._unflushed_since + _FLUSH_SECONDS

    def flush(self) -> Appended:
        """Forget answered records on disk. A crash before it only sends them twice."""
        appended = self._outbox.acknowledge(self._done, self._confirmations())
        self._flushed()
        return appended

    def _flushed(self) -> None:
        self._done.clear()
        self._confirmed.clear()
        self._unflushed_since = float("inf")

    def _confirmations(self) -> list[Confirmed]:
        return [
            Confirmed(topic, self._confirmations_of[topic].confirmed) for topic in self._confirmed
        ]

    def _answered(self, row: OutboxRow) -> None:
        self._out.discard(row.seq)
        if row.seq == self._trial:
            self._trial = 0

    def _rewind(self, seq: int) -> None:
        self._cursor = min(self._cursor, seq - 1)
        self._ahead.clear()
        self._complete = self._unread = self._waits = False

    def _next_probe(self, now: float) -> OutboxRow | None:
        for topic, hold in list(self._holds.items()):
            if hold.probe or hold.until > now:
                continue
            if self._done:
                self.owed.append(self._outbox.acknowledge(self._done))
                self._done.clear()
            row = self._outbox.first(topic, hold.first)
            if row is None or row.seq in self._out:
                del self._holds[topic]  # the bound of the outbox took the refused ones
                self._rewind(hold.first)
                continue
            hold.first = hold.probe = row.seq
            return row
        return None

    def _next_in_order(self, now: float) -> OutboxRow | None:
        loads, self._unread, self._waits = 0, False, False
        while not self._trial and (self._ahead or not self._complete):
            if not self._ahead:
                if loads == _LOADS:
                    self._unread = True
                    return None
                loads += 1
                self._ahead.extend(self._outbox.pending(self._cursor, _LOAD))
                self._complete = len(self._ahead) < _LOAD
                continue
            row = self._ahead[0]
            hold = self._holds.get(row.topic)
            wanted = not self._is_settled(row)
            if wanted and hold is None and not self._pace.may_send(now):
                self._waits = True
                return None
            self._ahead.popleft()
            self._cursor = row.seq
            first_turn = row.seq > self._frontier
            self._frontier = max(self._frontier, row.seq)
            if wanted and hold is None:
                if row.topic not in self._taking:
                    self._trial = row.seq
                return row
            if hold is not None and wanted:
                hold.first = min(hold.first, row.seq)
            if first_turn:
                self._pace.pass_over()
        return None

    def _is_settled(self, row: OutboxRow) -> bool:
        """It is out, answered, confirmed or dropped: not to be sent now."""
        if row.seq in self._out or row.seq in self._done or row.seq <= self._outbox.floor:
            return True
        confirmations = self._confirmations_of.get(row.topic)
        if confirmations is None or not row.number:
            return False
        return row.seq <= confirmations.sent_to or row.number <= confirmations.confirmed
