"""How fast a backlog may follow an outage.

Counts only; it knows no record. A far end that keeps up with the line must not be run over by
what piled up while it was away (a broker's queue for a slow subscriber is bounded, too).

Decision: the limit is on top of what the line makes. Each record stored on a live connection
brings the right to send one, and time brings `rate` more a second: the stream as such is never
slowed down, a backlog gets less by `rate` a second however fast the line is, and the far end sees
at most the two together.
"""

from __future__ import annotations

_BURST_SECONDS = 0.1


class ReplayPace:
    """Rights to send. Times are `time.monotonic()`; one thread. `rate` 0 = no limit."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._burst = max(1.0, rate * _BURST_SECONDS)
        self._saved = self._burst
        self._granted = 0
        self._at = 0.0

    def restart(self) -> None:
        """A new connection: what was stored before it is backlog."""
        self._granted = 0
        self._saved = self._burst

    def grant(self, records: int) -> None:
        """So many new ones were stored."""
        self._granted += records

    def pass_over(self) -> None:
        """One of the granted is not sent in its turn: it comes later, as backlog."""
        self._granted = max(0, self._granted - 1)

    def may_send(self, now: float) -> bool:
        """Whether one may go now."""
        if not self._rate or self._granted:
            return True
        self._saved = min(self._burst, self._saved + max(0.0, now - self._at) * self._rate)
        self._at = now
        return self._saved >= 1.0

    def sent(self) -> None:
        """One went."""
        if self._granted:
            self._granted -= 1
        elif self._rate:
            self._saved = max(0.0, self._saved - 1.0)

    @property
    def due(self) -> float:
        """When the next may go, after `may_send` said no."""
        return self._at + (1.0 - self._saved) / self._rate
