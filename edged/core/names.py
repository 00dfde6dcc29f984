"""Words that a configuration and the command line share with the rooms that they name."""

from __future__ import annotations

from typing import Literal

EngineName = Literal[
    "auto",
    "onnxruntime",
    "onnxruntime-cuda",
    "openvino",
    "openvino-bf16",
    "tensorrt",
    "tensorrt-fp32",
    "tensorrt-int8",
]
"""`auto`, or one of engines/candidate.py."""

ByteOrder = Literal["little", "big"]

TriggerKind = Literal["free", "interval", "mqtt", "grpc", "hardware"]
"""free: the camera runs freely and the freshest frame wins. interval: the station gives itself
triggers. mqtt, grpc: somebody gives them. hardware: the camera is triggered, each picture counts.
"""
