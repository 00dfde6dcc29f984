"""The page about a model: whole, self-contained, and right about what went wrong."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from edged.core.errors import InvalidInput
from edged.core.types import Verdict
from edged.training.data.samples import Dataset, Sample
from edged.training.evaluate import Tally, tally
from edged.training.report import steadiness, write_report
from edged.wire import imaging


def quiet(stage: str, done: int, total: int, **facts: object) -> None:
    """Progress that nobody looks at."""


def brightness(picture: imaging.Decoded) -> Verdict:
    """A judge that finds bright pictures anomalous."""
    image = picture.image
    score = float(image.mean()) / 255
    heat = image[::4, ::4, 0].astype(np.float32) / 128
    return Verdict(score >= 0.5, max(score, 1 - score), score, 0.5, heatmap=heat)


@pytest.fixture
def found(tmp_path: Path) -> Tally:
    """Six pictures; the good one of level 140 is rejected, the bad one of level 60 passes."""
    samples = []
    for level, bad in (
        (10, False),
        (40, False),
        (140, False),
        (60, True),
        (200, True),
        (250, True),
    ):
        path = tmp_path / f"part-{level}<b>.png"
        imaging.write_png(path, np.full((24, 32, 3), level, np.uint8))
        samples.append(Sample(path, is_anomalous=bad))
    return tally(Dataset(tuple(samples), "folders"), brightness, quiet)


def test_the_page_says_in_words_what_would_happen_on_the_line(tmp_path: Path, found: Tally) -> None:
    page = tmp_path / "report.html"
    write_report(page, "flange <1>", found, brightness)
    text = page.read_text(encoding="utf-8")
    assert "1 of 3 good parts would be rejected (false rejects)" in text
    assert "1 of 3 bad parts would pass (escapes)" in text
    assert "33.3%; the true rate lies between 0.8% and 90.6%" in text
    assert "flange &lt;1&gt;" in text and "<b>.png" not in text
    assert text.count("<svg") == 3


def test_the_page_loads_nothing(tmp_path: Path, found: Tally) -> None:
    page = tmp_path / "report.html"
    write_report(page, "flange", found, brightness)
    text = page.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', text)
    assert sources and all(s.startswith("data:image/jpeg;base64,") for s in sources)
    assert "http" not in text and "<script" not in text
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_wrong_verdicts_come_first(tmp_path: Path, found: Tally) -> None:
    page = tmp_path / "report.html"
    write_report(page, "flange", found, brightness)
    captions = re.findall(r"<figcaption>part-(\d+)[^:]*: (.*?)</figcaption>", page.read_text())
    assert {captions[0][0], captions[1][0]} == {"140", "60"}
    assert all("WRONG" in words for _, words in captions[:2])
    assert not any("WRONG" in words for _, words in captions[2:])


def test_drift_is_measured_under_light_and_shift(found: Tally) -> None:
    drifts = {drift.what: drift for drift in steadiness(found, brightness)}
    assert drifts["10 % darker"].flips == 1, "level 140 is 126 then, and passes"
    assert drifts["10 % darker"].largest == pytest.approx(25 / 255, abs=0.005)
    assert drifts["4 px down"].largest == 0.0


def test_a_page_that_cannot_be_written_is_a_sentence(tmp_path: Path, found: Tally) -> None:
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_report(tmp_path / "missing" / "report.html", "flange", found, brightness)


def test_good_parts_alone_still_make_a_page(tmp_path: Path) -> None:
    imaging.write_png(tmp_path / "a.png", np.full((24, 32, 3), 10, np.uint8))
    dataset = Dataset((Sample(tmp_path / "a.png", is_anomalous=False),), "folders")
    page = tmp_path / "report.html"
    write_report(page, "flange", tally(dataset, brightness, quiet), brightness)
    text = page.read_text(encoding="utf-8")
    assert "nothing is known of how many bad parts would pass" in text
    assert "Curves need good and bad parts" in text
