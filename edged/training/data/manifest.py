"""Ground Truth manifests: JSON lines, as Lookout for Vision read and wrote them.

Owns their reading; what one line says is wire/manifest.py's. Pictures named by `s3://` are looked
for beside the manifest, since there is no bucket here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edged.core.errors import BadDataset
from edged.training.data.samples import Sample
from edged.wire.manifest import ANOMALY, SOURCE, entry_of, kind_of, mask_of, source_of

SHOWN = 200  # characters of a reference, in an error
PARENTS = 2  # the service's own tutorial names pictures relative to the manifest's parent


def read_manifest(path: Path) -> list[Sample]:
    """All pictures of a manifest, in its order. Raises BadDataset naming file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise BadDataset(f"{path}: cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise BadDataset(
            f"{path}: is no manifest: not UTF-8 text (byte {error.start}); expected JSON lines."
        ) from error
    samples: list[Sample] = []
    seen: dict[Path, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        sample = _sample(path, number, line)
        first = seen.setdefault(sample.path.resolve(), number)
        if first != number:
            raise BadDataset(
                f"{path}:{number}: {sample.path.name} stands in line {first} already; every "
                "picture may stand once: remove one of the lines."
            )
        samples.append(sample)
    return samples


def _sample(manifest: Path, number: int, line: str) -> Sample:
    where = f"{manifest}:{number}"
    entry = entry_of(line, where)
    source = source_of(entry, where)
    picture = _find(manifest, where, SOURCE, source)
    kind = kind_of(entry, where)
    anomalous = None if kind is None else kind == ANOMALY
    if not anomalous:
        return Sample(picture, anomalous)
    mask, classes = _mask(manifest, where, entry)
    if mask is None:
        return Sample(picture, anomalous)
    names, colors = tuple(n for n, _ in classes), tuple(c for _, c in classes)
    defect = names[0] if len(set(names)) == 1 else None
    return Sample(picture, anomalous, defect, mask, colors, names)


def _mask(
    manifest: Path, where: str, entry: dict[str, Any]
) -> tuple[Path | None, tuple[tuple[str, str], ...]]:
    """The mask picture, and (class, upper-case #RRGGBB) of each defect in its colour map."""
    mask = mask_of(entry)
    if mask is None:
        return None, ()
    for _, color in mask.defects:
        if len(color) != 7 or color[0] != "#" or set(color[1:]) - set("0123456789ABCDEF"):
            raise BadDataset(f"{where}: {color!r} is no colour: write #RRGGBB.")
    return _find(manifest, where, mask.key, mask.reference), mask.defects


def _find(manifest: Path, where: str, key: str, reference: str) -> Path:
    """The file that a reference names: absolute, relative to the manifest, or an s3:// key."""
    if reference.startswith("s3://"):
        parts = [p for p in reference[5:].split("/")[1:] if p not in ("", ".", "..")]
        tails = [Path(*parts[start:]) for start in range(len(parts))]
    else:
        tails = [Path(reference)]
    bases = [manifest.parent, *manifest.absolute().parent.parents[:PARENTS]]
    for place in (base / tail for tail in tails for base in bases):
        try:
            if place.is_file():
                return place
        except OSError as error:  # a folder that may not be entered, a name that is too long
            raise BadDataset(
                f"{where}: {key} names {reference[:SHOWN]}, which cannot be looked for "
                f"({error.strerror}): correct the line, or the rights of the folder."
            ) from error
    raise BadDataset(
        f"{where}: {key} names {reference}, which is not here: put it in {manifest.parent} or a "
        "folder above it, or correct the line."
    )
