"""Reads the pictures of a data set once and keeps what training needs of each.

Owns decoding, resizing, hashing and the running of the network; fits only the projection. A
picture lives for one step. Nothing is dropped in silence: what cannot be read is named in
`skipped`, what is left out is counted in `warnings`.

Memory is bounded: of more pictures than BUDGET holds, a sample drawn by the seed is used.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edged import imaging
from edged.core.errors import BadDataset, BadImage
from edged.core.protocols import FeatureExtractor, FeatureExtractorLoader, Progress
from edged.core.types import Floats, Image
from edged.training import features
from edged.training.dataset import check_trainable
from edged.training.features import Size
from edged.training.samples import Dataset, Sample

FEW = 10
"""Normal pictures below which training warns."""
COPIES = 1
"""Augmented copies of each picture, in addition to itself."""
BASIS = 48
"""Normal pictures that the projection is fitted to."""
BUDGET = 512 * 1024 * 1024
"""Bytes of local features kept, half of them for each class."""


@dataclass(slots=True)
class Gathered:
    """What is known of the readable, labelled pictures, in the order of the data set.

    Each sample has COPIES + 1 rows, one after the other, the untouched picture first.
    local: float16 (rows, positions, DIMENSIONS), projected; whole: float32 (rows, WHOLE).
    anomalous: bool (samples,). sizes: every (height, width) met. sha256: of all picture files.
    """

    projection: Floats
    samples: list[Sample]
    anomalous: npt.NDArray[np.bool_]
    local: npt.NDArray[np.float16]
    whole: Floats
    sha256: str
    sizes: set[tuple[int, int]]
    skipped: list[dict[str, str]]
    warnings: list[str]


@dataclass(slots=True)
class _Reader:
    """Files in, resized pictures out; remembers what it met."""

    size: Size
    sizes: set[tuple[int, int]] = field(default_factory=set)
    digests: dict[str, Sample] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    copies: int = 0

    def read(self, sample: Sample) -> Image | None:
        """The picture at the input's size, or None for an exact copy of an earlier one.

        Copies would stand on both sides of a fold and prove what they do not know. Raises
        BadImage, and BadDataset on two labels.
        """
        data = _bytes(sample.path)
        image = imaging.decode(data, str(sample.path))
        self.sizes.add((image.shape[0], image.shape[1]))
        digest = hashlib.sha256(data).hexdigest()
        mask = "" if sample.mask is None else hashlib.sha256(_bytes(sample.mask)).hexdigest()
        classes = f"{mask} {sample.defect} {sample.mask_names} {sample.mask_colors}"
        self.labels.append(f"{digest} {sample.is_anomalous} {classes}")
        twin = self.digests.setdefault(digest, sample)
        if twin is not sample:
            self.copies += 1
            if twin.is_anomalous is not sample.is_anomalous:
                raise BadDataset(
                    f"{sample.path}: is the same picture as {twin.path}, but one is labelled "
                    "normal and one anomalous: remove the wrong one."
                )
            return None
        return resized(image, self.size)


def resized(image: Image, size: Size) -> Image:
    """A copy of a picture at the input's size, as serving scales it."""
    out = np.empty((*size, 3), np.uint8)
    imaging.resize_into(image, out)
    return out


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror}).") from error


def gather(
    dataset: Dataset, size: Size, seed: int, load: FeatureExtractorLoader, progress: Progress
) -> Gathered:
    """Read and describe the labelled pictures. Raises BadDataset, EngineError."""
    warnings: list[str] = []
    chosen = _chosen(dataset, size, seed, warnings)
    labels = [s.is_anomalous for s in chosen]
    check_trainable(labels.count(False), labels.count(True), "The data set")
    extractor = load(features.feature_graph(size))
    try:
        projection = _projection(chosen, size, seed, extractor, progress)
        return _describe(chosen, size, seed, extractor, progress, projection, warnings)
    finally:
        extractor.close()


def _chosen(dataset: Dataset, size: Size, seed: int, warnings: list[str]) -> list[Sample]:
    unlabeled = len(dataset.samples) - len(dataset.normal) - len(dataset.anomalous)
    if unlabeled:
        warnings.append(f"{unlabeled} pictures have no label and were not used.")
    row = math.prod(features.grid(size)) * features.DIMENSIONS * np.dtype(np.float16).itemsize
    limit = max(16, BUDGET // (2 * row * (COPIES + 1)))
    keep: set[int] = set()
    for label, word in ((False, "normal"), (True, "anomalous")):
        places = [i for i, s in enumerate(dataset.samples) if s.is_anomalous is label]
        if len(places) > limit:
            warnings.append(
                f"{limit} of {len(places)} {word} pictures were used, drawn by the seed: more do "
                "not fit into the memory set aside for training."
            )
            rng = np.random.default_rng([seed, 1, int(label)])
            places = [places[i] for i in rng.permutation(len(places))[:limit]]
        keep.update(places)
    return [dataset.samples[i] for i in sorted(keep)]


def _projection(
    samples: Sequence[Sample],
    size: Size,
    seed: int,
    extractor: FeatureExtractor,
    progress: Progress,
) -> Floats:
    """Principal axes of some normal pictures."""
    normal = [s for s in samples if not s.is_anomalous]
    order = np.random.default_rng([seed, 2]).permutation(len(normal))
    fit, taken, total = features.ProjectionFit(), 0, min(BASIS, len(normal))
    for index in order:
        if taken == total:
            break
        try:
            image = resized(imaging.read(normal[index].path), size)
        except BadImage:
            continue  # named when all pictures are described
        local, _ = extractor.run(image[None])
        fit.add(features.positions_first(local))
        taken += 1
        progress("reading", taken, total)
    check_trainable(taken if taken < total else total, 0, "The data set")
    return fit.solve()


def _describe(
    samples: Sequence[Sample],
    size: Size,
    seed: int,
    extractor: FeatureExtractor,
    progress: Progress,
    projection: Floats,
    warnings: list[str],
) -> Gathered:
    reader = _Reader(size)
    step, positions = COPIES + 1, math.prod(features.grid(size))
    local = np.empty((len(samples) * step, positions, features.DIMENSIONS), np.float16)
    whole = np.empty((len(samples) * step, features.WHOLE), np.float32)
    kept: list[Sample] = []
    skipped: list[dict[str, str]] = []
    for index, sample in enumerate(samples):
        try:
            image = reader.read(sample)
        except BadImage as error:
            skipped.append({"path": str(sample.path), "reason": str(error)})
            continue
        if image is None:
            continue
        rng = np.random.default_rng([seed, 3, len(kept)])
        images = np.stack([image, *(features.augmented(image, rng) for _ in range(COPIES))])
        at = len(kept) * step
        raw, whole[at : at + step] = extractor.run(images)
        local[at : at + step] = features.positions_first(raw) @ projection
        kept.append(sample)
        progress("features", index + 1, len(samples))
    rows = len(kept) * step
    anomalous = np.array([bool(s.is_anomalous) for s in kept], np.bool_)
    check_trainable(int((~anomalous).sum()), int(anomalous.sum()), "The data set")
    if (few := int((~anomalous).sum())) < FEW:
        warnings.append(
            f"Only {few} normal pictures: the threshold rests on {few} scores and may be far off; "
            "20 or more are better."
        )
    if skipped:
        warnings.append(f"{len(skipped)} pictures cannot be read and were not used.")
    if reader.copies:
        warnings.append(f"{reader.copies} pictures are exact copies of others: not used.")
    digest = hashlib.sha256("\n".join(reader.labels).encode()).hexdigest()
    return Gathered(
        projection, kept, anomalous, local[:rows], whole[:rows], digest, reader.sizes, skipped,
        warnings,
    )  # fmt: skip
