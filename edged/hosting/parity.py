"""The parity gate: an engine serves only if it reproduces what the trainer saw.

The golden pictures of the model are scored on the engine just loaded. A verdict that flips, or a
score further off than TOLERANCE, refuses it, with a sentence that says which picture and by how
much; then the next engine is asked. Measured: ONNX Runtime fp32 and OpenVINO fp32 differ by 2e-7,
OpenVINO bf16 by 0.016 on photographs (it may serve) and by up to 0.09 on rendered parts (it may
not).

Golden pictures lie in the middle of their class, so a coarser engine passes them although it
judges parts near the threshold otherwise (commutators: off by 0.0225, one verdict of 160). So its
largest difference, before the sigmoid and with some SAFETY, is held against the scores of all the
training's pictures: if one lies nearer to the threshold than that, such parts exist, and the engine
is refused.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from edged.core.errors import EngineError, MissingDependency, ParityError
from edged.core.protocols import Engine, EngineLoader
from edged.core.types import ModelSpec
from edged.hosting.decide import decide
from edged.hosting.units import predict
from edged.wire import imaging

TOLERANCE = 0.02
EXACT = 0.001
"""Logits; an engine off by less computes as the trainer did, but for the order of its sums."""
SAFETY = 5.0
"""Golden pictures are few: others may be this many times as far off as the worst of them."""
TELLING = 0.001
"""Scores nearer to 0 or 1 tell nothing of a difference before the sigmoid."""

log = logging.getLogger(__name__)


LoadEngine: TypeAlias = Callable[[], EngineLoader]


class Proven(NamedTuple):
    """An engine that may serve: its largest score difference, and how it was loaded."""

    loader: EngineLoader
    off: float
    load: LoadEngine


def first_qualified(loads: Sequence[LoadEngine], spec: ModelSpec, golden: Path) -> Proven:
    """The first engine that loads and proves itself.

    Raises what the last one raised (EngineError, ParityError, MissingDependency) if none does.
    """
    *others, last = loads
    for load in others:
        try:
            return _proven(load, spec, golden)
        except (EngineError, ParityError, MissingDependency) as error:
            log.warning("model %s: %s Trying the next engine.", spec.ref.name, error)
    return _proven(last, spec, golden)


def _proven(load: LoadEngine, spec: ModelSpec, golden: Path) -> Proven:
    loader = load()
    try:
        engine = loader.open()
        try:
            return Proven(loader, qualify(engine, loader.name, spec, golden), load)
        finally:
            engine.close()
    except BaseException:
        loader.close()
        raise


def qualify(engine: Engine, name: str, spec: ModelSpec, golden: Path) -> float:
    """The largest score difference seen, or ParityError. On the engine's thread."""
    worst = steepest = 0.0
    for file, expected in sorted(spec.golden.items()):
        prediction = predict(engine, [imaging.read(golden / file)])
        verdict = decide(prediction, 0, spec.threshold)
        off = abs(verdict.score - expected)
        worst = max(worst, off)
        if TELLING < expected < 1.0 - TELLING:
            steepest = max(steepest, abs(_logit(verdict.score) - _logit(expected)))
        flipped = verdict.is_anomalous != (round(expected, 4) >= round(spec.threshold, 4))
        if flipped or off > TOLERANCE:
            what = "the verdict flips" if flipped else f"{TOLERANCE} is allowed"
            raise ParityError(
                f"Engine {name} scores golden picture {file} {verdict.score:.4f}, the trainer saw "
                f"{expected:.4f}: {what}. The engine is refused."
            )
    _check_margin(steepest, name, spec)
    return worst


def _check_margin(off: float, name: str, spec: ModelSpec) -> None:
    """Raise ParityError if an engine that is `off` (in logits) flips parts as training had them."""
    threshold = _logit(spec.threshold)
    near = sum(abs(_logit(score) - threshold) <= SAFETY * off for score in spec.seen_scores)
    if off > EXACT and near:
        raise ParityError(
            f"Engine {name} is off by up to {off:.3f} before the sigmoid, and {near} of "
            f"{len(spec.seen_scores)} training pictures lie near enough to the "
            f"threshold {spec.threshold:g} for verdicts to flip. The engine is refused."
        )


def _logit(score: float) -> float:
    """Where a score lies before the sigmoid that makes it: there a difference means the same."""
    inside = min(max(score, 1e-6), 1.0 - 1e-6)
    return math.log(inside / (1.0 - inside))
