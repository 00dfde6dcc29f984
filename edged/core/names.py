"""Words that a configuration and the command line share with the rooms that they name."""

from __future__ import annotations

import re
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
"""`auto`, or one of engines/choose.py."""

ByteOrder = Literal["little", "big"]

TriggerKind = Literal["free", "interval", "mqtt", "grpc", "hardware"]
"""free: the camera runs freely and the freshest frame wins. interval: the station gives itself
triggers. mqtt, grpc: somebody gives them. hardware: the camera is triggered, each picture counts.
"""
ID_LETTERS = "[A-Za-z0-9_-]"
INSPECTION_ID = re.compile(f"{ID_LETTERS}{{1,64}}")
"""Of an inspection, as its record has it; also the name of its picture's file."""
