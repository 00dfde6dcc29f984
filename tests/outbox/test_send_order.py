"""Which record goes next, when the far end does not take all of them."""

from __future__ import annotations

from pathlib import Path

from edged.outbox.records import OutboxRow, Record
from edged.outbox.send_order import SendOrder
from edged.outbox.store import Outbox


def test_a_record_that_follows_a_returning_subscriber_does_not_overtake_held_ones(
    tmp_path: Path,
) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.open()
    send_order = SendOrder(outbox)
    send_order.store([Record("a", b"1"), Record("a", b"2"), Record("a", b"3"), Record("b", b"1")])
    send_order.restart()
    arrived: list[tuple[str, bytes]] = []
    listening = False
    for now in range(10):
        burst = []
        while (row := send_order.next(now)) is not None:
            burst.append(row)
        for row in burst:
            if listening:
                arrived.append((row.topic, row.payload))
                send_order.taken(row, now)
            else:
                send_order.refused(row, now + 1)
            listening = True
    outbox.close()
    assert [payload for topic, payload in arrived if topic == "a"] == [b"1", b"2", b"3"]
    assert ("b", b"1") in arrived


class Counted(Outbox):
    """Counts the records that are read from disk."""

    read = 0

    def pending(self, after_seq: int, limit: int) -> list[OutboxRow]:
        rows = super().pending(after_seq, limit)
        self.read += len(rows)
        return rows


def test_a_long_backlog_on_hold_is_passed_over_in_portions_that_let_results_in_between(
    tmp_path: Path,
) -> None:
    outbox = Counted(tmp_path / "o.sqlite")
    outbox.open()
    outbox.append([Record("held", b"1")] * 20_000 + [Record("wanted", b"1")])
    send_order = SendOrder(outbox)
    send_order.restart()
    first = send_order.next(0)
    assert first is not None
    send_order.refused(first, 1e9)
    portions: list[int] = []
    row = None
    while row is None and (not portions or send_order.due() <= 0):
        before = outbox.read
        row = send_order.next(0)
        portions.append(outbox.read - before)
    outbox.close()
    assert row is not None
    assert row.topic == "wanted"
    assert max(portions) <= 5_000
