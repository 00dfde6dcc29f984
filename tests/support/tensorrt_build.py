"""NVIDIA's own parser and builder over ONNX files, in a process of their own, without a GPU.

    python tests/support/tensorrt_build.py FOLDER FILE...

FOLDER holds an installed tensorrt-rtx. Prints a JSON object a file: parsed, built (bytes of the
plan), and what TensorRT said. It says nothing of kernels, speed or numbers on a GPU.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

BATCHES = (1, 2, 8)
SM = "SM86"


def main() -> int:
    folder, *files = sys.argv[1:]
    sys.path.insert(0, folder)
    import tensorrt_rtx as trt

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.said: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if int(severity) <= 1:
                self.said.append(message[:300])

    log = Log()
    for file in files:
        log.said.clear()
        found = {"file": file, **tried(trt, log, Path(file).read_bytes()), "said": log.said}
        print(json.dumps(found), flush=True)
    return 0


def tried(trt: Any, log: Any, model: bytes) -> dict[str, Any]:
    """Parse and build one model, strongly typed, its batch dynamic."""
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(model):
        errors = [parser.get_error(i) for i in range(parser.num_errors)]
        return {"parsed": False, "built": 0, "errors": [e.desc()[:300] for e in errors]}
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, SM), 0)
    profile = builder.create_optimization_profile()
    image = network.get_input(0)
    shape = tuple(image.shape)[1:]
    profile.set_shape(image.name, *((count, *shape) for count in BATCHES))
    if config.add_optimization_profile(profile) < 0:
        return {"parsed": True, "built": 0, "errors": ["the profile was refused"]}
    plan = builder.build_serialized_network(network, config)
    return {"parsed": True, "built": 0 if plan is None else plan.nbytes, "errors": []}


if __name__ == "__main__":
    sys.exit(main())
