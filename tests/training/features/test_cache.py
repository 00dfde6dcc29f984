"""Features kept on disk: a training that was cut off goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.core.types import Image
from edged.training.data.dataset import read_dataset
from edged.training.features.cache import FeatureCache
from edged.training.fit import train
from tests.training.features.test_backbone import PlainRuntime
from tests.training.test_training import SIDE, part, quiet, write_set


class Counting(PlainRuntime):
    """Counts how many pictures the network ran on."""

    pictures = 0

    def run(self, images: Image) -> Any:
        Counting.pictures += len(images)
        return super().run(images)


class Cut(Exception):
    """What ends a training in its middle."""


def cut_at(done_at: int) -> Any:
    def progress(stage: str, done: int, total: int, **facts: object) -> None:
        if stage == "features" and done == done_at:
            raise Cut

    return progress


def fit(root: Path, output: Path, cache: Path | None, progress: Any = quiet) -> dict[str, Any]:
    Counting.pictures = 0
    return train(
        read_dataset(root), output, name="plate", seed=0, extractor=Counting, progress=progress,
        side=SIDE, cache=cache,
    )  # fmt: skip


def test_a_training_that_was_cut_off_goes_on_and_ends_in_the_same_model(tmp_path: Path) -> None:
    root, cache = write_set(tmp_path / "set", 12, 10), tmp_path / "cache"
    whole = fit(root, tmp_path / "whole", None)
    needed = Counting.pictures
    with pytest.raises(Cut):
        fit(root, tmp_path / "model", cache, cut_at(20))
    assert not (tmp_path / "model").exists()
    resumed = fit(root, tmp_path / "model", cache)
    assert needed - Counting.pictures == 2 * 20  # of each picture itself and its copy
    assert resumed["sha256"] == whole["sha256"]
    assert not cache.exists()


def test_what_was_kept_for_other_pictures_or_another_seed_is_not_used(tmp_path: Path) -> None:
    root, cache = write_set(tmp_path / "set", 12, 10), tmp_path / "cache"
    with pytest.raises(Cut):
        fit(root, tmp_path / "model", cache, cut_at(22))
    other = write_set(tmp_path / "other", 12, 10, first=100)
    kept = fit(other, tmp_path / "model", cache)["sha256"]
    assert kept == fit(other, tmp_path / "again", None)["sha256"]


def test_a_damaged_file_counts_as_none(tmp_path: Path) -> None:
    root, cache = write_set(tmp_path / "set", 12, 10), tmp_path / "cache"
    with pytest.raises(Cut):
        fit(root, tmp_path / "model", cache, cut_at(22))
    for number, path in enumerate(sorted(cache.rglob("*.npz"))):
        data = bytearray(path.read_bytes())
        data[len(data) // 2 :] = b"" if number % 2 else bytes(len(data) - len(data) // 2)
        path.write_bytes(bytes(data))
    sha256 = fit(root, tmp_path / "model", cache)["sha256"]
    assert sha256 == fit(root, tmp_path / "again", None)["sha256"]


def test_a_place_that_cannot_be_written_costs_the_cache_and_not_the_training(
    tmp_path: Path,
) -> None:
    root = write_set(tmp_path / "set", 12, 0)
    (tmp_path / "file").write_text("in the way")
    report = fit(root, tmp_path / "model", tmp_path / "file" / "cache")
    assert any("Features could not be kept on disk" in words for words in report["warnings"])
    assert (tmp_path / "model" / "model.onnx").is_file()


def test_removing_leaves_what_is_not_the_cache_s(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "cache")
    cache.keep("k", (np.zeros((2, 3, 4), np.float16), np.ones((2, 5), np.float32)))
    found = cache.find("k")
    assert found is not None and found[0].shape == (2, 3, 4) and found[1].sum() == 10
    (tmp_path / "cache" / "somebody-else.txt").write_text("mine")
    cache.remove()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["somebody-else.txt"]


def test_pictures_beyond_memory_are_judged_by_the_model_and_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edged.training.features import gather

    monkeypatch.setattr(gather, "BUDGET", 1)  # leaves the least, 16 of a class
    root = write_set(tmp_path / "set", 30, 12)
    (root / "normal" / "000-copy.png").write_bytes((root / "normal" / "000.png").read_bytes())
    (root / "normal" / "zzz.png").write_bytes(b"no picture")
    report = fit(root, tmp_path / "model", None)
    assert (report["normal"], report["anomaly"], report["images"]) == (30, 12, 42)
    spec = json.loads((tmp_path / "model" / "spec.json").read_text())
    assert len(spec["out_of_fold"]["normal"]) == 30
    assert len(spec["out_of_fold"]["anomaly"]) == 12
    assert [Path(s["path"]).name for s in report["skipped"]] == ["zzz.png"]
    assert any("exact copies" in words for words in report["warnings"])


def test_a_picture_under_the_wrong_label_is_named(tmp_path: Path) -> None:
    from edged.wire import imaging

    root = write_set(tmp_path / "set", 24, 14)
    imaging.write_png(root / "normal" / "wrong.png", part(5000, spoilt=True))
    imaging.write_png(root / "anomaly" / "blot" / "fine.png", part(6000, spoilt=False))
    report = fit(root, tmp_path / "model", None)
    said = [words for words in report["warnings"] if "plainly not" in words]
    assert any("wrong.png" in words and "Labelled normal" in words for words in said)
    assert any("fine.png" in words and "Labelled anomalous" in words for words in said)
    assert not any(f"{number:03}.png" in words for words in said for number in range(24))
