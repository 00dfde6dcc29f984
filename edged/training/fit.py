"""The training job: pictures in, a model folder out.

Owns the order of the steps, the folds and the report. Runs on the caller's thread; long, so the
caller gives it a process of its own where that matters. Equal pictures and seed give an equal
`model.onnx`, byte for byte, with the same libraries.

Decision: linear algebra runs on one thread. Sums depend on how many threads share them, in the
last bit; and OpenBLAS's threads wait for each other by spinning: beside one busy process on two
cores a 1500 x 1500 `eigh` took 15 s with two threads and 0.6 s with one; on an idle machine one
thread trains as fast as two.
"""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

import edged
from edged import imaging
from edged.core.errors import InvalidInput, MissingDependency, ModelError
from edged.core.protocols import FeatureExtractorLoader, Progress
from edged.core.types import Floats, Image
from edged.training import backbone, features
from edged.training.budget import DECIMALS, Budget, setting
from edged.training.calibration import THRESHOLD, calibrate, fuse, pixel_limit, unit_of
from edged.training.ensemble import (
    MAPS,
    UNSUPERVISED,
    WEIGHTS,
    Bools,
    Ensemble,
    fit_ensemble,
)
from edged.training.evidence import Choice, choose
from edged.training.features import Size
from edged.training.folder import check_replaceable, write_folder
from edged.training.gather import COPIES, Gathered, gather, resized
from edged.training.graph import Fitted, model_graph
from edged.training.masks import Segmented, learn_masks
from edged.training.metrics import auroc, confusion
from edged.training.nodes import onnx_version
from edged.training.samples import Dataset
from edged.training.threshold import UNBUDGETED, described, first_entry

FOLDS = 5
LEAST_ANOMALIES = 10
"""Labelled anomalies from which on the supervised scorer may take part."""
BEHIND = 0.05
"""Out-of-fold AUROC that it may be behind the others; further behind it stays out."""
SIDES = range(64, 1025, backbone.MULTIPLE)
GOLDEN_EACH = 3
AGREEMENT = 0.02
"""Calibrated score by which graph and numpy may differ; beyond it the graph is wrong."""

P = ParamSpec("P")
R = TypeVar("R")


def _one_thread(work: Callable[P, R]) -> Callable[P, R]:
    """Let BLAS use one thread during `work`."""

    @functools.wraps(work)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            from threadpoolctl import threadpool_limits
        except ImportError as error:
            raise MissingDependency("threadpoolctl", "train", "Training") from error
        with threadpool_limits(1, user_api="blas"):
            return work(*args, **kwargs)

    return alone


@_one_thread
def train(
    dataset: Dataset,
    output: Path,
    *,
    name: str,
    seed: int,
    extractor: FeatureExtractorLoader,
    progress: Progress,
    side: int | None = None,
    budget: Budget | None = None,
) -> dict[str, Any]:
    """Learn what is normal and write the model folder `output`; returns the report.

    side: the graph's input has about side x side pixels, in the shape of the pictures; None = the
    evidence chooses. budget: what the threshold must keep; None = best F1, or with normal
    pictures only two deviations above their median.
    Report: output, images, normal, anomaly, auroc (out-of-fold; None without anomalies),
    threshold, seconds, skipped [{path, reason}], warnings, sha256, metrics.
    Raises BadDataset, InvalidInput (output or side), MissingDependency, EngineError, ModelError.
    """
    began = time.monotonic()
    if side is not None and side not in SIDES:
        raise InvalidInput(
            f"side {side}: the input's side is a multiple of {SIDES.step} from {SIDES.start} to "
            f"{SIDES.stop - 1}."
        )
    check_replaceable(output)
    choice = choose(dataset, side, seed, extractor, progress)
    data = gather(dataset, choice.size, seed, extractor, progress)
    learned = _learn(data, choice, seed, budget, progress)
    progress("writing", 0, 1)
    model = model_graph(choice.size, learned.fitted)
    golden, golden_scores = _golden(data, learned.fitted, model, choice.size, extractor)
    spec = _spec(data, learned, name, seed, choice, model, golden_scores)
    write_folder(output, model, spec, golden)
    progress("writing", 1, 1)
    if spec["image_size"] is None:
        data.warnings.append(_mixed(data.sizes))
    return {
        "output": str(output),
        **spec["images"],
        "images": len(data.samples),
        "auroc": learned.metrics["auroc"],
        "threshold": learned.threshold,
        "metrics": learned.metrics,
        "input": spec["input"],
        "scorers": learned.table,
        "map": choice.map,
        "classes": spec["classes"],
        "seconds": time.monotonic() - began,
        "skipped": data.skipped,
        "warnings": data.warnings,
        "sha256": spec["sha256"],
    }


@dataclass(frozen=True, slots=True)
class _Learned:
    """What the model will hold, and out-of-fold figures: of the whole and of each scorer."""

    fitted: Fitted
    metrics: dict[str, float | None]
    table: list[dict[str, Any]]
    segmented: Segmented | None
    normal: list[float]
    anomalous: list[float]
    threshold: float
    entry: dict[str, Any]


def _learn(
    data: Gathered, choice: Choice, seed: int, budget: Budget | None, progress: Progress
) -> _Learned:
    raw, normal_maps = _out_of_fold(data, choice, seed, progress)
    progress("calibrating", 0, 1)
    # Copies widen what counts as normal, but set no limit: they are rougher than the line is.
    untouched = _worth_summing([scores[:: COPIES + 1] for scores in raw], data.anomalous)
    supervised = len(untouched) > len(UNSUPERVISED)
    scorers = _fit(data, np.ones(len(data.whole), np.bool_), supervised)
    folds = _folds(data.anomalous, seed)
    found_masks = learn_masks(data, choice.size, scorers.pooled, folds, seed)
    if found_masks is not None:
        scorers = replace(scorers, segments=found_masks.segments)
        untouched.append(found_masks.scores)
    weights = _weights(scorers.names, untouched, data.anomalous)
    guarded = len(UNSUPERVISED) if len(untouched) > len(UNSUPERVISED) else 0
    calibration = calibrate(untouched, data.anomalous, weights, guarded)
    limit = pixel_limit(normal_maps)
    fitted = Fitted(data.projection, scorers, calibration, choice.map, limit)
    scores = np.round(calibration.apply(untouched), DECIMALS)
    normal, anomalous = scores[~data.anomalous].tolist(), scores[data.anomalous].tolist()
    most = THRESHOLD if guarded else 1.0
    found = setting(budget, normal, anomalous, most) if budget else None
    threshold = found.threshold if found else THRESHOLD
    if found:
        data.warnings.append(found.words)
    reason = described(budget) if budget else UNBUDGETED[bool(anomalous)]
    progress("calibrating", 1, 1)
    return _Learned(
        fitted,
        _metrics(scores, threshold, data.anomalous, found_masks),
        _table(scorers.names, weights, untouched, data.anomalous),
        found_masks,
        normal,
        anomalous,
        threshold,
        first_entry(threshold, reason, found),
    )


def _folds(anomalous: Bools, seed: int) -> npt.NDArray[np.int64]:
    """The fold of each sample; both classes spread evenly."""
    count = min(FOLDS, int((~anomalous).sum()))
    folds = np.empty(len(anomalous), np.int64)
    for label in (False, True):
        places = np.flatnonzero(anomalous == label)
        order = np.random.default_rng([seed, 4, int(label)]).permutation(len(places))
        folds[places[order]] = np.arange(len(places)) % count
    return folds


def _worth_summing(raw: list[Floats], anomalous: Bools) -> list[Floats]:
    """The raw scores without the supervised ones, if these would only add noise.

    With few labels the supervised scorer may know nothing; out-of-fold, that shows. It need not
    be better than the others, only near: in doubt the sum is better than a choice.
    """
    others, supervised = raw[: len(UNSUPERVISED)], raw[len(UNSUPERVISED) :]
    near = supervised and not _behind(supervised[0], others, anomalous)
    return [*others, *supervised] if near else others


def _behind(scores: Floats, others: list[Floats], anomalous: Bools) -> bool:
    """Whether a scorer is plainly worse, out-of-fold, than the unsupervised ones together."""
    units = [unit_of(each[~anomalous]) for each in others]
    fused = fuse(units, others, [WEIGHTS[name] for name in UNSUPERVISED])
    known, alone = auroc(fused, anomalous), auroc(scores, anomalous)
    return known is not None and alone is not None and alone < known - BEHIND


def _weights(names: Sequence[str], raw: list[Floats], anomalous: Bools) -> list[float]:
    """Of each scorer; marks that find no defects have none, they only draw."""
    weights = [WEIGHTS[name] for name in names]
    if names[-1] == "marked" and _behind(raw[-1], raw[: len(UNSUPERVISED)], anomalous):
        weights[-1] = 0.0
    return weights


def _fit(data: Gathered, rows: Bools, supervise: bool) -> Ensemble:
    """Fit the scorers to the chosen rows (a sample's copies are its next rows)."""
    anomalous = np.repeat(data.anomalous, COPIES + 1)
    normal = data.local[rows & ~anomalous]
    return fit_ensemble(normal, data.whole[rows], anomalous[rows], supervise)


def _out_of_fold(
    data: Gathered, choice: Choice, seed: int, progress: Progress
) -> tuple[list[npt.NDArray[np.float32]], Floats]:
    """Raw scores of every row, and maps of the untouched normal ones, by scorers blind to them."""
    folds = np.repeat(_folds(data.anomalous, seed), COPIES + 1)
    untouched = np.arange(len(folds)) % (COPIES + 1) == 0
    normal = ~np.repeat(data.anomalous, COPIES + 1)
    raw: list[npt.NDArray[np.float32]] = []
    normal_maps: list[Floats] = []
    count = int(folds.max()) + 1
    grid, drawn = features.grid(choice.size), MAPS.index(choice.map)
    supervise = int(data.anomalous.sum()) >= LEAST_ANOMALIES
    for fold in range(count):
        progress("fitting", fold, count)
        held = folds == fold
        ensemble = _fit(data, ~held, supervise)
        scores, maps = ensemble.score(data.local[held], data.whole[held], grid)
        if not raw:
            raw = [np.empty(len(folds), np.float32) for _ in scores]
        for whole, part in zip(raw, scores, strict=True):
            whole[held] = part
        normal_maps.append(maps[drawn][(untouched & normal)[held]])
    progress("fitting", count, count)
    return raw, np.concatenate(normal_maps)


def _metrics(
    scores: npt.NDArray[np.float64], threshold: float, anomalous: Bools, masks: Segmented | None
) -> dict[str, float | None]:
    """Out-of-fold figures of the untouched pictures; `pixel_auroc` with masks."""
    counts = confusion(scores >= threshold, anomalous)
    judged = bool(anomalous.any())
    pixels = {} if masks is None else {"pixel_auroc": masks.pixel_auroc}
    return {
        **pixels,
        "auroc": auroc(scores, anomalous),
        "precision": counts.precision if judged else None,
        "recall": counts.recall,
        "f1": counts.f1,
        "false_reject_rate": counts.false_reject_rate,
        "escape_rate": counts.escape_rate,
    }


def _table(
    names: Sequence[str], weights: Sequence[float], raw: list[Floats], anomalous: Bools
) -> list[dict[str, Any]]:
    """What each scorer would do alone, out-of-fold; AUROC None without anomalies."""
    rows = zip(names, weights, raw, strict=True)
    return [{"name": n, "weight": w, "auroc": auroc(scores, anomalous)} for n, w, scores in rows]


def _golden(
    data: Gathered,
    fitted: Fitted,
    model: bytes,
    size: Size,
    load: FeatureExtractorLoader,
) -> tuple[dict[str, Image], dict[str, float]]:
    """Some pictures and the scores that the graph gives them.

    Pictures from the middle of each class: one near the threshold could flip on an engine that
    is as good as the trainer's. Raises ModelError if graph and numpy disagree.
    """
    step = COPIES + 1
    grid = features.grid(size)
    raw, _ = fitted.scorers.score(data.local[::step], data.whole[::step], grid)
    expected = fitted.calibration.apply(raw)
    images: dict[str, Image] = {}
    scores: dict[str, float] = {}
    extractor = load(model)
    try:
        for label, word in ((False, "normal"), (True, "anomaly")):
            for number, index in enumerate(_typical(expected, data.anomalous == label)):
                file = f"{word}-{number}.png"
                images[file] = resized(imaging.read(data.samples[index].path), size)
                scores[file] = float(extractor.run(images[file][None])[0][0])
                if not abs(scores[file] - expected[index]) <= AGREEMENT:
                    raise ModelError(
                        f"The written graph scores {data.samples[index].path} {scores[file]:.4f} "
                        f"where training saw {expected[index]:.4f}: this runtime does not compute "
                        "the graph correctly; nothing was written."
                    )
    finally:
        extractor.close()
    return images, scores


def _typical(scores: npt.NDArray[np.float64], chosen: Bools) -> list[int]:
    """Up to GOLDEN_EACH samples around the middle of their class, spread."""
    places = np.flatnonzero(chosen)
    order = places[np.argsort(scores[places], kind="stable")]
    quartiles = [(len(order) - 1) * q // 4 for q in range(1, GOLDEN_EACH + 1)]
    return [int(order[q]) for q in sorted(set(quartiles))] if len(order) else []


def _spec(
    data: Gathered,
    learned: _Learned,
    name: str,
    seed: int,
    choice: Choice,
    model: bytes,
    golden: dict[str, float],
) -> dict[str, Any]:
    """What goes into spec.json besides its format. Holds no time: equal data, equal file."""
    fitted = learned.fitted
    only = next(iter(data.sizes)) if len(data.sizes) == 1 else None
    return {
        "name": name,
        "version": "1",
        "sha256": hashlib.sha256(model).hexdigest(),
        "input": {"height": choice.size[0], "width": choice.size[1]},
        "image_size": {"height": only[0], "width": only[1]} if only else None,
        "threshold": learned.threshold,
        "thresholds": [learned.entry],
        "out_of_fold": {"normal": learned.normal, "anomaly": learned.anomalous},
        "classes": _classes(learned.segmented),
        "golden": golden,
        "seed": seed,
        "data_sha256": data.sha256,
        "images": {
            "normal": int((~data.anomalous).sum()),
            "anomaly": int(data.anomalous.sum()),
        },
        "metrics": learned.metrics,
        "backbone": backbone.NAME,
        "scorers": [
            {**row, "centre": u.centre, "deviation": u.deviation}
            for row, u in zip(learned.table, fitted.calibration.units, strict=True)
        ],
        "map": choice.map,
        "evidence": [trial.as_row() for trial in choice.trials],
        "calibration": {
            "limit": fitted.calibration.limit,
            "slope": fitted.calibration.slope,
            "guards": list(fitted.calibration.guards),
            "pixel_limit": fitted.pixel_limit,
        },
        "versions": {
            "edged": edged.__version__,
            "numpy": np.__version__,
            "onnx": onnx_version(),
        },
    }


def _classes(segmented: Segmented | None) -> list[dict[str, Any]]:
    """The classes of a segmentation model with their out-of-fold figures by pixel."""
    if segmented is None:
        return []
    known = zip(segmented.classes, segmented.metrics, strict=True)
    return [{**figures, "color": kind.color} for kind, figures in known]


def _mixed(sizes: set[tuple[int, int]]) -> str:
    shown = ", ".join(f"{w}x{h}" for h, w in sorted(sizes)[:4])
    more = ", ..." if len(sizes) > 4 else ""
    return (
        f"The pictures have {len(sizes)} different sizes ({shown}{more}): the model will take any "
        "size, so a wrong camera setting cannot be noticed by it."
    )
