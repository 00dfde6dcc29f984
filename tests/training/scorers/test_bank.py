"""The memory bank: what it remembers, what it costs, when it takes part."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edged.engines import choose as engines
from edged.training import fit as fitting
from edged.training.data.dataset import read_dataset
from edged.training.features.backbone import EfficientNetLite0
from edged.training.features.view import View
from edged.training.scorers.bank import (
    BANK_MB,
    BANK_MS,
    MULTIPLICATIONS_A_MS,
    coreset,
    fit_bank,
    rows_within,
)
from edged.training.scorers.distances import fit_pooled
from edged.training.scorers.ensemble import BANK
from edged.training.scorers.evidence import Choice
from edged.training.scorers.selection import worth_summing
from edged.wire import imaging
from tests.training.test_training import quiet, write_set

VIEW = View(EfficientNetLite0(), (64, 64))


def test_the_bank_keeps_both_budgets_at_every_size() -> None:
    for side in (64, 256, 384, 640):
        view = View(EfficientNetLite0(), (side, side))
        rows = rows_within(view)
        assert rows * view.dimensions * 4 <= BANK_MB * 2**20
        cost = rows * view.positions * view.dimensions / MULTIPLICATIONS_A_MS
        assert cost <= BANK_MS * 1.01


def test_a_coreset_covers_what_a_crowd_would_hide() -> None:
    rng = np.random.default_rng(0)
    crowd = rng.normal(0, 0.1, (1000, 4))
    strays = np.array([[9, 0, 0, 0], [0, 9, 0, 0], [0, 0, -9, 0]])
    vectors = np.concatenate([crowd, strays]).astype(np.float32)
    kept = coreset(vectors, 4)
    assert {1000, 1001, 1002} < set(kept.tolist())
    assert len(set(coreset(vectors, 50).tolist())) == 50
    assert len(coreset(vectors[:5], 50)) == 5


def test_the_distance_is_that_to_the_nearest_remembered_vector() -> None:
    rng = np.random.default_rng(1)
    local = rng.normal(2, 3, (6, VIEW.positions, VIEW.dimensions)).astype(np.float16)
    pooled = fit_pooled(local)
    bank = fit_bank(VIEW, local, pooled, seed=0)
    found = bank.distances(local[:1], pooled)
    white = (local[0].astype(np.float32) - pooled.mean) @ pooled.factor
    plain = np.linalg.norm(white[:, None] - bank.rows[None], axis=2).min(axis=1)
    np.testing.assert_allclose(found[0], plain, atol=0.05, rtol=1e-3)
    assert (fit_bank(VIEW, local, pooled, seed=0).rows == bank.rows).all()


def test_parts_in_every_pose_are_given_a_bank_and_the_graph_computes_it(
    tmp_path: Path, monkeypatch: object
) -> None:
    root = write_set(tmp_path / "set", 12, 4)
    chosen = fitting.choose

    def with_bank(*asked: object) -> Choice:
        found = chosen(*asked)  # type: ignore[arg-type]
        return Choice(found.size, found.map, found.trials, bank=True)

    monkeypatch.setattr(fitting, "choose", with_bank)  # type: ignore[attr-defined]
    report = fitting.train(
        read_dataset(root), tmp_path / "model", name="plate", seed=0,
        extractor=engines.extractor, progress=quiet, side=64,
    )  # fmt: skip
    names = [row["name"] for row in report["scorers"]]
    assert BANK in names  # and training has held the graph's scores against numpy's
    judge = engines.extractor((tmp_path / "model" / "model.onnx").read_bytes())
    black = judge.run(np.zeros((1, 64, 64, 3), np.uint8))[0]
    good = judge.run(imaging.read(root / "normal" / "000.png")[None])[0]
    judge.close()
    assert good[0] < 0.5 < black[0]


def test_a_bank_that_real_defects_speak_against_stays_out() -> None:
    rng = np.random.default_rng(2)
    anomalous = np.repeat([False, True], 40)
    names = ("position_gaussian", "pooled_gaussian", "whole_gaussian")
    good = {name: (rng.normal(0, 1, 80) + 2 * anomalous).astype(np.float32) for name in names}
    helps = (rng.normal(0, 1, 80) + 4 * anomalous).astype(np.float32)
    harms = (rng.normal(0, 1, 80) - 2 * anomalous).astype(np.float32)
    assert BANK in worth_summing({**good, BANK: helps}, anomalous)
    assert BANK not in worth_summing({**good, BANK: harms}, anomalous)
    assert BANK in worth_summing({**good, BANK: harms}, np.zeros(80, np.bool_))
