"""SIMULATED: the engine contract on edged's TensorRT body, over a software CUDA driver.

Not collected by itself: engines/test_tensorrt_simulated.py runs it in a process of its own, since
the driver must be loaded before pycuda is. EDGED_MUTANT names a fault to build into the engine
first.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

driver = ctypes.CDLL(os.environ["EDGED_SOFTCUDA"], mode=ctypes.RTLD_GLOBAL)

from tests.support.simulated import recorded, trt  # noqa: E402

API = os.environ.get("EDGED_TENSORRT_API", "")
"""Of which version; empty = all that the simulation has."""
sys.modules["tensorrt"] = recorded.load(API) if API else trt

from edged.core.errors import DeviceLost, EngineError  # noqa: E402
from edged.core.protocols import Engine, EngineLoader, Tuning  # noqa: E402
from edged.core.types import Image  # noqa: E402
from edged.engines import cuda, plan, tensorrt  # noqa: E402
from edged.hosting.units import predict  # noqa: E402
from edged.training.onnx.half import half_graph  # noqa: E402
from edged.wire import imaging  # noqa: E402
from edged.wire.spec import MODEL, read_spec  # noqa: E402
from tests.engines.test_contract import (  # noqa: E402, F401 - they are the contract
    BATCH,
    alone,
    engine,
    images,
    maps,
    test_a_batch_of_any_size_up_to_the_largest_gives_a_row_for_each_picture,
    test_a_batch_that_does_not_fit_is_refused,
    test_a_closed_context_says_so_and_may_be_closed_again,
    test_a_context_outlives_the_close_of_its_neighbour,
    test_a_row_does_not_depend_on_its_neighbours,
    test_no_later_call_touches_an_earlier_result,
    test_the_input_is_the_contexts_own_buffer_of_the_models_size,
    test_the_scores_tell_good_parts_from_bad_ones,
    test_two_contexts_in_two_threads_give_what_one_gives,
    test_what_an_earlier_batch_left_in_the_buffer_does_not_matter,
)

MUTANTS = {
    "no wait": (cuda.UnitStream, "wait", "self._done.synchronize()", "pass"),
    "early reuse": (
        tensorrt.TensorRtEngine, "infer", "self._lane.wait()", "image[...] = 0; self._lane.wait()",
    ),
    "no copy": (tensorrt.TensorRtEngine, "infer", ".astype(np.float32)", ""),
    "no pop": (cuda.UnitStream, "close", "driver.Context.pop()", "pass"),
}  # fmt: skip


def mutate(kind: type, method: str, old: str, new: str) -> None:
    """Build a fault into a method."""
    source = textwrap.dedent(inspect.getsource(getattr(kind, method)))
    assert old in source, f"{method} is no longer written so: mend the mutant"
    scope = dict(vars(sys.modules[kind.__module__]))
    exec(compile(source.replace(old, new), f"mutant of {method}", "exec"), scope)
    setattr(kind, method, scope[method])


if os.environ.get("EDGED_MUTANT"):
    mutate(*MUTANTS[os.environ["EDGED_MUTANT"]])


@pytest.fixture(scope="session")
def model() -> Path:
    return Path(os.environ["EDGED_MODEL"])


@pytest.fixture(scope="session")
def parts() -> Path:
    return Path(os.environ["EDGED_PARTS"])


@functools.lru_cache(maxsize=4)
def built(folder: Path, batch: int, precision: str) -> bytes:
    graph = (folder / MODEL).read_bytes()
    graph = half_graph(graph) if precision == "fp16" else graph
    spec = plan.PlanSpec("x", precision, batch)
    return plan.build(sys.modules["tensorrt"], tensorrt.logger(), graph, spec)[0]


@pytest.fixture(params=["fp32"] if API.startswith("8.") else ["fp32", "fp16", "fp16 mapped"])
def runtime(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def loader(runtime: str, model: Path) -> Iterator[EngineLoader]:
    precision, _, mapped = runtime.partition(" ")
    made = tensorrt.TensorRtLoader(
        built(model, BATCH, precision),
        read_spec(model),
        precision,
        Tuning(2, BATCH),
        bool(mapped),
    )
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Of memory, streams, faults or silent violations."""
    trt.violations.clear()
    yield
    assert trt.violations == []
    assert driver.soft_ctx_depth() == 0


def used() -> tuple[int, int, int]:
    driver.soft_used.restype = ctypes.c_size_t
    return driver.soft_used(0), driver.soft_used(1), driver.soft_live_streams()


def test_everything_of_a_context_is_freed_with_it(
    loader: EngineLoader, images: list[Image]
) -> None:
    before = used()
    for _ in range(3):
        context = loader.open()
        predict(context, images[:2])
        assert used() > before
        context.close()
        del context
        assert used() == before


def test_copies_are_from_page_locked_memory(engine: Engine, images: list[Image]) -> None:
    driver.soft_clear()
    alone(engine, images)
    assert ctypes.c_long.in_dll(driver, "soft_async_pageable").value == 0


@pytest.mark.parametrize(
    ("call", "faults", "after"),
    [
        ("cuMemAlloc", 2, 0),  # pycuda tries once more after it collected its garbage
        ("cuMemAlloc", 2, 1),
        ("cuMemHostAlloc", 2, 0),
        ("cuStreamCreate", 1, 0),
        ("cuEventCreate", 1, 0),
    ],
)
def test_out_of_memory_while_a_unit_starts_is_an_error_and_leaves_nothing(
    loader: EngineLoader, call: str, faults: int, after: int
) -> None:
    before = used()
    for _ in range(faults):
        driver.soft_fail(call.encode(), 2, after)
    with pytest.raises(EngineError, match="CUDA could not"):
        loader.open()
    driver.soft_clear()
    assert used() == before and driver.soft_ctx_depth() == 0
    loader.open().close()


def test_no_memory_for_an_execution_context_is_an_error(
    loader: EngineLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGED_SIMULATE", "no context")
    with pytest.raises(EngineError, match="could not make an execution context"):
        loader.open()


def test_a_sticky_error_is_a_lost_device(loader: EngineLoader, images: list[Image]) -> None:
    context = loader.open()
    predict(context, images[:1])
    driver.soft_fail(b"cuMemcpyDtoHAsync", 700, 0)
    with pytest.raises(DeviceLost, match="CUDA could not copy from the GPU"):
        predict(context, images[:1])
    driver.soft_clear()
    context.close()


@pytest.mark.parametrize("keep", [0, 7, 100])
def test_a_damaged_plan_is_a_sentence(model: Path, keep: int) -> None:
    with pytest.raises(EngineError, match="TensorRT cannot load the plan"):
        tensorrt.TensorRtLoader(built(model, BATCH, "fp32")[1 : keep + 1], read_spec(model), "x")


def test_an_empty_model_and_an_operator_that_it_lacks_are_told_by_name() -> None:
    import onnx
    from onnx import helper

    spec = plan.PlanSpec("x", "fp32", 2)
    with pytest.raises(EngineError, match="The model file is empty"):
        plan.build(sys.modules["tensorrt"], tensorrt.logger(), b"", spec)
    node = helper.make_node("Unique", ["image"], ["y"], name="odd_one", sorted=1)
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["N", 3])
    out = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [None])
    made = helper.make_model(
        helper.make_graph([node], "g", [image], [out]),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=8,
    )  # fmt: skip
    with pytest.raises(
        EngineError, match=r"cannot take this model: node.*(odd_one .Unique|Unique.*odd_one)"
    ):
        plan.build(sys.modules["tensorrt"], tensorrt.logger(), made.SerializeToString(), spec)


def test_the_numbers_are_those_of_the_graph(
    loader: EngineLoader,
    engine: Engine,
    model: Path,
    runtime: str,
    images: list[Image],
) -> None:
    import onnxruntime

    graph = (model / MODEL).read_bytes()
    graph = half_graph(graph) if runtime != "fp32" else graph
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for image in images:
        found = predict(engine, [image])
        row = np.empty((1, *engine.input.shape[1:]), np.uint8)
        imaging.resize_into(image, row[0])
        scores, heat = session.run(["score", "map"], {"image": row})
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        np.testing.assert_allclose(maps(found), heat, atol=1e-5)
