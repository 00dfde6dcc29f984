"""Lines of Ground Truth manifests: what each says of its picture. Pure.

As lenient as the service was: the class name decides, in any case and never the number; another
class name makes an unlabeled picture.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edged.core.errors import BadDataset

SOURCE = "source-ref"
META = "-metadata"
NORMAL, ANOMALY = "normal", "anomaly"
BACKGROUND = "background"


def entry_of(line: str, where: str) -> dict[str, Any]:
    """The JSON object of a line; `where` is what the error calls it. Raises BadDataset."""
    try:
        entry = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{where}: is not JSON ({error}).") from None
    if not isinstance(entry, dict):
        raise BadDataset(f"{where}: is not a JSON object: expected {{...}} on one line.")
    return entry


def source_of(entry: Mapping[str, Any], where: str) -> str:
    """The picture's reference. Raises BadDataset."""
    source = entry.get(SOURCE)
    if not isinstance(source, str) or not source:
        raise BadDataset(f"{where}: has no {SOURCE}: name the picture.")
    return source


def kind_of(entry: Mapping[str, Any], where: str) -> str | None:
    """`normal`, `anomaly`, or None for an unlabeled picture. Raises BadDataset for both."""
    known = {kind for _, kind in _labels(entry)}
    if len(known) == 2:
        raise BadDataset(f"{where}: says both normal and anomaly: leave one label.")
    return next(iter(known), None)


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def as_stored(entry: Mapping[str, Any], where: str) -> str:
    """The line as the service gives it back: its labels' numbers are 1 anomaly, 0 normal.

    Raises BadDataset for halves of characters, which JSON can write and no text can hold.
    """
    numbers = {name: int(kind == ANOMALY) for name, kind in _labels(entry)}
    line = json.dumps({**entry, **numbers}, separators=(",", ":"), ensure_ascii=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError:
        raise BadDataset(f"{where}: has half of a character (a lone surrogate).") from None
    return line


@dataclass(frozen=True, slots=True)
class Mask:
    """A line's mask: the member that refers to it, and (class, upper-case colour) of each defect.

    A colour is as it stands there, which may be no colour at all.
    """

    key: str
    reference: str
    defects: tuple[tuple[str, str], ...]


def mask_of(entry: Mapping[str, Any]) -> Mask | None:
    """The mask of a line that has one."""
    for key, reference in entry.items():
        meta = entry.get(f"{key}{META}")
        if key == SOURCE or not key.endswith("-ref") or not isinstance(meta, dict):
            continue
        classes = meta.get("internal-color-map")
        if not isinstance(classes, dict) or not isinstance(reference, str):
            continue
        named = [c for c in classes.values() if isinstance(c, dict)]
        defects = [c for c in named if str(c.get("class-name", "")).casefold() != BACKGROUND]
        found = (
            (str(c.get("class-name") or "defect"), str(c.get("hex-color", "")).upper())
            for c in defects
        )
        return Mask(key, reference, tuple(found))
    return None


def _labels(entry: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    for key, meta in entry.items():
        if key.endswith(META) and isinstance(meta, dict) and "internal-color-map" not in meta:
            name = meta.get("class-name")
            word = name.strip().casefold() if isinstance(name, str) else ""
            if word in (NORMAL, ANOMALY):
                found.append((key.removesuffix(META), word))
    return found
