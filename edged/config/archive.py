"""The archive: every inspection on disk, with some of their pictures."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edged.config.base import Section


class ArchiveConfig(Section):
    """What is kept of the parts, and for how long. Pictures go first, the oldest first."""

    path: Path | None = None
    """None = archive/ in state_dir."""
    passes: float = Field(default=0.01, ge=0, le=1)
    """Share of the good parts whose picture is kept; rejects and failures are kept all."""
    max_gb: float = Field(default=20.0, gt=0, allow_inf_nan=False)
    """Size of all pictures."""
    max_days: float = Field(default=90.0, gt=0, allow_inf_nan=False)
    """Age of a picture."""
    max_records: int = Field(default=10_000_000, ge=1000)
    """Inspections kept, with or without a picture."""
    min_free_gb: float = Field(default=2.0, ge=0, allow_inf_nan=False)
    """Free space on its disk under which pictures are thinned out, before they stop."""
