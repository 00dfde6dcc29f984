"""Which scorers judge, and with what weight: by what each does on pictures it did not see.

Owns the folds and everything that is decided from out-of-fold scores, except the numbers of the
calibration itself (figures/calibration.py).

Decision: weights are fixed (ensemble.WEIGHTS) and evidence only says who takes part. While
exploring, over ten sets, weights fitted by cross-validation were worse than fixed ones (mean
AUROC 0.944 against 0.950), and so was taking the best single scorer (0.938): a few dozen pictures
cannot tell such differences from chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.protocols import Progress
from edged.core.types import Floats
from edged.training.features.gather import COPIES, Gathered
from edged.training.figures.calibration import calibrate, fuse, unit_of
from edged.training.figures.metrics import auroc
from edged.training.scorers.ensemble import (
    BANK,
    MAPS,
    MARKED,
    SUPERVISED,
    UNSUPERVISED,
    WEIGHTS,
    Bools,
    Ensemble,
    ScorerChoice,
    fit_ensemble,
)

FOLDS = 5
LEAST_ANOMALIES = 10
"""Labelled anomalies from which on the supervised scorer may take part."""
LAG = 0.05
"""Out-of-fold AUROC that it may lag the others; further below it stays out."""

PLAIN = 0.1
"""How near to 0 or 1 a score says its word plainly."""

Raw: TypeAlias = Mapping[str, Floats]
"""Raw scores (n,) by scorer, in the ensemble's order."""
Folds: TypeAlias = npt.NDArray[np.int64]


def assign_folds(anomalous: Bools, seed: int) -> Folds:
    """The fold of each sample; both classes spread evenly."""
    count = min(FOLDS, int((~anomalous).sum()))
    folds = np.empty(len(anomalous), np.int64)
    for label in (False, True):
        places = np.flatnonzero(anomalous == label)
        order = np.random.default_rng([seed, 4, int(label)]).permutation(len(places))
        folds[places[order]] = np.arange(len(places)) % count
    return folds


def fit(data: Gathered, rows: Bools, wanted: ScorerChoice) -> Ensemble:
    """Fit the scorers to the chosen rows (a sample's copies are its next rows)."""
    anomalous = np.repeat(data.anomalous, COPIES + 1)
    normal = data.local[rows & ~anomalous]
    return fit_ensemble(data.view, normal, data.whole[rows], anomalous[rows], wanted)


def out_of_fold(
    data: Gathered, drawn: str, wanted: ScorerChoice, folds: Folds, progress: Progress
) -> tuple[dict[str, Floats], Floats]:
    """Raw scores of every sample, and the maps of the normal ones, by scorers blind to them.

    Copies widen what counts as normal, but are not scored: they are rougher than the line is.
    """
    step = COPIES + 1
    raw: dict[str, Floats] = {}
    normal_maps: list[Floats] = []
    count = int(folds.max()) + 1
    for fold in range(count):
        progress("fitting", fold, count)
        held = folds == fold
        ensemble = fit(data, np.repeat(~held, step), wanted)
        places = np.flatnonzero(held) * step
        scores, maps = ensemble.score(data.local[places], data.whole[places], data.view)
        for name, part in scores.items():
            raw.setdefault(name, np.empty(len(folds), np.float32))[held] = part
        normal_maps.append(maps[MAPS.index(drawn)][~data.anomalous[held]])
    progress("fitting", count, count)
    return raw, np.concatenate(normal_maps)


def worth_summing(raw: Raw, anomalous: Bools) -> dict[str, Floats]:
    """The raw scores without those scorers that would only add noise, as labels show.

    With few labels the supervised scorer may know nothing; out-of-fold, that shows. It need not
    be better than the others, only near: in doubt the sum is better than a choice. The bank, which
    planted defects asked for, stays unless real ones say that the sum is worse with it.
    """
    kept = dict(raw)
    if BANK in kept:
        without = {name: raw[name] for name in UNSUPERVISED}
        before = _fused_auroc(without, anomalous)
        after = _fused_auroc({**without, BANK: raw[BANK]}, anomalous)
        if before is not None and after is not None and after < before:
            del kept[BANK]
    if SUPERVISED in kept and lags(kept[SUPERVISED], kept, anomalous):
        del kept[SUPERVISED]
    return kept


def lags(scores: Floats, raw: Raw, anomalous: Bools) -> bool:
    """Whether a scorer is plainly worse, out-of-fold, than the unsupervised ones together."""
    others = {name: each for name, each in raw.items() if name in (*UNSUPERVISED, BANK)}
    known, alone = _fused_auroc(others, anomalous), auroc(scores, anomalous)
    return known is not None and alone is not None and alone < known - LAG


def _fused_auroc(raw: Raw, anomalous: Bools) -> float | None:
    units = [unit_of(each[~anomalous]) for each in raw.values()]
    return auroc(fuse(units, list(raw.values()), [WEIGHTS[name] for name in raw]), anomalous)


def weights(raw: Raw, anomalous: Bools) -> list[float]:
    """Of each scorer; marks that find no defects have none, they only draw."""
    found = {name: WEIGHTS[name] for name in raw}
    if MARKED in raw and lags(raw[MARKED], raw, anomalous):
        found[MARKED] = 0.0
    return list(found.values())


def honest_scores(
    raw: Raw, anomalous: Bools, weighed: list[float], guarded: int, folds: Folds
) -> npt.NDArray[np.float64]:
    """Calibrated scores (n,) whose limits, too, were chosen without the picture's fold.

    What the model's own calibration gives to the pictures that it was chosen on is a little too
    good; the figures of a training are counted on these.
    """
    values = list(raw.values())
    result = np.empty(len(folds), np.float64)
    for fold in range(int(folds.max()) + 1):
        held = folds == fold
        seen = [each[~held] for each in values]
        blind = calibrate(seen, anomalous[~held], weighed, guarded)
        result[held] = blind.apply([each[held] for each in values])
    return result


def table(raw: Raw, weighed: list[float], anomalous: Bools) -> list[dict[str, Any]]:
    """What each scorer would do alone, out-of-fold; AUROC None without anomalies."""
    rows = zip(raw.items(), weighed, strict=True)
    return [{"name": n, "weight": w, "auroc": auroc(each, anomalous)} for (n, each), w in rows]


def doubtful(
    scores: npt.NDArray[np.float64], anomalous: Bools, names: list[str]
) -> dict[str, list[str]]:
    """Pictures whose label and whose score say plainly different things, worst first, by label.

    A wrong label is the commonest fault of a data set; nothing is done about these but to say so.
    """
    plainly = (scores >= 1 - PLAIN, scores <= PLAIN)
    return {
        word: [names[i] for i in np.argsort(sign * scores, kind="stable") if odd[i] and label[i]]
        for word, label, odd, sign in (
            ("normal", ~anomalous, plainly[0], -1.0),
            ("anomalous", anomalous, plainly[1], 1.0),
        )
    }
