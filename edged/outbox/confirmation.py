"""Stations that confirm: what the broker has of a topic, and what its receiver has processed.

Numbers only; SendOrder asks it. A broker's acknowledgement is not the receiver's: here a record
stays on disk until a confirmation covers it, and goes again if none comes.
"""

from __future__ import annotations

from dataclasses import dataclass

_NEVER = float("inf")


@dataclass(slots=True)
class Confirmations:
    """One topic. `number` is the record's own, `seq` the outbox's; times are monotonic."""

    taken: int = 0
    """The highest number that the broker has; a confirmation beyond it counts up to here."""
    confirmed: int = 0
    sent_to: int = 0
    """Rows up to this one are with the broker, on this connection and in this attempt."""
    again_to: int = 0
    """A repetition is under way up to this row; no second one before its end."""
    since: float = _NEVER
    """When it was last heard of."""

    def take(self, seq: int, number: int, now: float) -> None:
        """The broker has this row."""
        self.taken = max(self.taken, number)
        self.sent_to = max(self.sent_to, seq)
        if self.since == _NEVER or self.again_to:
            self.since = now
        if self.sent_to >= self.again_to:
            self.again_to = 0

    def refuse(self, seq: int, number: int) -> None:
        """It does not have this one: what follows goes again, and is not confirmed until then."""
        self.sent_to = min(self.sent_to, seq - 1)
        self.taken = min(self.taken, number - 1)
        self.confirmed = min(self.confirmed, self.taken)

    def confirm(self, number: int, now: float) -> bool:
        """The receiver has processed up to `number`; whether that is news."""
        number = min(number, self.taken)
        if number <= self.confirmed:
            return False
        self.confirmed = number
        self.since = now if self.taken > number else _NEVER
        return True

    def restart(self) -> None:
        """A new connection: everything unconfirmed goes again."""
        self.sent_to = self.again_to = 0
        self.since = _NEVER

    def due(self, seconds: float) -> float:
        """When it should be repeated."""
        return _NEVER if self.again_to else self.since + seconds

    def repeat(self, now: float) -> None:
        """Begin again with the oldest unconfirmed row."""
        self.again_to, self.sent_to = self.sent_to, 0
        self.since = now
