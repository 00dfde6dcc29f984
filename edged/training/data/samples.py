"""What is known about each picture of a data set, in whatever form it was found."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edged.wire.imaging import Opener, content


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture.

    is_anomalous: None = unlabeled.
    defect: kind of defect, where the data set names it.
    mask: picture whose defect pixels are `mask_colors` (upper-case #RRGGBB), or, when that is
    None, all that are not black.
    """

    path: Path
    is_anomalous: bool | None
    defect: str | None = None
    mask: Path | None = None
    mask_colors: tuple[str, ...] | None = None
    mask_names: tuple[str, ...] | None = None
    """The class of each of `mask_colors`."""
    opener: Opener = content
    """How picture and mask are read."""


@dataclass(frozen=True, slots=True)
class Dataset:
    """Pictures in a stable order; `kind` is the form they were found in."""

    samples: tuple[Sample, ...]
    kind: str

    def opened_by(self, opener: Opener) -> Dataset:
        """The same pictures, read in another way."""
        return Dataset(tuple(replace(s, opener=opener) for s in self.samples), self.kind)

    @property
    def normal(self) -> tuple[Sample, ...]:
        """The samples labelled normal."""
        return tuple(s for s in self.samples if s.is_anomalous is False)

    @property
    def anomalous(self) -> tuple[Sample, ...]:
        """The samples labelled anomalous."""
        return tuple(s for s in self.samples if s.is_anomalous is True)
