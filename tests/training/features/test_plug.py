"""Another backbone by path: what is taken, what is refused, and that it judges."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edged.core.errors import InvalidInput
from edged.training.data.dataset import read_dataset
from edged.training.features.backbone import CHANNELS, REDUCTIONS, EfficientNetLite0
from edged.training.features.plug import load_network
from edged.training.features.view import View, feature_graph
from edged.training.fit import train
from edged.training.onnx.nodes import Nodes
from tests.training.features.test_backbone import PlainRuntime
from tests.training.test_training import SIDE, quiet, write_set


def convolutions(
    path: Path,
    strides: tuple[int, ...] = (8, 2),
    metadata: dict[str, str] | None = None,
    opset: int = 17,
    inputs: list[Any] | None = None,
) -> Path:
    """A file of convolutions, each output a map; float32 RGB in."""
    helper, types = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    nodes, constants, outputs, channels, x = [], [], [], 3, "pixels"
    for index, stride in enumerate(strides):
        kernel = rng.normal(0, 0.1, (16, channels, stride, stride)).astype(np.float32)
        constants.append(onnx.numpy_helper.from_array(kernel, f"kernel{index}"))
        name = f"map{index}"
        nodes.append(
            helper.make_node("Conv", [x, f"kernel{index}"], [name], strides=[stride, stride])
        )
        outputs.append(helper.make_tensor_value_info(name, types.FLOAT, ["N", 16, "h", "w"]))
        channels, x = 16, name
    shape = inputs or ["N", 3, "H", "W"]
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("pixels", types.FLOAT, shape)], outputs,
        constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    known = {"mean": "127.5", "std": "64,64,64"} if metadata is None else metadata
    helper.set_model_props(model, known)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_file_of_the_default_network_gives_the_default_s_figures(tmp_path: Path) -> None:
    nodes = Nodes(SIDE, SIDE)
    known = zip(EfficientNetLite0().add(nodes), CHANNELS, REDUCTIONS, strict=True)
    outputs = [(tap, ["N", channels, SIDE // by, SIDE // by]) for tap, channels, by in known]
    file = tmp_path / "lite0.onnx"
    file.write_bytes(nodes.serialise(outputs))
    network = load_network(file, PlainRuntime)
    assert (network.channels, network.reductions) == (CHANNELS, REDUCTIONS)
    assert network.fixed == (SIDE, SIDE)
    dataset = read_dataset(write_set(tmp_path / "set", 12, 10))
    reports = [
        train(dataset, tmp_path / name, name="plate", seed=1, extractor=PlainRuntime,
              progress=quiet, side=SIDE, network=chosen)
        for name, chosen in (("default", None), ("plugged", network))
    ]  # fmt: skip
    assert reports[0]["metrics"] == reports[1]["metrics"]
    assert reports[0]["scorers"] == reports[1]["scorers"]


@pytest.mark.parametrize("strides", [(8,), (8, 2), (14, 1, 1)])
def test_one_to_three_maps_of_any_reduction_make_a_model_that_judges(
    tmp_path: Path, strides: tuple[int, ...]
) -> None:
    network = load_network(convolutions(tmp_path / "net.onnx", strides), PlainRuntime)
    dataset = read_dataset(write_set(tmp_path / "set", 12, 10))
    report = train(
        dataset, tmp_path / "model", name="plate", seed=1, extractor=PlainRuntime, progress=quiet,
        side=70, network=network,
    )  # fmt: skip
    assert report["input"]["height"] % strides[0] == 0
    judge = PlainRuntime((tmp_path / "model" / "model.onnx").read_bytes())
    size = report["input"]["height"], report["input"]["width"]
    assert judge.run(np.zeros((2, size[0], size[1], 3), np.uint8))[0].shape == (2,)
    judge.close()


def test_the_normalisation_in_the_metadata_is_applied_to_red_first(tmp_path: Path) -> None:
    metadata = {"mean": "10,20,30", "std": "1,2,4"}
    network = load_network(convolutions(tmp_path / "net.onnx", (8,), metadata), PlainRuntime)
    red = np.zeros((1, 16, 16, 3), np.uint8)
    red[..., 2] = 200
    runner = PlainRuntime(feature_graph(View(network, (16, 16))))
    found = runner.run(red)[0]
    runner.close()
    model = onnx.load(tmp_path / "net.onnx")
    kernel = onnx.numpy_helper.to_array(model.graph.initializer[0])
    expected = np.tensordot(kernel.sum((2, 3)), [190.0, -10.0, -7.5], axes=1)
    np.testing.assert_allclose(found[0, :, 0, 0], expected, rtol=1e-4, atol=1e-3)


def test_an_older_operator_set_is_converted(tmp_path: Path) -> None:
    network = load_network(convolutions(tmp_path / "net.onnx", opset=11), PlainRuntime)
    assert network.reductions == (8, 16)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"metadata": {}}, "metadata must hold `mean`"),
        ({"metadata": {"mean": "0", "std": "0"}}, "metadata must hold `std`"),
        ({"metadata": {"mean": "1,2", "std": "1"}}, "metadata must hold `mean`"),
        ({"strides": (2, 2, 2, 2)}, "has 4 outputs"),
        ({"strides": (6,)}, "one whole reduction"),
        ({"inputs": [1, 3, "H", "W"]}, "batches of 1 only"),
        ({"inputs": ["N", 4, "H", "W"]}, "its input has the shape"),
        ({"inputs": ["N", 3, 64, "W"]}, "fix both or none"),
    ],
)
def test_a_file_that_breaks_the_contract_is_refused_by_name(
    tmp_path: Path, made: dict[str, Any], words: str
) -> None:
    file = convolutions(tmp_path / "net.onnx", **made)
    with pytest.raises(InvalidInput, match=words) as refused:
        load_network(file, PlainRuntime)
    assert str(file) in str(refused.value)


def test_what_is_no_onnx_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidInput, match=r"net\.onnx: is no sound ONNX model"):
        load_network(tmp_path / "net.onnx", PlainRuntime)
    with pytest.raises(InvalidInput, match=r"absent\.onnx: cannot be read"):
        load_network(tmp_path / "absent.onnx", PlainRuntime)
