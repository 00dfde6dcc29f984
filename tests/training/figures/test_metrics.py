from __future__ import annotations

import numpy as np
import pytest

from edged.training.figures.calibration import THRESHOLD, calibrate, f1_limit, unit_of, upper_limit
from edged.training.figures.metrics import PixelAuroc, auroc, average_precision, confusion


def judged(scores, labels):
    return auroc(np.array(scores, float), np.array(labels, bool))


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([1, 2, 3, 4], [0, 0, 1, 1], 1.0),
        ([4, 3, 2, 1], [0, 0, 1, 1], 0.0),
        ([1, 3, 2, 4], [0, 0, 1, 1], 0.75),
        ([5, 5, 5, 5], [0, 1, 0, 1], 0.5),
        ([1, 2, 2, 3], [0, 0, 1, 1], 0.875),
        ([1, 1, 1], [1, 1, 1], None),
        ([1, 1], [0, 0], None),
        ([], [], None),
    ],
)
def test_auroc_of_cases_done_by_hand(scores, labels, expected):
    assert judged(scores, labels) == expected


def test_auroc_equals_counting_pairs_with_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 9, 200).astype(float), rng.random(200) < 0.3
    pairs = np.sign(scores[labels][:, None] - scores[~labels][None, :])
    assert judged(scores, labels) == pytest.approx(((pairs + 1) / 2).mean())


def test_auroc_refuses_scores_that_are_no_numbers():
    with pytest.raises(ValueError, match="not finite"):
        judged([1.0, float("nan")], [0, 1])


def test_rates_of_a_confusion_done_by_hand():
    decisions = np.array([1, 1, 1, 0, 0, 0, 0], bool)
    labels = np.array([1, 1, 0, 1, 0, 0, 0], bool)
    counts = confusion(decisions, labels)
    assert counts.precision == counts.recall == counts.f1 == pytest.approx(2 / 3)
    assert counts.false_reject_rate == 1 / 4
    assert counts.escape_rate == pytest.approx(1 / 3)


def test_rates_without_meaning_are_none():
    only_good = confusion(np.array([False]), np.array([False]))
    assert only_good.precision is only_good.recall is only_good.f1 is only_good.escape_rate is None
    assert only_good.false_reject_rate == 0.0
    missed = confusion(np.array([False]), np.array([True]))
    assert (missed.precision, missed.recall, missed.f1) == (None, 0.0, 0.0)
    assert missed.false_reject_rate is None


def test_pixel_auroc_in_parts_equals_auroc_of_the_whole():
    rng = np.random.default_rng(1)
    maps = rng.gamma(2.0, 0.4, (3, 20, 30))
    masks = rng.random(maps.shape) < maps / maps.max()
    counted = PixelAuroc()
    assert counted.value is None
    for values, mask in zip(maps, masks, strict=True):
        counted.add(values, mask)
    assert counted.value == pytest.approx(judged(maps.ravel(), masks.ravel()), abs=1e-3)


def test_pixel_auroc_refuses_a_mask_of_another_size():
    with pytest.raises(ValueError, match="differ in size"):
        PixelAuroc().add(np.zeros((2, 2)), np.zeros((2, 3), bool))


def test_the_limit_of_separated_classes_lies_well_inside_the_gap():
    rng = np.random.default_rng(2)
    normal, anomalous = rng.normal(0, 1, 60), rng.normal(20, 1, 15)
    limit = f1_limit(normal, anomalous)
    assert normal.max() + 3 < limit < anomalous.min() - 3


def test_the_limit_of_overlapping_classes_has_nearly_the_best_f1():
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(0, 1, 300), rng.normal(2, 1, 100)])
    labels = np.arange(400) >= 300
    best = max(confusion(scores >= t, labels).f1 for t in scores)
    limit = f1_limit(scores[~labels], scores[labels])
    assert confusion(scores >= limit, labels).f1 > best - 0.03


def test_one_odd_normal_part_does_not_set_the_limit():
    scores = np.random.default_rng(4).normal(0, 1, 60)
    with_odd = np.append(scores, 50.0)
    assert upper_limit(with_odd) == pytest.approx(upper_limit(scores), abs=0.5)
    assert unit_of(np.append(scores, 9.0)).deviation < 1.5


def test_calibrated_scores_are_ordered_and_the_threshold_divides_them():
    rng = np.random.default_rng(5)
    anomalous = np.arange(80) >= 60
    raw = [rng.normal(10, 2, 80) + 30 * anomalous, rng.normal(-3, 0.1, 80) + anomalous]
    calibration = calibrate(raw, anomalous, (1, 1), guarded=0)
    scores = calibration.apply(raw)
    assert ((scores > 0) & (scores < 1)).all()
    assert np.array_equal(scores >= THRESHOLD, anomalous)
    assert np.median(scores[~anomalous]) == pytest.approx(0.05, abs=0.01)


def test_a_guarded_scorer_rejects_alone_what_is_stranger_than_any_normal_part():
    rng = np.random.default_rng(6)
    anomalous = np.arange(80) >= 60
    strangeness = rng.normal(10, 2, 80)
    supervised = np.where(anomalous, 5.0, -5.0) + rng.normal(0, 1, 80)
    impostor = [np.array([80.0]), np.array([-40.0])]
    trusting = calibrate([strangeness, supervised], anomalous, (1, 1), guarded=0)
    assert trusting.apply(impostor) < THRESHOLD
    guarded = calibrate([strangeness, supervised], anomalous, (1, 1), guarded=1)
    assert guarded.apply(impostor) > THRESHOLD
    seen = [strangeness, supervised]
    assert np.array_equal(guarded.apply(seen) >= THRESHOLD, trusting.apply(seen) >= THRESHOLD)


def test_equal_scores_of_all_normal_parts_still_calibrate():
    calibration = calibrate([np.full(4, 2.0)], np.zeros(4, bool), (1,), guarded=0)
    low, high = calibration.apply([np.array([2.0, 4.0])])
    assert low < THRESHOLD < high


def test_average_precision_is_the_mean_precision_at_each_hit():
    labels = np.array([1, 0, 1, 0], bool)
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.1]), labels) == pytest.approx(
        (1 / 1 + 2 / 3) / 2
    )
    tied = average_precision(np.full(4, 0.5), labels)
    assert tied == pytest.approx(0.5), "ties are taken together"
    assert average_precision(np.array([0.1]), np.array([False])) is None
