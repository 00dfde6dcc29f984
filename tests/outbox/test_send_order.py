"""Which record goes next, when the far end does not take all of them."""

from __future__ import annotations

from pathlib import Path

from edged.outbox.records import Record, Row
from edged.outbox.store import Outbox
from edged.outbox.writer import Replay


def test_a_record_that_follows_a_returning_subscriber_does_not_overtake_held_ones(
    tmp_path: Path,
) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.open()
    replay = Replay(outbox)
    replay.store([Record("a", b"1"), Record("a", b"2"), Record("a", b"3"), Record("b", b"1")])
    replay.restart()
    arrived: list[tuple[str, bytes]] = []
    listening = False
    for now in range(10):
        burst = []
        while (row := replay.next(now)) is not None:
            burst.append(row)
        for row in burst:
            if listening:
                arrived.append((row.topic, row.payload))
                replay.taken(row, now)
            else:
                replay.refused(row, now + 1)
            listening = True
    outbox.close()
    assert [payload for topic, payload in arrived if topic == "a"] == [b"1", b"2", b"3"]
    assert ("b", b"1") in arrived


class Counted(Outbox):
    """Counts the records that are read from disk."""

    read = 0

    def pending(self, after_seq: int, limit: int) -> list[Row]:
        rows = super().pending(after_seq, limit)
        self.read += len(rows)
        return rows


def test_a_long_backlog_on_hold_is_passed_over_in_portions_that_let_results_in_between(
    tmp_path: Path,
) -> None:
    outbox = Counted(tmp_path / "o.sqlite")
    outbox.open()
    outbox.append([Record("held", b"1")] * 20_000 + [Record("wanted", b"1")])
    replay = Replay(outbox)
    replay.restart()
    first = replay.next(0)
    assert first is not None
    replay.refused(first, 1e9)
    portions: list[int] = []
    row = None
    while row is None and (not portions or replay.due() <= 0):
        before = outbox.read
        row = replay.next(0)
        portions.append(outbox.read - before)
    outbox.close()
    assert row is not None
    assert row.topic == "wanted"
    assert max(portions) <= 5_000
