"""Sparkplug B beside our own topics."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edged.config.base import Section

Id = Annotated[str, Field(pattern=r"^[^+#/\x00]+$", min_length=1, max_length=64)]


class SparkplugConfig(Section):
    """The box as an edge node, each station as a device; the broker is that of `[mqtt]`."""

    group: Id = "edged"
    node: Id
    """Of this box alone: two nodes of one name at a broker take each other for dead."""
    primary_host: Id | None = None
    """Births and data wait until this host application says that it is online."""
    history: int = Field(default=1000, ge=0, le=100_000)
    """Parts kept in memory while nobody listens, sent as historical then; older ones are counted.

    What must not be lost is the record's (`.../full`).
    """
