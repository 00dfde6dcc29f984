"""How much an outbox may hold, and what happens beyond it.

Numbers and words only; the outbox keeps to them.
"""

from __future__ import annotations

from dataclasses import dataclass

POLICIES = ("rows", "bytes", "age")
"""Which bound a dropped record had to go by, as the metrics call it."""
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one outbox.

    size: bytes of topics and payloads. seconds: age by `Uptime`; None = no such bound.
    refuse: nothing that was accepted is dropped, by no bound; `Outbox.full` says when to stop.
    """

    rows: int = 1_000_000
    size: int = 4 << 30
    seconds: float | None = None
    refuse: bool = False

    def exceeded(self, rows: int, size: int) -> bool:
        """So much is too much."""
        return rows > self.rows or size > self.size

    def full(self, rows: int, size: int, was_full: bool) -> bool:
        """No more fits; once full, until a fiftieth is free.

        Otherwise a line would stop and go with each record that leaves.
        """
        share = 0.98 if was_full else 1.0
        return rows >= self.rows * share or size >= self.size * share
