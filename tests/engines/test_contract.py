"""What every inference runtime promises, on a really trained model."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.core.errors import EngineError, ModelError
from edged.core.protocols import Engine, EngineLoader, Tuning
from edged.core.types import Image, Prediction
from edged.engines.choose import ENGINES
from edged.hosting.units import predict
from edged.wire import imaging
from edged.wire.spec import MODEL, read_spec
from tests.conftest import HEIGHT, WIDTH

RUNTIMES = ("onnxruntime", "openvino")
BATCH = 3
SAME = 1e-4  # a runtime may add up in another order when the batch has another size


def load(runtime: str, folder: Path, batch: int) -> EngineLoader:
    """The runtime's loader, as the composition root finds it."""
    room, kind, told = ENGINES[runtime]
    loader: EngineLoader = getattr(importlib.import_module(f"edged.engines.{room}"), kind)(
        folder / MODEL, read_spec(folder), Tuning(2, batch), **told
    )
    return loader


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> str:
    """Each runtime in turn."""
    return str(request.param)


@pytest.fixture
def loader(runtime: str, model: Path) -> Iterator[EngineLoader]:
    """The model on this runtime, for batches of BATCH."""
    loader = load(runtime, model, BATCH)
    yield loader
    loader.close()


@pytest.fixture
def engine(loader: EngineLoader) -> Iterator[Engine]:
    """A context of it."""
    engine = loader.open()
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def images(parts: Path) -> list[Image]:
    """Six pictures: three good parts, three bad ones."""
    good = sorted((parts / "normal").glob("*.png"))[:3]
    bad = sorted((parts / "anomaly").rglob("*.png"))[:3]
    return [imaging.read(path) for path in good + bad]


def alone(engine: Engine, images: list[Image]) -> list[Prediction]:
    return [predict(engine, [image]) for image in images]


def maps(prediction: Prediction) -> np.ndarray:
    assert prediction.maps is not None
    return prediction.maps


def test_the_input_is_the_contexts_own_buffer_of_the_models_size(
    loader: EngineLoader, engine: Engine, model: Path
) -> None:
    spec = read_spec(model)
    other = loader.open()
    assert engine.input.shape == (BATCH, spec.height, spec.width, 3)
    assert engine.input.dtype == np.uint8
    assert engine.input.flags.c_contiguous and engine.input.flags.writeable
    assert not np.shares_memory(engine.input, other.input)
    other.close()


@pytest.mark.parametrize("count", range(1, BATCH + 1))
def test_a_batch_of_any_size_up_to_the_largest_gives_a_row_for_each_picture(
    engine: Engine, images: list[Image], count: int
) -> None:
    prediction = predict(engine, images[:count])
    assert prediction.scores.shape == (count,)
    assert prediction.scores.dtype == np.float32
    assert maps(prediction).dtype == np.float32
    assert maps(prediction).shape[:2] == (count, 1)
    assert np.isfinite(maps(prediction)).all()
    assert ((prediction.scores >= 0) & (prediction.scores <= 1)).all()


@pytest.mark.parametrize("count", [0, -1, BATCH + 1])
def test_a_batch_that_does_not_fit_is_refused(engine: Engine, count: int) -> None:
    with pytest.raises(EngineError, match=f"{count} does not fit 1 to {BATCH}"):
        engine.infer(count)


def test_a_row_does_not_depend_on_its_neighbours(engine: Engine, images: list[Image]) -> None:
    expected = alone(engine, images[:2])
    noise = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
    for neighbour in (noise, images[-1], np.zeros_like(noise)):
        found = predict(engine, [images[0], neighbour, images[1]])
        for row, single in zip((0, 2), expected, strict=True):
            assert found.scores[row] == pytest.approx(single.scores[0], abs=SAME)
            np.testing.assert_allclose(maps(found)[row], maps(single)[0], rtol=1e-3, atol=SAME)


def test_what_an_earlier_batch_left_in_the_buffer_does_not_matter(
    engine: Engine, images: list[Image]
) -> None:
    first = predict(engine, images[:1]).scores[0]
    predict(engine, images[3:6])
    assert predict(engine, images[:1]).scores[0] == pytest.approx(first, abs=SAME)


def test_no_later_call_touches_an_earlier_result(engine: Engine, images: list[Image]) -> None:
    kept = predict(engine, images[:2])
    scores, heat = kept.scores.copy(), maps(kept).copy()
    predict(engine, images[3:5])
    assert np.array_equal(kept.scores, scores)
    assert np.array_equal(maps(kept), heat)


def test_the_scores_tell_good_parts_from_bad_ones(engine: Engine, images: list[Image]) -> None:
    scores = [float(prediction.scores[0]) for prediction in alone(engine, images)]
    assert max(scores[:3]) < min(scores[3:])


def test_two_contexts_in_two_threads_give_what_one_gives(
    loader: EngineLoader, engine: Engine, images: list[Image]
) -> None:
    expected = [float(prediction.scores[0]) for prediction in alone(engine, images)]
    together = threading.Barrier(2)
    found: dict[int, list[float]] = {}

    def unit(number: int) -> None:
        context = loader.open()  # on the unit's own thread, as in the daemon
        mine = images[::-1] if number else images
        together.wait(20)
        scores = [float(p.scores[0]) for _ in range(5) for p in alone(context, mine)]
        context.close()
        found[number] = scores

    threads = [threading.Thread(target=unit, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == pytest.approx(expected * 5, abs=SAME)
    assert found[1] == pytest.approx(expected[::-1] * 5, abs=SAME)


def test_a_closed_context_says_so_and_may_be_closed_again(loader: EngineLoader) -> None:
    engine = loader.open()
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(1)


def test_a_context_outlives_the_close_of_its_neighbour(
    loader: EngineLoader, engine: Engine, images: list[Image]
) -> None:
    other = loader.open()
    before = predict(other, images[:1]).scores[0]
    engine.close()
    assert predict(other, images[:1]).scores[0] == before
    other.close()


def test_a_closed_loader_may_be_closed_again_and_opens_nothing(runtime: str, model: Path) -> None:
    loader = load(runtime, model, 1)
    loader.close()
    loader.close()
    with pytest.raises(EngineError):
        loader.open()


def test_tuning_asks_for_at_least_one_unit_and_the_batch_it_was_given(loader: EngineLoader) -> None:
    assert loader.tuning.units >= 1
    assert loader.tuning.batch == BATCH
    assert loader.name.endswith("cpu fp32")


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_graph_is_a_sentence_of_the_engine(
    runtime: str, model: Path, tmp_path: Path, keep: float
) -> None:
    whole = (model / MODEL).read_bytes()
    damaged = tmp_path / MODEL
    damaged.write_bytes(whole[: int(len(whole) * keep)])
    room, kind, told = ENGINES[runtime]
    make = getattr(importlib.import_module(f"edged.engines.{room}"), kind)
    with pytest.raises(EngineError, match="cannot load the model: ") as said:
        make(damaged, read_spec(model), Tuning(1, 1), **told)
    assert "\n" not in str(said.value) and "Traceback" not in str(said.value)


def test_a_truncated_graph_is_seen_before_any_engine_loads_it(model: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_bytes((model / "spec.json").read_bytes())
    (tmp_path / MODEL).write_bytes((model / MODEL).read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"model\.onnx: is damaged"):
        read_spec(tmp_path)


def test_both_runtimes_give_the_same_numbers(model: Path, images: list[Image]) -> None:
    found = []
    for runtime in RUNTIMES:
        loader = load(runtime, model, BATCH)
        engine = loader.open()
        found.append([predict(engine, images[at : at + BATCH]) for at in (0, BATCH)])
        engine.close()
        loader.close()
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=0.01)
        np.testing.assert_allclose(maps(one), maps(other), atol=0.01, rtol=0.01)
