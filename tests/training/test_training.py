from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edged.core.errors import BadDataset, EngineError, InvalidInput, ModelError
from edged.training.data.dataset import read_dataset
from edged.training.data.samples import Dataset, Sample
from edged.training.features import gather
from edged.training.fit import train
from edged.training.scorers.distances import fit_positions, fit_supervised, fit_whole
from edged.training.scorers.ensemble import UNSUPERVISED
from edged.training.scorers.selection import worth_summing
from edged.wire import imaging
from edged.wire.spec import read_spec
from tests.training.features.test_backbone import PlainRuntime

SIDE = 64


def quiet(stage: str, done: int, total: int, **facts: object) -> None:
    """Progress that nobody looks at."""


def part(seed: int, spoilt: bool) -> np.ndarray:
    """A grey plate with a bright ring; spoilt ones have a dark blot somewhere on it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    distance = np.hypot(y - SIDE / 2, x - SIDE / 2)
    plate = 110 + 60 * np.exp(-(((distance - 18) / 5) ** 2))
    if spoilt:
        angle = rng.uniform(0, 2 * np.pi)
        at = SIDE / 2 + 18 * np.array([np.sin(angle), np.cos(angle)])
        plate = plate - 110 * np.exp(-(((y - at[0]) ** 2 + (x - at[1]) ** 2) / 40))
    noisy = plate[..., None] + rng.normal(0, 4, (SIDE, SIDE, 3))
    return np.clip(noisy, 0, 255).astype(np.uint8)


def write_set(root: Path, normal: int, anomalous: int, first: int = 0) -> Path:
    for kind, count in (("normal", normal), ("anomaly/blot", anomalous)):
        (root / kind).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            image = part(first + index + 1000 * (kind != "normal"), kind != "normal")
            imaging.write_png(root / kind / f"{index:03}.png", image)
    return root


def fit(dataset: Dataset, output: Path, seed: int = 3, load=PlainRuntime, side: int = SIDE):
    return train(
        dataset, output, name="plate", seed=seed, extractor=load, progress=quiet, side=side
    )


@pytest.fixture(scope="module")
def plates(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("plates"), 16, 10)


@pytest.fixture(scope="module")
def trained(plates, tmp_path_factory):
    output = tmp_path_factory.mktemp("models") / "plate"
    report = fit(read_dataset(plates), output)
    return output, report


@pytest.fixture(scope="module")
def runtime(trained):
    running = PlainRuntime((trained[0] / "model.onnx").read_bytes())
    yield running
    running.close()


def test_the_folder_reads_back_and_the_report_counts(trained):
    output, report = trained
    spec = read_spec(output)
    assert (spec.height, spec.width, spec.threshold) == (SIDE, SIDE, 0.5)
    assert spec.image_size == (SIDE, SIDE)
    assert spec.ref.version == "1"
    assert spec.ref.sha256 == report["sha256"]
    assert (report["images"], report["normal"], report["anomaly"]) == (26, 16, 10)
    assert report["auroc"] > 0.95
    assert report["skipped"] == report["warnings"] == []
    written = json.loads((output / "spec.json").read_text())
    assert [s["name"] for s in written["scorers"]] == [
        "position_gaussian",
        "pooled_gaussian",
        "whole_gaussian",
        "supervised",
    ]


def test_new_parts_fall_on_the_right_side_of_the_threshold(runtime):
    fresh = np.stack([part(5000 + i, i % 2 == 1) for i in range(20)])
    scores, _ = runtime.run(fresh)
    wrong = (scores >= 0.5) != (np.arange(20) % 2 == 1)
    assert wrong.sum() <= 1, scores


def test_the_map_is_in_absolute_units_and_points_at_the_defect(runtime):
    good, bad = (runtime.run(part(6000, spoilt)[None])[1][0, 0] for spoilt in (False, True))
    assert good.shape == (SIDE // 8, SIDE // 8)
    assert good.max() < 1.2 < bad.max()
    darkness = part(6000, False).astype(int).sum(-1) - part(6000, True).astype(int).sum(-1)
    y, x = np.unravel_index(darkness.argmax(), darkness.shape)
    row, column = np.unravel_index(bad.argmax(), bad.shape)
    assert max(abs(row - y // 8), abs(column - x // 8)) <= 1


def test_golden_pictures_score_as_written_down(trained, runtime):
    spec = read_spec(trained[0])
    assert len(spec.golden) == 6
    assert {p.name for p in (trained[0] / "golden").iterdir()} == set(spec.golden)
    for name, expected in spec.golden.items():
        image = imaging.read(trained[0] / "golden" / name)
        assert image.shape == (SIDE, SIDE, 3)
        assert float(runtime.run(image[None])[0][0]) == pytest.approx(expected, abs=1e-5)
        assert (expected >= spec.threshold) == name.startswith("anomaly")


def test_a_score_does_not_depend_on_the_rest_of_the_batch(runtime):
    batch = np.stack([part(7000 + i, i == 2) for i in range(4)])
    scores, maps = runtime.run(batch)
    assert (scores.shape, scores.dtype, maps.dtype) == ((4,), np.float32, np.float32)
    for index in range(4):
        score, heat = runtime.run(batch[index : index + 1])
        np.testing.assert_allclose(score[0], scores[index], atol=1e-5)
        np.testing.assert_allclose(heat[0], maps[index], rtol=1e-4, atol=1e-5)


def test_equal_seed_and_pictures_give_equal_files_but_for_the_time_they_took(
    trained, plates, tmp_path
):
    again = tmp_path / "again"
    fit(read_dataset(plates), again)
    for path in sorted(p for p in trained[0].rglob("*") if p.is_file()):
        first, second = path, again / path.relative_to(trained[0])
        if path.name != "spec.json":
            assert first.read_bytes() == second.read_bytes(), path.name
            continue
        specs = [json.loads(each.read_text()) for each in (first, second)]
        assert all(spec.pop("seconds") > 0 for spec in specs)
        assert specs[0] == specs[1]


def test_another_seed_is_written_down_and_gives_another_model(trained, plates, tmp_path):
    fit(read_dataset(plates), tmp_path / "other", seed=4)
    spec = json.loads((tmp_path / "other" / "spec.json").read_text())
    assert spec["seed"] == 4
    assert spec["sha256"] != trained[1]["sha256"]


def test_normal_pictures_alone_suffice_and_few_of_them_are_rejected(tmp_path):
    root = write_set(tmp_path / "set", 12, 0)
    report = fit(read_dataset(root), tmp_path / "model")
    assert report["auroc"] is None
    assert report["metrics"]["false_reject_rate"] <= 0.25
    running = PlainRuntime((tmp_path / "model" / "model.onnx").read_bytes())
    scores, _ = running.run(np.stack([part(8000 + i, i >= 10) for i in range(20)]))
    assert (scores[:10] < 0.5).sum() >= 8
    assert (scores[10:] >= 0.5).sum() >= 8


def test_four_normal_pictures_are_the_fewest(tmp_path):
    fit(read_dataset(write_set(tmp_path / "four", 4, 1)), tmp_path / "model")
    assert read_spec(tmp_path / "model").golden
    with pytest.raises(BadDataset, match="are too few"):
        fit(read_dataset(write_set(tmp_path / "three", 3, 1)), tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_all_anomalous_is_refused_with_what_to_add(tmp_path):
    with pytest.raises(BadDataset, match="all 3 labelled pictures are anomalous"):
        fit(read_dataset(write_set(tmp_path / "set", 0, 3)), tmp_path / "model")


def test_unreadable_pictures_are_named_and_unlabeled_ones_counted(tmp_path):
    root = write_set(tmp_path / "set", 6, 0)
    (root / "normal" / "broken.png").write_bytes(b"no picture")
    found = read_dataset(root)
    loose = tmp_path / "loose.png"
    imaging.write_png(loose, part(1, False))
    dataset = Dataset((*found.samples, Sample(loose, None)), "test")
    report = fit(dataset, tmp_path / "model")
    assert [Path(s["path"]).name for s in report["skipped"]] == ["broken.png"]
    assert "not a readable picture" in report["skipped"][0]["reason"]
    assert any("1 pictures have no label" in w for w in report["warnings"])
    assert report["images"] == 6


def test_too_many_unreadable_pictures_are_too_few_normal_ones(tmp_path):
    root = write_set(tmp_path / "set", 3, 0)
    (root / "normal" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(BadDataset, match="3 readable normal pictures are too few"):
        fit(read_dataset(root), tmp_path / "model")


def test_pictures_of_mixed_sizes_leave_the_size_open_and_warn(tmp_path):
    root = write_set(tmp_path / "set", 5, 0)
    wide = np.repeat(part(99, False), 2, axis=1)
    imaging.write_png(root / "normal" / "wide.png", np.ascontiguousarray(wide))
    report = fit(read_dataset(root), tmp_path / "model")
    assert read_spec(tmp_path / "model").image_size is None
    assert any("2 different sizes" in w for w in report["warnings"])


def test_one_picture_under_both_labels_is_refused(tmp_path):
    root = write_set(tmp_path / "set", 5, 1)
    twin = (root / "normal" / "000.png").read_bytes()
    (root / "anomaly" / "twin.png").write_bytes(twin)
    with pytest.raises(BadDataset, match=r"twin\.png: is the same picture as .*000\.png"):
        fit(read_dataset(root), tmp_path / "model")


def test_more_pictures_than_memory_holds_are_sampled_and_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "BUDGET", 1)  # leaves the least, 16 of a class
    root = write_set(tmp_path / "set", 20, 0)
    report = fit(read_dataset(root), tmp_path / "model")
    assert report["images"] == 20
    assert any("16 of 20 normal pictures were learned from" in w for w in report["warnings"])


def test_a_model_is_replaced_and_anything_else_is_refused_untouched(tmp_path):
    dataset = read_dataset(write_set(tmp_path / "set", 5, 0))
    model, other, file = tmp_path / "model", tmp_path / "other", tmp_path / "file"
    first = fit(dataset, model, seed=1)
    second = fit(dataset, model, seed=2)
    assert read_spec(model).ref.sha256 == second["sha256"] != first["sha256"]
    other.mkdir()
    (other / "letter.txt").write_text("mine")
    file.write_text("mine")
    with pytest.raises(InvalidInput, match="holds files that are no model"):
        fit(dataset, other)
    with pytest.raises(InvalidInput, match="is not a folder"):
        fit(dataset, file)
    assert [p.name for p in other.iterdir()] == ["letter.txt"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "model", "other", "set"]


class _FailsOnModel:
    """Loads the network and fails on the finished model, as a full disk or bad runtime may."""

    def __init__(self) -> None:
        self.loads = 0

    def __call__(self, model: bytes) -> PlainRuntime:
        self.loads += 1
        if self.loads == 2:
            raise EngineError("out of memory")
        return PlainRuntime(model)


def test_nothing_half_written_stays_and_the_old_model_survives_a_failure(tmp_path):
    dataset = read_dataset(write_set(tmp_path / "set", 5, 0))
    with pytest.raises(EngineError):
        fit(dataset, tmp_path / "model", load=_FailsOnModel())
    assert [p.name for p in tmp_path.iterdir()] == ["set"]
    kept = fit(dataset, tmp_path / "model")
    with pytest.raises(EngineError):
        fit(dataset, tmp_path / "model", seed=9, load=_FailsOnModel())
    assert read_spec(tmp_path / "model").ref.sha256 == kept["sha256"]


def test_a_folder_that_cannot_be_written_says_so(tmp_path):
    dataset = read_dataset(write_set(tmp_path / "set", 5, 0))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InvalidInput, match="cannot be written"):
        fit(dataset, tmp_path / "file" / "model")


class _Lying(PlainRuntime):
    """A runtime that computes the finished model wrongly."""

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        outputs = super().run(images)
        return [1.0 - outputs[0], outputs[1]] if outputs[0].ndim == 1 else outputs


def test_a_graph_that_does_not_reproduce_the_training_is_not_written(tmp_path):
    dataset = read_dataset(write_set(tmp_path / "set", 5, 0))
    with pytest.raises(ModelError, match="does not compute the graph correctly"):
        fit(dataset, tmp_path / "model", load=_Lying)
    assert not (tmp_path / "model").exists()


def test_a_size_that_the_network_cannot_take_is_refused(plates, tmp_path):
    with pytest.raises(InvalidInput, match="from 64 to 1024"):
        fit(read_dataset(plates), tmp_path / "model", side=20)


def test_progress_ends_every_stage_it_begins(tmp_path):
    told: list[tuple[str, int, int]] = []
    train(
        read_dataset(write_set(tmp_path / "set", 5, 0)),
        tmp_path / "model",
        name="m",
        seed=0,
        extractor=PlainRuntime,
        progress=lambda stage, done, total: told.append((stage, done, total)),
        side=SIDE,
    )
    stages = list(dict.fromkeys(stage for stage, _, _ in told))
    assert stages == ["reading", "features", "fitting", "calibrating", "writing"]
    for stage in stages:
        _, done, total = [entry for entry in told if entry[0] == stage][-1]
        assert done == total


def test_the_position_gaussian_equals_the_full_mahalanobis_distance_where_rank_suffices():
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.normal(size=(24, 3)))[0]
    local = (rng.normal(size=(200, 2, 3)) * [5, 3, 2]) @ axes.T + 0.1 * rng.normal(
        size=(200, 2, 24)
    )
    fitted = fit_positions(local.astype(np.float32))
    off = local[:, 0] - local[:, 0].mean(axis=0)
    covariance = off.T @ off / 199 + 0.1 * np.trace(off.T @ off / 199) / 24 * np.eye(24)
    full = np.sqrt(np.einsum("nd,de,ne->n", off, np.linalg.inv(covariance), off))
    np.testing.assert_allclose(fitted.distances(local)[:, 0], full, rtol=0.05)


def test_the_whole_gaussian_whitens_what_it_was_fitted_to():
    rows = np.random.default_rng(1).normal(size=(4000, 6)) * [1, 2, 3, 4, 5, 6] + 7
    distances = fit_whole(rows.astype(np.float32)).distances(rows.astype(np.float32))
    assert (distances**2).mean() == pytest.approx(6, rel=0.02)


def test_the_supervised_scorer_is_at_the_minimum_of_its_cost():
    rng = np.random.default_rng(2)
    labels = np.arange(60) % 3 == 0
    rows = rng.normal(size=(60, 80)) + labels[:, None] * 0.5
    rows = ((rows - rows.mean(0)) / rows.std(0)).astype(np.float32)
    fitted = fit_supervised(rows, labels)
    chance = 1 / (1 + np.exp(-fitted.logits(rows).astype(float)))
    pull = 0.003 * 60 / (2 * np.where(labels, 20, 40)) * (chance - labels)
    np.testing.assert_allclose(rows.T @ pull + fitted.weights, 0, atol=1e-5)
    assert abs(pull.sum()) < 1e-6


def test_a_supervised_scorer_that_learned_nothing_stays_out_of_the_sum():
    rng = np.random.default_rng(6)
    anomalous = np.arange(60) >= 45
    good = [rng.normal(0, 1, 60) + 3 * anomalous for _ in range(4)]
    useless = rng.normal(0, 1, 60)
    names = (*UNSUPERVISED, "supervised")
    known = dict(zip(names, good, strict=True))
    assert tuple(worth_summing(known, anomalous)) == names
    assert tuple(worth_summing({**known, "supervised": useless}, anomalous)) == UNSUPERVISED
    assert tuple(worth_summing(known, np.zeros(60, bool))) == names


def test_few_normal_pictures_are_warned_of(tmp_path):
    for number in range(5):
        image = np.full((SIDE, SIDE, 3), 100 + number, np.uint8)
        path = tmp_path / "parts/normal" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        imaging.write_png(path, image)
    report = fit(read_dataset(tmp_path / "parts"), tmp_path / "model")
    assert any(w.startswith("Only 5 normal pictures") for w in report["warnings"])


def test_exact_copies_prove_nothing_and_are_not_used(plates, tmp_path):
    copied = tmp_path / "parts"
    shutil.copytree(plates, copied)
    for path in sorted((copied / "normal").iterdir())[:5]:
        shutil.copy(path, path.with_name(f"copy-{path.name}"))
    report = fit(read_dataset(copied), tmp_path / "model")
    assert report["normal"] == 16
    assert "5 pictures are exact copies of others: not used." in report["warnings"]
