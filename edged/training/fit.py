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

import contextlib
import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from edged.core.errors import InvalidInput, MissingDependency, ModelError
from edged.core.protocols import FeatureExtractor, FeatureExtractorLoader, Progress
from edged.core.types import Image
from edged.training.data.samples import Dataset
from edged.training.export.folder import check_replaceable, write_folder
from edged.training.export.graph import Fitted, model_graph
from edged.training.export.record import Judgement, Learned, TrainingRun, spec_of
from edged.training.features.backbone import EfficientNetLite0
from edged.training.features.cache import FeatureCache
from edged.training.features.gather import COPIES, Gathered, gather, remaining, resized
from edged.training.features.network import Network
from edged.training.features.view import View
from edged.training.figures.budget import DECIMALS, Budget, setting
from edged.training.figures.calibration import THRESHOLD, calibrate, pixel_limit
from edged.training.figures.metrics import auroc, confusion
from edged.training.scorers import selection
from edged.training.scorers.ensemble import (
    BANK,
    MARKED,
    SUPERVISED,
    UNSUPERVISED,
    Bools,
    ScorerChoice,
)
from edged.training.scorers.evidence import Choice, choose
from edged.training.scorers.masks import Segmented, learn_masks
from edged.training.threshold import UNBUDGETED, described, first_entry
from edged.wire import imaging

SIDES = range(64, 1025)
GOLDEN_EACH = 3
AGREEMENT = 0.02
"""Calibrated score by which graph and numpy may differ; beyond it the graph is wrong."""
NAMED = 5
"""Pictures with a doubtful label that a warning names."""

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
    network: Network | None = None,
    versions: Mapping[str, str] | None = None,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Learn what is normal and write the model folder `output`; returns the report.

    side: the graph's input has about side x side pixels, in the shape of the pictures; None = the
    evidence chooses. budget: what the threshold must keep; None = best F1, or with normal
    pictures only two deviations above their median. network: None = EfficientNet-Lite0.
    versions: of the libraries that training does not know itself, for spec.json. cache: a folder
    where features are kept until the model can be written, so that a training that was cut off goes
    on where it was; None = nowhere.
    Report: output, images, normal, anomaly, auroc (out-of-fold; None without anomalies),
    threshold, seconds, skipped [{path, reason}], warnings, sha256, metrics.
    Raises BadDataset, InvalidInput (output or side), MissingDependency, EngineError, ModelError.
    """
    began = time.monotonic()
    _check(dataset, output, side, budget)
    network = network or EfficientNetLite0()
    choice = choose(dataset, network, side, seed, extractor, progress)
    kept = None if cache is None else FeatureCache(cache)
    data = gather(dataset, View(network, choice.size), seed, extractor, progress, kept)
    learned, raw, folds = _learn(data, choice, seed, progress)
    model = model_graph(data.view, learned.fitted)
    with contextlib.closing(extractor(model)) as runner:
        golden, golden_scores = _golden(data, learned.fitted, runner)
        rest = _score_rest(data, runner, progress)
    judged = _judge(data, learned, raw, folds, rest, budget)
    progress("writing", 0, 1)
    run = TrainingRun(name, seed, versions or {}, time.monotonic() - began)
    spec = spec_of(data, learned, judged, choice, model, golden_scores, run)
    if kept is not None:
        kept.remove()  # before: it may be what fills the disk
    write_folder(output, model, spec, golden)
    progress("writing", 1, 1)
    if spec["image_size"] is None:
        data.warnings.append(_mixed(data.sizes))
    return {
        "output": str(output),
        **spec["images"],
        "images": data.count(False) + data.count(True),
        "auroc": judged.metrics["auroc"],
        "scorers": learned.table,
        **{key: spec[key] for key in ("threshold", "metrics", "input", "map", "classes", "sha256")},
        "seconds": time.monotonic() - began,
        "skipped": data.skipped,
        "warnings": data.warnings,
    }


def _check(dataset: Dataset, output: Path, side: int | None, budget: Budget | None) -> None:
    """Say what cannot be before an hour's work, not after it."""
    if side is not None and side not in SIDES:
        raise InvalidInput(f"side {side}: give a number from {SIDES.start} to {SIDES[-1]}.")
    check_replaceable(output)
    if budget is not None:
        setting(budget, [0.0] * len(dataset.normal), [1.0] * len(dataset.anomalous))


def _learn(
    data: Gathered, choice: Choice, seed: int, progress: Progress
) -> tuple[Learned, dict[str, npt.NDArray[np.float32]], selection.Folds]:
    """What the model will hold; and raw scores out-of-fold, and the fold, of each sample."""
    labelled = int(data.anomalous.sum()) >= selection.LEAST_ANOMALIES
    folds = selection.assign_folds(data.anomalous, seed)
    wanted = ScorerChoice(choice.bank, labelled, seed)
    raw, normal_maps = selection.out_of_fold(data, choice.map, wanted, folds, progress)
    progress("calibrating", 0, 1)
    raw = selection.worth_summing(raw, data.anomalous)
    wanted = ScorerChoice(BANK in raw, SUPERVISED in raw, seed)
    scorers = selection.fit(data, np.ones(len(data.whole), np.bool_), wanted)
    found_masks = learn_masks(data, scorers.pooled, folds, seed)
    if found_masks is not None:
        scorers = replace(scorers, segments=found_masks.segments)
        raw[MARKED] = found_masks.scores
    weights = selection.weights(raw, data.anomalous)
    calibration = calibrate(list(raw.values()), data.anomalous, weights, _guarded(raw))
    limit = pixel_limit(normal_maps)
    fitted = Fitted(data.projection, scorers, calibration, choice.map, limit)
    progress("calibrating", 1, 1)
    table = selection.table(raw, weights, data.anomalous)
    return Learned(fitted, table, found_masks), raw, folds


def _guarded(raw: selection.Raw) -> int:
    """How many of the first scorers may reject on their own: where others were taught, all."""
    return len(UNSUPERVISED) if SUPERVISED in raw or MARKED in raw else 0


def _score_rest(
    data: Gathered, runner: FeatureExtractor, progress: Progress
) -> tuple[list[float], list[bool]]:
    """Scores and labels of the pictures that memory did not hold: the model never saw them."""
    scores: list[float] = []
    labels: list[bool] = []
    for done, (sample, image) in enumerate(remaining(data), 1):
        scores.append(round(float(runner.run(image[None])[0][0]), DECIMALS))
        labels.append(bool(sample.is_anomalous))
        progress("judging the rest", done, len(data.rest))
    return scores, labels


def _judge(
    data: Gathered,
    learned: Learned,
    raw: dict[str, npt.NDArray[np.float32]],
    folds: selection.Folds,
    rest: tuple[list[float], list[bool]],
    budget: Budget | None,
) -> Judgement:
    """Choose the threshold from all scores that are blind to their picture, and count."""
    calibration, guards = learned.fitted.calibration, _guarded(raw)
    weights = list(calibration.weights)
    own = np.round(calibration.apply(list(raw.values())), DECIMALS)
    honest = np.round(
        selection.honest_scores(raw, data.anomalous, weights, guards, folds), DECIMALS
    )
    labels = np.concatenate([data.anomalous, np.array(rest[1], np.bool_)])
    scores, honest = np.append(own, rest[0]), np.append(honest, rest[0])
    normal, anomalous = scores[~labels].tolist(), scores[labels].tolist()
    found = setting(budget, normal, anomalous, THRESHOLD if guards else 1.0) if budget else None
    threshold = found.threshold if found else THRESHOLD
    if found:
        data.warnings.append(found.words)
    data.warnings.extend(_doubts(own, data))
    reason = described(budget) if budget else UNBUDGETED[bool(anomalous)]
    # A budget's bound is already a statement about new parts; F1's limit is chosen to look well.
    counted = scores if found else honest
    return Judgement(
        normal,
        anomalous,
        threshold,
        first_entry(threshold, reason, found),
        _metrics(scores, counted >= threshold, labels, learned.segmented),
    )


def _doubts(scores: npt.NDArray[np.float64], data: Gathered) -> list[str]:
    """Words on pictures whose label is probably wrong."""
    names = [str(sample.path) for sample in data.samples]
    words = []
    for label, found in selection.doubtful(scores, data.anomalous, names).items():
        if found:
            more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
            words.append(
                f"Labelled {label}, but by their look plainly not ({len(found)}): check the label "
                f"of {', '.join(found[:NAMED])}{more}."
            )
    return words


def _metrics(
    scores: npt.NDArray[np.float64],
    rejected: Bools,
    anomalous: Bools,
    masks: Segmented | None,
) -> dict[str, float | None]:
    """Figures of pictures that the scorers did not see; `pixel_auroc` with masks."""
    counts = confusion(rejected, anomalous)
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


def _golden(
    data: Gathered, fitted: Fitted, runner: FeatureExtractor
) -> tuple[dict[str, Image], dict[str, float]]:
    """Some pictures and the scores that the graph gives them.

    Pictures from the middle of each class: one near the threshold could flip on an engine that
    is as good as the trainer's. Raises ModelError if graph and numpy disagree.
    """
    step = COPIES + 1
    raw, _ = fitted.scorers.score(data.local[::step], data.whole[::step], data.view)
    expected = fitted.calibration.apply(list(raw.values()))
    images: dict[str, Image] = {}
    scores: dict[str, float] = {}
    for label, word in ((False, "normal"), (True, "anomaly")):
        for number, index in enumerate(_typical(expected, data.anomalous == label)):
            file = f"{word}-{number}.png"
            images[file] = resized(_picture(data, index), data.view.size)
            scores[file] = float(runner.run(images[file][None])[0][0])
            if not abs(scores[file] - expected[index]) <= AGREEMENT:
                raise ModelError(
                    f"The written graph scores {data.samples[index].path} {scores[file]:.4f} "
                    f"where training saw {expected[index]:.4f}: this runtime does not compute "
                    "the graph correctly; nothing was written."
                )
    return images, scores


def _picture(data: Gathered, index: int) -> Image:
    sample = data.samples[index]
    return imaging.read_for(sample.path, data.view.size, sample.opener).image


def _typical(scores: npt.NDArray[np.float64], chosen: Bools) -> list[int]:
    """Up to GOLDEN_EACH samples around the middle of their class, spread."""
    places = np.flatnonzero(chosen)
    order = places[np.argsort(scores[places], kind="stable")]
    quartiles = [(len(order) - 1) * q // 4 for q in range(1, GOLDEN_EACH + 1)]
    return [int(order[q]) for q in sorted(set(quartiles))] if len(order) else []


def _mixed(sizes: set[tuple[int, int]]) -> str:
    shown = ", ".join(f"{w}x{h}" for h, w in sorted(sizes)[:4])
    more = ", ..." if len(sizes) > 4 else ""
    return (
        f"The pictures have {len(sizes)} different sizes ({shown}{more}): the model will take any "
        "size, so a wrong camera setting cannot be noticed by it."
    )
