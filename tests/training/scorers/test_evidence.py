"""What the choice of input size and map rests on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edged.engines import choose as engines
from edged.training.data.planted import planted
from edged.training.data.samples import Dataset, Sample
from edged.training.features.backbone import EfficientNetLite0
from edged.training.features.view import input_size
from edged.training.scorers.distances import fit_pooled
from edged.training.scorers.evidence import LEAST_PICTURES, MARGIN, choose
from edged.wire import imaging

NETWORK = EfficientNetLite0()


def quiet(stage: str, done: int, total: int, **facts: object) -> None:
    """Progress that nobody looks at."""


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((480, 640), (224, 288)),
        ((1260, 500), (416, 160)),
        ((512, 512), (256, 256)),
        ((4000, 100), (448, 160)),  # squeezed to 3:1
    ],
)
def test_the_input_has_the_shape_of_the_pictures_and_the_area_asked_for(
    shape: tuple[int, int], size: tuple[int, int]
) -> None:
    assert input_size(256, [shape], NETWORK) == size
    assert 0.8 < size[0] * size[1] / 256**2 < 1.2


def test_a_planted_defect_is_small_and_where_its_mask_says() -> None:
    rng = np.random.default_rng(3)
    part = rng.integers(90, 110, (240, 320, 3)).astype(np.uint8)
    other = rng.integers(140, 160, (200, 300, 3)).astype(np.uint8)
    seen = 0
    for _ in range(60):
        result, mask = planted(part, other, rng)
        assert result.shape == part.shape and mask.shape == part.shape[:2]
        assert 0 < mask.mean() < 0.06
        changed = np.abs(result.astype(int) - part).max(axis=2) > 12
        assert not (changed & ~mask).any(), "what changes much is in the mask"
        seen += changed.any()
    assert seen > 30


def plates(folder: Path, count: int, moved: bool) -> Dataset:
    """Plates with a dark ring, all in one place or each somewhere else."""
    y, x = np.mgrid[0:96, 0:128]
    samples = []
    for number in range(count):
        rng = np.random.default_rng(number)
        place = rng.uniform(30, 66, 2) if moved else (48.0, 64.0)
        ring = abs(np.hypot(y - place[0], x - place[1]) - 20) < 3
        image = 150 - 90 * ring[..., None] + rng.normal(0, 3, (96, 128, 3))
        path = folder / f"{number}.png"
        imaging.write_png(path, np.clip(image, 0, 255).astype(np.uint8))
        samples.append(Sample(path, is_anomalous=False))
    return Dataset(tuple(samples), "folders")


def test_a_larger_input_must_earn_its_cost_and_the_trials_are_kept(tmp_path: Path) -> None:
    choice = choose(plates(tmp_path, 12, moved=False), NETWORK, None, 0, engines.extractor, quiet)
    sides = [trial.side for trial in choice.trials]
    assert sides in ([256, 320], [256, 320, 384])
    first, *others = choice.trials
    if all(trial.auroc <= first.auroc + MARGIN for trial in others):
        assert choice.size == first.size == (224, 288)
    row = first.as_row()
    assert row["planted_pixel_auroc"].keys() == {"position_gaussian", "pooled_gaussian"}
    assert all(0.0 <= value <= 1.0 for value in row["planted_pixel_auroc"].values())


def test_parts_that_lie_alike_are_mapped_by_position_and_others_are_not(tmp_path: Path) -> None:
    for moved, name in ((False, "position_gaussian"), (True, "pooled_gaussian")):
        folder = tmp_path / str(moved)
        folder.mkdir()
        choice = choose(plates(folder, 24, moved), NETWORK, 128, 0, engines.extractor, quiet)
        assert choice.map == name


def test_too_few_pictures_give_the_smallest_input_and_no_trial(tmp_path: Path) -> None:
    dataset = plates(tmp_path, LEAST_PICTURES - 1, moved=False)
    choice = choose(dataset, NETWORK, None, 0, engines.extractor, quiet)
    assert choice.trials == ()
    assert choice.size == (224, 288)


def test_the_pooled_scorer_is_the_mahalanobis_distance_of_all_positions() -> None:
    rng = np.random.default_rng(1)
    local = (rng.normal(size=(40, 50, 5)) * [1, 2, 3, 4, 5] + 7).astype(np.float32)
    distances = fit_pooled(local).distances(local)
    assert distances.shape == (40, 50)
    expected = np.sqrt((((local - 7) / [1, 2, 3, 4, 5]) ** 2).sum(axis=2))
    assert distances == pytest.approx(expected, rel=0.1)
