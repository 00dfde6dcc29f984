"""Which pictures there are, what is known about each, and in what form they lie on disk.

Owns the folder layouts. Reads no pixel and judges no content; a form it does not know is an
error, never a guess. Manifests are read by manifest.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from edged.core.errors import BadDataset
from edged.training.data.manifest import read_manifest
from edged.training.data.samples import Dataset, Sample
from edged.wire import imaging

MIN_NORMAL = 4
Split = Literal["train", "test", "all"]

NORMAL, ANOMALY, GOOD = "normal", "anomaly", "good"
MASK_TREES = ("masks", "ground_truth")


def read_dataset(path: Path, split: Split = "all") -> Dataset:
    """Find the pictures at `path`.

    A manifest file; a folder with normal/ and anomaly/; an MVTec folder; or a flat folder whose
    pictures all say by their names what they are, as Lookout's tutorials do (test-normal-3.jpg).
    split: matters for the MVTec form only; `train` is train/good, `test` is test/.
    Raises BadDataset with a sentence that names the file (and line) and says what to do.
    """
    try:
        return _read(path, split)
    except OSError as error:  # a folder that may not be entered, a name that is too long
        raise BadDataset(
            f"{error.filename or path}: cannot be read ({error.strerror}): correct the path, or "
            "its rights."
        ) from error


def _read(path: Path, split: Split) -> Dataset:
    if path.is_file():
        samples, kind = read_manifest(path), "manifest"
    elif not path.is_dir():
        raise BadDataset(f"{path}: {_absent(path)}.")
    elif (path / "train" / GOOD).is_dir():
        samples, kind = list(_mvtec(path, split)), "mvtec"
    elif (path / NORMAL).is_dir() or (path / ANOMALY).is_dir():
        samples, kind = list(_folders(path)), "folders"
    elif named := _named(path):
        samples, kind = named, "names"
    else:
        raise BadDataset(_unknown_form(path))
    if not samples and kind == "manifest":
        raise BadDataset(f"{path}: names no pictures: give each picture a line.")
    if not samples:
        raise BadDataset(
            f"{path}: holds no pictures ({', '.join(sorted(imaging.SUFFIXES))}): add some."
        )
    return Dataset(tuple(samples), kind)


def check_trainable(normal: int, anomalous: int, where: str) -> None:
    """Raise BadDataset unless there are enough normal pictures to learn from."""
    if normal >= MIN_NORMAL:
        return
    if normal == 0 and anomalous:
        raise BadDataset(
            f"{where}: all {anomalous} labelled pictures are anomalous; training learns what is "
            f"normal: add at least {MIN_NORMAL} normal pictures (20 or more are better)."
        )
    raise BadDataset(
        f"{where}: {normal} readable normal pictures are too few: add normal pictures until there "
        f"are at least {MIN_NORMAL} (20 or more are better)."
    )


def _absent(path: Path) -> str:
    if path.exists():
        return "is neither a file nor a folder"
    return "is a link that leads nowhere" if path.is_symlink() else "no such file or folder"


def _unknown_form(path: Path) -> str:
    parts = [p for p in ("train", "test") if (path / p / NORMAL).is_dir()]
    if parts:
        return f"{path}: holds {' and '.join(f'{p}/' for p in parts)}: point at one of them."
    return (
        f"{path}: is no data set: expected normal/ (and anomaly/), or train/good and test/ "
        "(MVTec), or a manifest file (JSON lines), or pictures that all have either `normal` or "
        "`anomaly` as a word of their names."
    )


def _pictures(folder: Path) -> Iterator[Path]:
    """Pictures at any depth, in the order of their paths.

    With links that lead nowhere: whoever reads them says so, where leaving them out would not.
    """
    if not folder.is_dir():
        return
    yield from sorted(p for p in folder.rglob("*") if _is_picture(p))


def _is_picture(path: Path) -> bool:
    """By its name; and not a folder, nor a pipe, which would block whoever reads it, for ever."""
    named = path.suffix.lower() in imaging.SUFFIXES and not path.name.startswith(".")
    return named and (path.is_file() or not path.exists())


def _folders(root: Path) -> Iterator[Sample]:
    for picture in _pictures(root / NORMAL):
        yield Sample(picture, is_anomalous=False)
    for picture in _pictures(root / ANOMALY):
        parts = picture.relative_to(root / ANOMALY).parent.parts
        defect = "/".join(parts) or None
        yield Sample(picture, True, defect, _mask(root, parts, picture.stem))


def _named(root: Path) -> list[Sample]:
    """The pictures of a flat folder, or [] unless each name holds exactly one of the two words."""
    samples = []
    for picture in sorted(root.iterdir()):
        if not _is_picture(picture):
            continue
        words = {NORMAL, ANOMALY} & set(re.split(r"[^a-z]+", picture.stem.lower()))
        if len(words) != 1:
            return []
        samples.append(Sample(picture, is_anomalous=words == {ANOMALY}))
    return samples


def _mvtec(root: Path, split: Split) -> Iterator[Sample]:
    if split in ("train", "all"):
        for picture in _pictures(root / "train" / GOOD):
            yield Sample(picture, is_anomalous=False)
    if split not in ("test", "all"):
        return
    for picture in _pictures(root / "test"):
        parts = picture.relative_to(root / "test").parent.parts
        if not parts:
            raise BadDataset(
                f"{picture}: lies in test/ itself: move it to test/good or test/<kind of defect>."
            )
        if parts == (GOOD,):
            yield Sample(picture, is_anomalous=False)
        else:
            yield Sample(picture, True, "/".join(parts), _mask(root, parts, picture.stem))


def _mask(root: Path, parts: tuple[str, ...], stem: str) -> Path | None:
    """The mask of an anomalous picture, if there is one; the trees mirror the class folders."""
    for tree in MASK_TREES:
        for folder in (root / tree / Path(*parts), root / tree / ANOMALY / Path(*parts)):
            for name in (f"{stem}.png", f"{stem}_mask.png"):
                if (folder / name).is_file():
                    return folder / name
    return None
