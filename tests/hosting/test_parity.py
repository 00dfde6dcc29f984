"""The parity gate: an engine serves only if it scores the golden pictures as the trainer did."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edged.core.errors import BadImage, ParityError
from edged.core.lifecycle import ModelStatus
from edged.core.types import ModelSpec
from edged.engines.onnxruntime import OnnxRuntimeLoader
from edged.hosting.host import Host, HostingSpec
from edged.hosting.parity import TOLERANCE, qualify
from edged.runtime.workers import Crew, Deadline
from edged.wire.spec import GOLDEN, MODEL, SPEC, read_spec
from tests.support.fakes import PATIENCE, Ears

Tamper = Callable[[dict[str, Any]], None]


@pytest.fixture
def folder(model: Path, tmp_path: Path) -> Path:
    """A copy of the trained model that a test may damage."""
    return Path(shutil.copytree(model, tmp_path / "flange"))


def tamper(folder: Path, change: Tamper) -> str:
    """Change the folder's spec; the name of its first golden picture."""
    path = folder / SPEC
    facts = json.loads(path.read_text(encoding="utf-8"))
    change(facts)
    path.write_text(json.dumps(facts), encoding="utf-8")
    return str(sorted(facts["golden"])[0])


def judge(folder: Path, spec: ModelSpec | None = None) -> float:
    """Qualify ONNX Runtime on the folder's golden pictures."""
    spec = spec or read_spec(folder)
    loader = OnnxRuntimeLoader(folder / MODEL, spec)
    engine = loader.open()
    try:
        return qualify(engine, loader.name, spec, folder / GOLDEN)
    finally:
        engine.close()
        loader.close()


def host(folder: Path) -> tuple[ModelStatus, str]:
    """Start the folder on a host; its status and message."""
    ears = Ears()
    recipes = lambda _, spec: [partial(OnnxRuntimeLoader, folder / MODEL, spec)]  # noqa: E731
    hosting = HostingSpec("flange", lambda: folder, read_spec, recipes)
    hosts = Host([hosting], Crew(ears.worker_crashed), ears, Deadline())
    hosts.start("flange")
    seen = hosts.wait("flange", PATIENCE)
    hosts.close()
    assert ears.crashed == []
    return seen.status, seen.message


def test_the_engine_that_trained_reproduces_its_golden_scores(folder: Path) -> None:
    assert len(read_spec(folder).golden) >= 2
    assert judge(folder) < 1e-3
    assert host(folder) == (ModelStatus.HOSTED, "The model is running.")


@pytest.mark.parametrize("by", [-1.5 * TOLERANCE, 1.5 * TOLERANCE])
def test_a_score_further_off_than_the_tolerance_names_picture_and_both_scores(
    folder: Path, by: float
) -> None:
    spec = read_spec(folder)
    pick = max if by < 0 else min  # so that what the trainer is said to have seen is a score
    name, score = pick(spec.golden.items(), key=lambda item: item[1])
    with pytest.raises(ParityError) as said:
        judge(folder, replace(spec, threshold=0.0, golden={name: score + by}))
    sentence = str(said.value)
    assert f"Engine onnxruntime cpu fp32 scores golden picture {name} {score:.4f}" in sentence
    assert f"trainer saw {score + by:.4f}: {TOLERANCE} is allowed. The engine is ref" in sentence


def test_a_score_within_the_tolerance_is_allowed_and_reported(folder: Path) -> None:
    spec = read_spec(folder)
    name, score = next(iter(spec.golden.items()))
    by = TOLERANCE / 2 if score < 0.5 else -TOLERANCE / 2
    near = replace(spec, threshold=0.0, golden={name: score + by})
    assert judge(folder, near) == pytest.approx(TOLERANCE / 2, abs=1e-3)


def test_a_flipped_verdict_is_refused_even_within_the_tolerance(folder: Path) -> None:
    spec = read_spec(folder)
    name, score = next(iter(spec.golden.items()))
    by = TOLERANCE / 2 if score < 0.5 else -TOLERANCE / 2
    between = replace(spec, threshold=score + by / 2, golden={name: score + by})
    with pytest.raises(ParityError, match=f"{name}.*the verdict flips"):
        judge(folder, between)


def test_a_model_whose_golden_score_was_changed_is_not_hosted_and_says_why(folder: Path) -> None:
    def change(facts: dict[str, Any]) -> None:
        first = sorted(facts["golden"])[0]
        facts["golden"][first] = 1.0 - facts["golden"][first]

    name = tamper(folder, change)
    status, message = host(folder)
    assert status is ModelStatus.HOSTING_FAILED
    assert f"golden picture {name}" in message
    assert message.endswith("The engine is refused.")


def test_a_golden_picture_that_was_exchanged_is_not_hosted(folder: Path) -> None:
    golden = read_spec(folder).golden
    low, high = min(golden, key=lambda n: golden[n]), max(golden, key=lambda n: golden[n])
    shutil.copy(folder / GOLDEN / high, folder / GOLDEN / low)
    status, message = host(folder)
    assert status is ModelStatus.HOSTING_FAILED
    assert f"golden picture {low}" in message


def test_a_golden_picture_that_is_gone_is_named(folder: Path) -> None:
    name = sorted(read_spec(folder).golden)[0]
    (folder / GOLDEN / name).unlink()
    with pytest.raises(BadImage, match=name):
        judge(folder)
    status, message = host(folder)
    assert status is ModelStatus.HOSTING_FAILED
    assert name in message


def test_a_threshold_that_is_no_number_between_0_and_1_is_not_hosted(folder: Path) -> None:
    tamper(folder, lambda facts: facts.update(threshold=1.5))
    status, message = host(folder)
    assert status is ModelStatus.HOSTING_FAILED
    assert "threshold" in message


def test_a_coarser_engine_is_refused_where_training_pictures_lie_at_the_threshold(
    folder: Path,
) -> None:
    spec = read_spec(folder)
    name, score = min(spec.golden.items(), key=lambda item: abs(item[1] - 0.5))
    by = TOLERANCE / 2 if score < 0.5 else -TOLERANCE / 2  # as if the engine were that coarse
    coarse = replace(spec, golden={name: score + by}, seen_scores=(0.001, 0.999))
    assert judge(folder, coarse) == pytest.approx(TOLERANCE / 2, abs=1e-3)
    close = replace(coarse, seen_scores=(0.001, spec.threshold + 0.001, 0.999))
    with pytest.raises(ParityError, match="1 of 3 training pictures lie near enough"):
        judge(folder, close)
    exact = replace(spec, seen_scores=(spec.threshold,))
    assert judge(folder, exact) < 1e-3
