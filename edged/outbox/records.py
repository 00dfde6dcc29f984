"""What goes into an outbox and comes out of it: plain values, no SQLite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from edged.core.types import Reason

R = TypeVar("R", bound="Recorded")


class Record(NamedTuple):
    """What is appended. `number`: its own, by which it is confirmed; 0 = it never is."""

    topic: str
    payload: bytes
    number: int = 0


class Recorded(Protocol):
    """What a sink hands over to be kept: a record, and perhaps something else that goes with it."""

    @property
    def full_topic(self) -> str:
        """Where the record goes."""

    @property
    def full(self) -> bytes:
        """The record."""

    @property
    def number(self) -> int:
        """The record's, in its station."""

    def without_ok(self: R, reason: Reason) -> R:
        """The same when its OK cannot be acted on: whatever is made of it says why, and agrees."""


class OutboxRow(NamedTuple):
    """One record: `seq` orders it, `topic` says where it goes."""

    seq: int
    topic: str
    payload: bytes
    number: int = 0


class Confirmed(NamedTuple):
    """The far end has processed the records of `topic` up to this number of theirs."""

    topic: str
    number: int


class Appended(NamedTuple):
    """What an append did: the new records' numbers, and how many of the oldest had to go.

    dropped: policy (rows, bytes, age) -> records; confirmed: records forgotten by confirmation.
    """

    seqs: range
    dropped: Mapping[str, int]
    confirmed: int


def runs(seqs: Iterable[int]) -> list[tuple[int, int]]:
    """These numbers as first and last of each unbroken run."""
    found: list[tuple[int, int]] = []
    for seq in sorted(seqs):
        if found and seq <= found[-1][1] + 1:
            found[-1] = found[-1][0], seq
        else:
            found.append((seq, seq))
    return found
