"""Reads the pictures of a data set once and keeps what training needs of each.

Owns decoding, resizing, hashing and the running of the network; fits only the projection. A
picture lives for one step. Nothing is dropped in silence: what cannot be read is named in
`skipped`, what is left out is counted in `warnings`.

Memory is bounded: of more pictures than BUDGET holds, a sample drawn by the seed is learned from;
the rest can be had afterwards, one at a time, for the finished model to judge.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

import edged
from edged.core.errors import BadDataset, BadImage
from edged.core.protocols import FeatureExtractor, FeatureExtractorLoader, Progress
from edged.core.types import Floats, Image
from edged.training.data.dataset import check_trainable
from edged.training.data.samples import Dataset, Sample
from edged.training.features import view as features
from edged.training.features.cache import FeatureCache, Features
from edged.training.features.network import Size
from edged.training.features.view import View
from edged.wire import imaging

FEW = 10
"""Normal pictures below which training warns."""
LEAST_SIDE = 16
"""Pixels of a picture; a smaller one shows no part."""
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
    local: float16 (rows, positions, dimensions), projected; whole: float32 (rows, view.whole).
    anomalous: bool (samples,).
    rest: pictures for which there was no memory; see `remaining`.
    """

    view: View
    projection: Floats
    samples: list[Sample]
    anomalous: npt.NDArray[np.bool_]
    local: npt.NDArray[np.float16]
    whole: Floats
    rest: list[Sample]
    reader: Reader
    skipped: list[dict[str, str]]
    warnings: list[str]
    judged: list[int] = field(default_factory=lambda: [0, 0])
    """How many of the rest could be judged, normal and anomalous."""

    @property
    def sizes(self) -> set[tuple[int, int]]:
        """Every (height, width) met."""
        return self.reader.sizes

    @property
    def sha256(self) -> str:
        """Of all picture files and what is said of them."""
        return hashlib.sha256("\n".join(self.reader.labels).encode()).hexdigest()

    def count(self, anomalous: bool) -> int:
        """How many pictures of the class were used, the rest included."""
        return int((self.anomalous == anomalous).sum()) + self.judged[anomalous]


@dataclass(slots=True)
class Reader:
    """Files in, resized pictures out; remembers what it met."""

    size: Size
    sizes: set[tuple[int, int]] = field(default_factory=set)
    digests: dict[str, Sample] = field(default_factory=dict)
    labels: list[str] = field(default_factory=list)
    copies: int = 0

    def read(self, sample: Sample) -> tuple[Image, str] | None:
        """The picture at the input's size and its file's sha256; None for a copy of an earlier one.

        Copies would stand on both sides of a fold and prove what they do not know. Raises
        BadImage, and BadDataset on two labels.
        """
        data = sample.opener(sample.path)
        found = imaging.decode_for(data, str(sample.path), self.size)
        if min(found.shape) < LEAST_SIDE:
            raise BadImage(
                f"{sample.path}: has {found.shape[1]}x{found.shape[0]} pixels; at least "
                f"{LEAST_SIDE} a side are needed."
            )
        self.sizes.add(found.shape)
        digest = hashlib.sha256(data).hexdigest()
        mask = "" if sample.mask is None else hashlib.sha256(sample.opener(sample.mask)).hexdigest()
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
        return resized(found.image, self.size), digest


def resized(image: Image, size: Size) -> Image:
    """A copy of a picture at the input's size, as serving scales it."""
    out = np.empty((*size, 3), np.uint8)
    imaging.resize_into(image, out)
    return out


def gather(
    dataset: Dataset,
    view: View,
    seed: int,
    load: FeatureExtractorLoader,
    progress: Progress,
    cache: FeatureCache | None = None,
) -> Gathered:
    """Read and describe the labelled pictures. Raises BadDataset, EngineError."""
    warnings: list[str] = []
    chosen, rest = _chosen(dataset, view, seed, warnings)
    labels = [s.is_anomalous for s in chosen]
    check_trainable(labels.count(False), labels.count(True), "The data set")
    extractor = load(features.feature_graph(view))
    try:
        projection = _projection(chosen, view, seed, extractor, progress)
        describer = _Describer(view, seed, projection, extractor, cache)
        data = _describe(chosen, describer, progress, warnings)
    finally:
        extractor.close()
    data.rest.extend(rest)
    return data


def remaining(data: Gathered) -> Iterator[tuple[Sample, Image]]:
    """The pictures for which there was no memory, one at a time, at the input's size.

    What cannot be read is named and copies are counted, as among the others.
    """
    skipped, copies = len(data.skipped), data.reader.copies
    for sample in data.rest:
        try:
            found = data.reader.read(sample)
        except BadImage as error:
            data.skipped.append({"path": str(sample.path), "reason": str(error)})
            continue
        if found is not None:
            data.judged[bool(sample.is_anomalous)] += 1
            yield sample, found[0]
    data.warnings.extend(_losses(len(data.skipped) - skipped, data.reader.copies - copies))


def _chosen(
    dataset: Dataset, view: View, seed: int, warnings: list[str]
) -> tuple[list[Sample], list[Sample]]:
    """The pictures to learn from, as many as memory holds, and the labelled rest."""
    unlabeled = len(dataset.samples) - len(dataset.normal) - len(dataset.anomalous)
    if unlabeled:
        warnings.append(f"{unlabeled} pictures have no label and were not used.")
    row = view.positions * view.dimensions * np.dtype(np.float16).itemsize
    limit = max(16, BUDGET // (2 * row * (COPIES + 1)))
    keep: set[int] = set()
    rest: set[int] = set()
    for label, word in ((False, "normal"), (True, "anomalous")):
        places = [i for i, s in enumerate(dataset.samples) if s.is_anomalous is label]
        if len(places) > limit:
            warnings.append(
                f"{limit} of {len(places)} {word} pictures were learned from, drawn by the seed: "
                "more do not fit into the memory set aside for training. The others were judged by "
                "the finished model, and count for the threshold and the figures."
            )
            rng = np.random.default_rng([seed, 1, int(label)])
            order = [places[i] for i in rng.permutation(len(places))]
            places = order[:limit]
            rest.update(order[limit:])
        keep.update(places)
    learned, judged = ([dataset.samples[i] for i in sorted(each)] for each in (keep, rest))
    return learned, judged


def _projection(
    samples: Sequence[Sample],
    view: View,
    seed: int,
    extractor: FeatureExtractor,
    progress: Progress,
) -> Floats:
    """Principal axes of some normal pictures."""
    normal = [s for s in samples if not s.is_anomalous]
    order = np.random.default_rng([seed, 2]).permutation(len(normal))
    fit, taken, total = features.ProjectionFit(view), 0, min(BASIS, len(normal))
    for index in order:
        if taken == total:
            break
        try:
            sample = normal[index]
            found = imaging.read_for(sample.path, view.size, sample.opener)
            image = resized(found.image, view.size)
        except BadImage:
            continue  # named when all pictures are described
        local, _ = extractor.run(image[None])
        fit.add(features.positions_first(local))
        taken += 1
        progress("reading", taken, total)
    check_trainable(taken if taken < total else total, 0, "The data set")
    return fit.solve()


@dataclass(frozen=True, slots=True)
class _Describer:
    """Turns a picture into the features of itself and its copies, or finds them in the cache."""

    view: View
    seed: int
    projection: Floats
    extractor: FeatureExtractor
    cache: FeatureCache | None

    def describe(self, image: Image, digest: str) -> Features:
        """Of a picture at the input's size, whose file has the sha256 `digest`."""
        key = self._key(digest) if self.cache else ""
        known = self.cache.find(key) if self.cache else None
        if known is not None:
            return known
        # By its file, not by its place: a picture more or less changes no other's copies.
        rng = np.random.default_rng([self.seed, 3, int(digest[:12], 16)])
        images = np.stack([image, *(features.augmented(image, rng) for _ in range(COPIES))])
        raw, whole = self.extractor.run(images)
        local = (features.positions_first(raw) @ self.projection).astype(np.float16)
        if self.cache:
            self.cache.keep(key, (local, whole))
        return local, whole

    def _key(self, digest: str) -> str:
        return FeatureCache.key(
            picture=digest,
            size=self.view.size,
            network=self.view.network.sha256,
            projection=hashlib.sha256(self.projection.tobytes()).hexdigest(),
            copies=(COPIES, self.seed, *features.AUGMENTATION),
            edged=edged.__version__,
        )


def _describe(
    samples: Sequence[Sample], describer: _Describer, progress: Progress, warnings: list[str]
) -> Gathered:
    view, step = describer.view, COPIES + 1
    reader = Reader(view.size)
    local = np.empty((len(samples) * step, view.positions, view.dimensions), np.float16)
    whole = np.empty((len(samples) * step, view.whole), np.float32)
    kept: list[Sample] = []
    skipped: list[dict[str, str]] = []
    for index, sample in enumerate(samples):
        try:
            found = reader.read(sample)
        except BadImage as error:
            skipped.append({"path": str(sample.path), "reason": str(error)})
            continue
        if found is None:
            continue
        at = len(kept) * step
        local[at : at + step], whole[at : at + step] = describer.describe(*found)
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
    warnings.extend(_losses(len(skipped), reader.copies))
    if describer.cache and describer.cache.failure:
        warnings.append(
            f"Features could not be kept on disk ({describer.cache.failure}): a training that is "
            "cut off begins anew."
        )
    return Gathered(
        view, describer.projection, kept, anomalous, local[:rows], whole[:rows], [], reader,
        skipped, warnings,
    )  # fmt: skip


def _losses(skipped: int, copies: int) -> list[str]:
    words = []
    if skipped:
        words.append(f"{skipped} pictures cannot be read and were not used.")
    if copies:
        words.append(f"{copies} pictures are exact copies of others: not used.")
    return words
