"""Which engine serves: the order of `auto`, and the proof that each must give."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from edged.core.errors import EngineError, ParityError
from edged.core.protocols import EngineLoader
from edged.engines.choose import Engines
from edged.engines.onnxruntime import OnnxRuntimeLoader
from edged.engines.tune import Tuner
from edged.hosting.parity import first_qualified
from edged.runtime.state import StateFolder
from edged.wire.spec import GOLDEN, MODEL, SPEC, read_spec


def test_an_engine_that_does_not_load_leaves_the_model_to_the_next(
    model: Path, tmp_path: Path
) -> None:
    spec = read_spec(model)
    torn = tmp_path / MODEL
    torn.write_bytes((model / MODEL).read_bytes()[:1000])
    recipes: list[Callable[[], EngineLoader]] = [
        partial(OnnxRuntimeLoader, torn, spec),
        partial(OnnxRuntimeLoader, model / MODEL, spec),
    ]
    loader, off, _ = first_qualified(recipes, spec, model / GOLDEN)
    assert loader.name.startswith("onnxruntime")
    assert off < 1e-4
    loader.close()
    with pytest.raises(EngineError):
        first_qualified(recipes[:1], spec, model / GOLDEN)


def test_an_engine_that_scores_otherwise_is_closed_and_refused_with_picture_and_amount(
    model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "model"
    shutil.copytree(model, other)
    facts = json.loads((other / SPEC).read_text(encoding="utf-8"))
    picture = sorted(facts["golden"])[0]
    facts["golden"][picture] += 0.03
    (other / SPEC).write_text(json.dumps(facts), encoding="utf-8")
    spec = read_spec(other)
    made: list[EngineLoader] = []

    def recipe() -> EngineLoader:
        made.append(OnnxRuntimeLoader(other / MODEL, spec))
        return made[-1]

    with pytest.raises(ParityError, match=f"{picture}.*0.02 is allowed.*refused"):
        first_qualified([recipe], spec, other / GOLDEN)
    with pytest.raises(EngineError):
        made[0].open()


def test_auto_offers_every_usable_engine_and_remembers_the_order(
    model: Path, tmp_path: Path
) -> None:
    spec = read_spec(model)
    first = [r.engine for r in Engines(Tuner(StateFolder(tmp_path))).candidates(model, spec)]
    assert {"onnxruntime", "openvino"} <= set(first)
    kept = tmp_path / "engine-choice.json"
    (key, order) = next(iter(json.loads(kept.read_text(encoding="utf-8")).items()))
    assert order == first
    kept.write_text(json.dumps({key: order[::-1]}), encoding="utf-8")
    again = [r.engine for r in Engines(Tuner(StateFolder(tmp_path))).candidates(model, spec)]
    assert again == order[::-1]  # what was kept counts, nothing is measured again
    kept.write_text("{", encoding="utf-8")
    assert set(
        r.engine for r in Engines(Tuner(StateFolder(tmp_path))).candidates(model, spec)
    ) == set(first)
