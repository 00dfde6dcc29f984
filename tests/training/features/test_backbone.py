from __future__ import annotations

import collections
import io
import pickle
import subprocess
import sys
import types

import numpy as np
import onnxruntime
import pytest

from edged.core.errors import MissingDependency, ModelError
from edged.training.features import backbone
from edged.training.features.gather import resized
from edged.training.onnx.nodes import Nodes
from edged.wire import imaging
from tests.support.shared_data import shared_data


class PlainRuntime:
    """ONNX Runtime on two threads, as the smallest thing that fits FeatureExtractorLoader."""

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 2
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            model, options, providers=["CPUExecutionProvider"]
        )

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        return self._session.run(None, {"image": images})

    def close(self) -> None:
        self._session = None


def test_cookie_photographs_are_classified_as_dough_and_only_in_the_right_colours():
    folder = shared_data("cookies/getting-started/dataset-files/training-images")
    nodes = Nodes(256, 256)
    taps = backbone.add_backbone(nodes, backbone.pretrained())
    logits = backbone.add_classifier(nodes, backbone.pretrained(), taps[-1])
    network = PlainRuntime(nodes.serialise([(logits, ["N", 1000])]))
    photographs = [resized(imaging.read(p), (256, 256))[None] for p in sorted(folder.glob("*.jpg"))]
    ranked = np.array([network.run(p)[0][0].argsort()[::-1] for p in photographs])
    swapped = np.array([network.run(p[..., ::-1].copy())[0][0].argmax() for p in photographs])
    assert (ranked[:, 0] == 961).mean() > 0.7
    assert (ranked[:, :3] == 961).any(axis=1).mean() > 0.9
    assert (swapped == 961).mean() < 0.5


def test_taps_have_the_stated_shapes_for_any_batch():
    nodes = Nodes(64, 96)
    taps = backbone.add_backbone(nodes, backbone.pretrained())
    known = zip(backbone.CHANNELS, backbone.REDUCTIONS, strict=True)
    shapes = [(channels, 64 // reduction, 96 // reduction) for channels, reduction in known]
    outputs = [(tap, ["N", *shape]) for tap, shape in zip(taps, shapes, strict=True)]
    network = PlainRuntime(nodes.serialise(outputs))
    for count in (1, 3):
        outputs = network.run(np.zeros((count, 64, 96, 3), np.uint8))
        for shape, output in zip(shapes, outputs, strict=True):
            assert output.shape == (count, *shape)


def test_sides_that_are_no_multiple_of_32_are_refused():
    with pytest.raises(ValueError, match="multiples of 32"):
        backbone.add_backbone(Nodes(100, 96), backbone.pretrained())


def test_equal_graphs_have_equal_bytes():
    def write() -> bytes:
        nodes = Nodes(64, 64)
        taps = backbone.add_backbone(nodes, backbone.pretrained())
        return nodes.serialise([(taps[0], ["N", 40, 8, 8])])

    assert write() == write()


class _Tensor:
    """Pickles as torch's tensors do."""

    def __init__(self, key: str, offset: int, size: tuple, stride: tuple, count: int) -> None:
        self.parts = (key, offset, size, stride, count)

    def __reduce__(self):
        key, offset, size, stride, count = self.parts
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        storage = _Storage(key, count)
        return rebuild, (storage, offset, size, stride, False, collections.OrderedDict())


class _Storage:
    def __init__(self, key: str, count: int) -> None:
        self.key, self.count = key, count


class _Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, _Storage):
            kind = sys.modules["torch"].FloatStorage
            return ("storage", kind, thing.key, "cpu", thing.count, None)
        return None


@pytest.fixture
def torch_names(monkeypatch):
    """Stands in for torch's modules, so that the stream names them as torch's own does."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2():
        raise RuntimeError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})
    torch._utils = utils
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def legacy_stream(tensors: dict, storages: dict[str, np.ndarray]) -> io.BytesIO:
    stream = io.BytesIO()
    for head in (backbone.MAGIC, backbone.PROTOCOL, {"little_endian": True}):
        pickle.dump(head, stream, protocol=2)
    _Pickler(stream, protocol=2).dump(collections.OrderedDict(tensors))
    pickle.dump(list(storages), stream, protocol=2)
    for values in storages.values():
        stream.write(np.int64(values.size).tobytes() + values.astype("<f4").tobytes())
    stream.seek(0)
    return stream


def test_strided_tensors_are_read_by_offset_size_and_stride(torch_names):
    values = np.arange(20, dtype=np.float32)
    stream = legacy_stream(
        {"turned": _Tensor("7", 2, (2, 3), (1, 4), 20), "flat": _Tensor("7", 0, (20,), (1,), 20)},
        {"7": values},
    )
    weights = backbone.read_weights(stream, "test.pth")
    np.testing.assert_array_equal(weights["turned"], [[2, 6, 10], [3, 7, 11]])
    np.testing.assert_array_equal(weights["flat"], values)


def test_a_tensor_that_reaches_outside_its_storage_is_refused(torch_names):
    stream = legacy_stream(
        {"wide": _Tensor("7", 1, (4,), (2,), 6)}, {"7": np.zeros(6, dtype=np.float32)}
    )
    with pytest.raises(ModelError, match=r"test\.pth.*outside its storage"):
        backbone.read_weights(stream, "test.pth")


def test_a_cut_off_weights_file_is_refused(torch_names):
    whole = legacy_stream(
        {"a": _Tensor("7", 0, (6,), (1,), 6)}, {"7": np.zeros(6, dtype=np.float32)}
    ).getvalue()
    for length in (0, 20, len(whole) - 30, len(whole) - 4):
        with pytest.raises(ModelError, match=r"test\.pth"):
            backbone.read_weights(io.BytesIO(whole[:length]), "test.pth")


def test_a_weights_file_that_names_anything_else_is_refused_and_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'ran')!r}, 'w').close()",))

    with pytest.raises(ModelError, match=r"builtins\.exec has no place"):
        backbone.read_weights(io.BytesIO(pickle.dumps(Evil())), "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_absent_weights_name_the_extra(monkeypatch):
    monkeypatch.setattr(backbone, "PACKAGE", "efficientnet_that_is_not_here")
    backbone.pretrained.cache_clear()
    with pytest.raises(MissingDependency, match=r"edged\[train\]") as caught:
        backbone.pretrained()
    assert caught.value.extra == "train"


def test_the_room_imports_without_onnx_and_then_names_the_extra():
    code = (
        "import sys; sys.modules['onnx'] = None\n"
        "import edged.training.fit, edged.training.evaluate\n"
        "from edged.core.errors import MissingDependency\n"
        "from edged.training.onnx.nodes import Nodes\n"
        "try:\n    Nodes(64, 64)\n"
        "except MissingDependency as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "edged[train]" in done.stdout
