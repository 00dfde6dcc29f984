"""What the choice of input size and map rests on: defects planted into good parts.

A trial tells held-out good parts from the same parts with a planted defect.

Decision: sizes are tried from small to large while they gain, and a larger one must earn its
cost (1.6 and 2.3 times the time of 256): it is taken only when it is better by more than MARGIN.
Planted defects are no real ones; differences below that margin did not predict which size is
better on real cracks. The map is drawn by whichever scorer finds the planted defects' pixels
better: by position where parts lie alike, pooled where they do not. Both choices came out right
on the two real sets at hand (commutators: by position; cookies: pooled).

Decision: the memory bank takes part where planted defects say that it adds BANK_MARGIN. Measured
on commutators, real cracks: as they lie, planted -0.002 and real -0.011 (0.939 to 0.928); turned
at random, planted +0.016 and real +0.025 (0.817 to 0.841).

Decision: no tiles. The default network is convolutional, so overlapping tiles of a picture compute
what one larger input computes, without seams and without the overlap done twice; larger inputs are
had by `side`. They are not tried by themselves: at 512 and 640 on commutators of 500 x 1260 with
cracks a few pixels wide, planted defects gain (AUROC 0.71 to 0.78 and 0.81) while real cracks lose
(0.939 to 0.920 and 0.899): planted ones are too clean to decide about that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.errors import BadImage
from edged.core.protocols import FeatureExtractorLoader, Progress
from edged.core.types import Floats, Image
from edged.training.data.planted import planted
from edged.training.data.samples import Dataset
from edged.training.features import view as features
from edged.training.features.gather import resized
from edged.training.features.network import Network, Size
from edged.training.features.view import View
from edged.training.figures.calibration import unit_of
from edged.training.figures.metrics import auroc
from edged.training.scorers.ensemble import (
    BANK,
    MAPS,
    UNSUPERVISED,
    WEIGHTS,
    Bools,
    Halves,
    ScorerChoice,
    fit_ensemble,
)
from edged.wire import imaging

SIDES = (256, 320, 384)
MARGIN = 0.06
PICTURES = 40
LARGEST = 1024
LEAST_PICTURES = 8
FOLDS = 2
TOGETHER, WITH_BANK = "together", "together_with_bank"
BANK_MARGIN = 0.01
"""What the memory bank must add to the others' AUROC to take part: see the decision below."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One input size: AUROC of each scorer and fusion, and by pixel for each of MAPS."""

    side: int
    size: Size
    scorers: dict[str, float]
    pixel_auroc: tuple[float, ...]

    @property
    def auroc(self) -> float:
        """Of the scorers that are always there, together."""
        return self.scorers[TOGETHER]

    def as_row(self) -> dict[str, Any]:
        """For spec.json."""
        pixels = {name: round(v, 4) for name, v in zip(MAPS, self.pixel_auroc, strict=True)}
        height, width = self.size
        row = {"side": self.side, "height": height, "width": width}
        scorers = {name: round(v, 4) for name, v in self.scorers.items()}
        return {**row, "planted_auroc": scorers, "planted_pixel_auroc": pixels}


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen and the trials that it rests on; none with too few pictures."""

    size: Size
    map: str
    trials: tuple[Trial, ...]
    bank: bool = False
    """Whether the memory bank takes part."""


def choose(
    dataset: Dataset,
    network: Network,
    side: int | None,
    seed: int,
    load: FeatureExtractorLoader,
    progress: Progress,
) -> Choice:
    """Choose input size (unless `side` names it) and map from some of the normal pictures."""
    pictures = _some_normal(dataset, seed)
    sides = SIDES if side is None and network.fixed is None else (side or SIDES[0],)
    if not pictures:
        square = (sides[0], sides[0])
        return Choice(network.fixed or square, MAPS[0], ())
    shapes = [(image.shape[0], image.shape[1]) for image in pictures]
    first = features.input_size(sides[0], shapes, network)
    if len(pictures) < LEAST_PICTURES:
        return Choice(first, MAPS[0], ())
    rng = np.random.default_rng([seed, 5])
    defects = [planted(image, pictures[rng.integers(len(pictures))], rng) for image in pictures]
    trials = []
    for done, tried in enumerate(sides):
        progress("choosing", done, len(sides))
        size = features.input_size(tried, shapes, network)
        trials.append(_trial(tried, View(network, size), pictures, defects, load, seed))
        if len(trials) > 1 and trials[-1].auroc < trials[-2].auroc + MARGIN / 3:
            break  # a still larger one would hardly earn twice as much
    progress("choosing", len(sides), len(sides))
    chosen = trials[0]
    for trial in trials[1:]:
        if trial.auroc > chosen.auroc + MARGIN:
            chosen = trial
    where = MAPS[int(np.argmax(chosen.pixel_auroc))]
    bank = chosen.scorers[WITH_BANK] > chosen.auroc + BANK_MARGIN
    return Choice(chosen.size, where, tuple(trials), bank)


def _some_normal(dataset: Dataset, seed: int) -> list[Image]:
    normal = dataset.normal
    order = np.random.default_rng([seed, 6]).permutation(len(normal))
    pictures: list[Image] = []
    for index in order[: 2 * PICTURES]:
        if len(pictures) == PICTURES:
            break
        try:
            pictures.append(_small(imaging.read(normal[index].path, normal[index].opener)))
        except BadImage:
            continue  # named when all pictures are described
    return pictures


def _small(image: Image) -> Image:
    """At most LARGEST pixels a side: forty pictures of a large camera would fill the memory."""
    height, width = image.shape[:2]
    scale = min(1.0, LARGEST / max(height, width))
    if scale == 1.0:
        return image
    return resized(image, (max(1, round(height * scale)), max(1, round(width * scale))))


def _trial(
    side: int,
    view: View,
    pictures: list[Image],
    defects: list[tuple[Image, Bools]],
    load: FeatureExtractorLoader,
    seed: int,
) -> Trial:
    extractor = load(features.feature_graph(view))
    try:
        good = [extractor.run(resized(image, view.size)[None]) for image in pictures]
        bad = [extractor.run(resized(image, view.size)[None]) for image, _ in defects]
    finally:
        extractor.close()
    fit = features.ProjectionFit(view)
    for local, _ in good:
        fit.add(features.positions_first(local))
    projection = fit.solve()
    locals_ = _locals(good, projection), _locals(bad, projection)
    whole = tuple(np.concatenate([w for _, w in each]) for each in (good, bad))
    masks = np.stack([_on_grid(mask, view.grid) for _, mask in defects])
    folds = np.arange(len(pictures)) % FOLDS
    scores: list[list[dict[str, Floats]]] = [[], []]
    found: list[list[Floats]] = [[] for _ in MAPS]
    order = np.concatenate([np.flatnonzero(folds == fold) for fold in range(FOLDS)])
    for fold in range(FOLDS):
        seen, held = folds != fold, folds == fold
        none = np.zeros(int(seen.sum()), np.bool_)
        wanted = ScorerChoice(bank=True, supervised=False, seed=seed)
        ensemble = fit_ensemble(view, locals_[0][seen], whole[0][seen], none, wanted)
        for kind in (0, 1):
            raw, maps = ensemble.score(locals_[kind][held], whole[kind][held], view)
            scores[kind].append(raw)
        for places, drawn in zip(found, maps, strict=True):
            places.append(drawn)
    truth = masks[order].reshape(-1)
    pixels = tuple(_auroc(np.concatenate(places).reshape(-1), truth) for places in found)
    return Trial(side, view.size, _aurocs(*scores), pixels)


def _aurocs(normal: list[dict[str, Floats]], spoilt: list[dict[str, Floats]]) -> dict[str, float]:
    """AUROC of each scorer alone and of their sums, from each fold's raw scores."""
    labels = np.repeat([False, True], sum(len(next(iter(each.values()))) for each in normal))
    terms: dict[str, npt.NDArray[np.float64]] = {}
    found: dict[str, float] = {}
    for name in normal[0]:
        good, bad = (np.concatenate([each[name] for each in kind]) for kind in (normal, spoilt))
        terms[name] = WEIGHTS[name] * unit_of(good).apply(np.concatenate([good, bad]))
        found[name] = _auroc(terms[name], labels)
    together = np.sum([terms[name] for name in UNSUPERVISED], axis=0)
    found[TOGETHER] = _auroc(together, labels)
    found[WITH_BANK] = _auroc(together + terms[BANK], labels)
    return found


def _locals(described: list[list[Floats]], projection: Floats) -> Halves:
    return np.concatenate(
        [(features.positions_first(d[0]) @ projection).astype(np.float16) for d in described]
    )


def _on_grid(mask: Bools, grid: Size) -> Bools:
    """Which positions of the grid a mask touches."""
    rows = np.arange(mask.shape[0]) * grid[0] // mask.shape[0]
    columns = np.arange(mask.shape[1]) * grid[1] // mask.shape[1]
    touched = np.zeros(grid, np.bool_)
    y, x = np.nonzero(mask)
    touched[rows[y], columns[x]] = True
    return touched


def _auroc(values: npt.NDArray[np.floating], truth: Bools) -> float:
    found = auroc(values, truth)
    return 0.5 if found is None else found
