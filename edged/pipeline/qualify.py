"""The parity gate: an engine serves only if it reproduces what the trainer saw.

The golden pictures of the model are scored on the engine just loaded. A verdict that flips, or a
score further off than TOLERANCE, refuses it, with a sentence that says which picture and by how
much. Measured: ONNX Runtime fp32 and OpenVINO fp32 differ by 2e-7, OpenVINO bf16 by 0.016.
"""

from __future__ import annotations

from pathlib import Path

from edged import imaging
from edged.core.errors import ParityError
from edged.core.protocols import Engine
from edged.core.types import ModelSpec
from edged.pipeline.decide import decide
from edged.pipeline.infer import predict

TOLERANCE = 0.05


def qualify(engine: Engine, name: str, spec: ModelSpec, golden: Path) -> float:
    """The largest score difference seen, or ParityError. On the engine's thread."""
    worst = 0.0
    for file, expected in sorted(spec.golden.items()):
        prediction = predict(engine, [imaging.read(golden / file)])
        verdict = decide(prediction, 0, spec.threshold)
        off = abs(verdict.score - expected)
        worst = max(worst, off)
        flipped = verdict.is_anomalous != (round(expected, 4) >= round(spec.threshold, 4))
        if flipped or off > TOLERANCE:
            what = "the verdict flips" if flipped else f"{TOLERANCE} is allowed"
            raise ParityError(
                f"Engine {name} scores golden picture {file} {verdict.score:.4f}, the trainer saw "
                f"{expected:.4f}: {what}. The engine is refused."
            )
    return worst
