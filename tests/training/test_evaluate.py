from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edged.core.errors import BadDataset, BadImage
from edged.core.types import DefectClass, Verdict
from edged.training.data.samples import Dataset, Sample
from edged.training.evaluate import evaluate, figures, mask_pixels, tally
from edged.wire import imaging


def quiet(stage: str, done: int, total: int, **facts: object) -> None:
    """Progress that nobody looks at."""


def picture(path, level: int):
    image = np.full((16, 24, 3), level, np.uint8)
    image[4:8, 12:18] = 255 - level
    imaging.write_png(path, image)
    return path


def brightness(picture: imaging.Decoded) -> Verdict:
    """A judge that finds bright pictures anomalous, and draws where they are bright."""
    image = picture.image
    score = float(image[0, 0, 0]) / 255
    heatmap = image[::2, ::2, 0].astype(np.float32) / 255
    return Verdict(score >= 0.5, 0.9, score, 0.5, heatmap=heatmap)


def test_counts_and_rates_of_a_set_done_by_hand(tmp_path):
    levels = [(10, False), (40, False), (200, False), (90, True), (210, True), (240, True)]
    samples = tuple(
        Sample(picture(tmp_path / f"{level}.png", level), label) for level, label in levels
    )
    result = evaluate(Dataset(samples, "test"), brightness, quiet)
    assert (result["images"], result["normal"], result["anomaly"]) == (6, 3, 3)
    assert result["auroc"] == pytest.approx(8 / 9)
    assert result["precision"] == result["recall"] == result["f1"] == pytest.approx(2 / 3)
    assert result["false_reject_rate"] == result["escape_rate"] == pytest.approx(1 / 3)
    assert result["threshold"] == 0.5
    assert [result[k] for k in ("true_positives", "false_positives")] == [2, 1]
    assert [result[k] for k in ("true_negatives", "false_negatives")] == [2, 1]
    assert "pixel_auroc" not in result


def test_without_anomalies_the_auroc_is_none(tmp_path):
    sample = Sample(picture(tmp_path / "a.png", 20), False)
    result = evaluate(Dataset((sample,), "test"), brightness, quiet)
    assert result["auroc"] is result["recall"] is result["escape_rate"] is None
    assert result["false_reject_rate"] == 0.0


def test_pixels_are_judged_where_there_are_masks(tmp_path):
    mask = np.zeros((16, 24), np.uint8)
    mask[4:8, 12:18] = 255
    imaging.write_png(tmp_path / "mask.png", mask)
    dark = picture(tmp_path / "dark.png", 30)  # its bright field is where the mask is
    good = np.full((16, 24, 3), 30, np.uint8)
    imaging.write_png(tmp_path / "good.png", good)
    samples = (
        Sample(dark, True, "spot", tmp_path / "mask.png"),
        Sample(tmp_path / "good.png", False),
    )
    result = evaluate(Dataset(samples, "test"), brightness, quiet)
    assert result["pixel_auroc"] > 0.99
    wrong = (Sample(tmp_path / "good.png", True, "spot", tmp_path / "mask.png"), samples[1])
    assert evaluate(Dataset(wrong, "test"), brightness, quiet)["pixel_auroc"] == 0.5


def test_large_pictures_are_judged_at_the_scale_of_the_input_and_counted_at_their_own(tmp_path):
    mask = np.zeros((480, 640), np.uint8)
    mask[120:240, 320:480] = 255
    imaging.write_png(tmp_path / "mask.png", mask)
    image = np.full((480, 640, 3), 30, np.uint8)
    image[400:440, 40:80] = 225  # no defect, though the judge marks it
    (tmp_path / "good.jpg").write_bytes(imaging.encoded_jpeg(image))
    image[mask > 0] = 225
    (tmp_path / "bad.jpg").write_bytes(imaging.encoded_jpeg(image))
    samples = (
        Sample(tmp_path / "good.jpg", False),
        Sample(tmp_path / "bad.jpg", True, "spot", tmp_path / "mask.png"),
    )
    seen = []

    def judge(picture: imaging.Decoded) -> Verdict:
        seen.append((picture.image.shape[:2], picture.shape))
        marked = np.asarray(cv2.resize(picture.image[..., 0], (640, 480)) > 128, np.uint8)
        return replace(brightness(picture), mask=marked)

    classes = (DefectClass("spot", "#FFFFFF"),)
    found = tally(Dataset(samples, "test"), judge, quiet, classes, size=(60, 80))
    assert seen == [((120, 160), (480, 640))] * 2
    assert figures(found)["pixel_auroc"] > 0.99
    both, marked, there = found.classes["spot"]
    assert there == 120 * 160 and both > 0.95 * there
    assert marked - both == pytest.approx(2 * 40 * 40, rel=0.2), "in the good part, too"
    seen.clear()
    tally(Dataset(samples, "test"), judge, quiet)
    assert seen == [((480, 640), (480, 640))] * 2


def test_unreadable_and_refused_pictures_are_named_and_unlabeled_ones_counted(tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    samples = (
        Sample(picture(tmp_path / "a.png", 20), False),
        Sample(picture(tmp_path / "b.png", 250), True),
        Sample(broken, False),
        Sample(tmp_path / "gone.png", True),
        Sample(tmp_path / "loose.png", None),
    )

    def judge(picture: imaging.Decoded) -> Verdict:
        if picture.image[0, 0, 0] == 250:
            raise BadImage("b.png: too bright")
        return brightness(picture)

    result = evaluate(Dataset(samples, "test"), judge, quiet)
    assert [s["path"].rpartition("/")[2] for s in result["skipped"]] == [
        "b.png",
        "broken.png",
        "gone.png",
    ]
    assert (result["images"], result["unlabeled"]) == (1, 1)


def test_an_unreadable_mask_is_named_and_the_picture_still_counts(tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no picture")
    sample = Sample(picture(tmp_path / "a.png", 250), True, "x", tmp_path / "mask.png")
    result = evaluate(Dataset((sample,), "test"), brightness, quiet)
    assert result["images"] == 1
    assert "mask.png" in result["warnings"][0]


def test_nothing_to_judge_is_refused(tmp_path):
    with pytest.raises(BadDataset, match="no labelled pictures"):
        evaluate(Dataset((Sample(tmp_path / "a.png", None),), "test"), brightness, quiet)
    with pytest.raises(BadDataset, match="can be read or judged"):
        evaluate(Dataset((Sample(tmp_path / "a.png", True),), "test"), brightness, quiet)


def test_masks_with_colours_count_these_colours_only(tmp_path):
    mask = np.full((2, 3, 3), 255, np.uint8)
    mask[0, 0] = (0x2C, 0xA0, 0x2D)  # BGR of #2DA02C
    mask[1, 1] = 0
    imaging.write_png(tmp_path / "m.png", mask)
    coloured = mask_pixels(Sample(tmp_path / "a.png", True, None, tmp_path / "m.png", ("#2DA02C",)))
    assert coloured.tolist() == [[True, False, False], [False, False, False]]
    blank = mask_pixels(Sample(tmp_path / "a.png", True, None, tmp_path / "m.png", ()))
    assert not blank.any()
    plain = mask_pixels(Sample(tmp_path / "a.png", True, None, tmp_path / "m.png"))
    assert plain.sum() == 5


def test_maps_are_enlarged_linearly_between_centres():
    grown = imaging.enlarged(np.array([[0.0, 4.0]], np.float32), 2, 4)
    np.testing.assert_allclose(grown, [[0, 1, 3, 4], [0, 1, 3, 4]])
    np.testing.assert_allclose(imaging.enlarged(np.ones((3, 5), np.float32), 7, 11), 1.0)
