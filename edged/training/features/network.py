"""The plug for a backbone: any frozen network that turns a picture into maps of features.

backbone.py   EfficientNet-Lite0, the default, built from packaged weights
plug.py       any other, given as an ONNX file
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

from edged.training.onnx.nodes import Nodes, Tensor

Size: TypeAlias = tuple[int, int]
"""Height and width, in pixels or in positions of a grid."""


class Network(Protocol):
    """Gives one to three maps, from fine to coarse: see `channels` and `reductions`."""

    @property
    def name(self) -> str:
        """What spec.json calls it."""

    @property
    def sha256(self) -> str:
        """Of its weights: part of what makes two trainings equal."""

    @property
    def channels(self) -> tuple[int, ...]:
        """Of each map."""

    @property
    def reductions(self) -> tuple[int, ...]:
        """How many pixels of the input a position of each map stands for, in each direction."""

    @property
    def multiple(self) -> int:
        """The input's sides must be multiples of this."""

    @property
    def fixed(self) -> Size | None:
        """The only input that it takes, if it is so made."""

    def add(self, nodes: Nodes) -> tuple[Tensor, ...]:
        """Append the network to `nodes`, from `nodes.image`; its maps, float32 (N, C, h, w)."""
