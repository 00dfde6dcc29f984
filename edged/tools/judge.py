"""Judging from the command line: one model on one engine, without a daemon.

It judges by the line's own code (`first_qualified`, `predict`, `decide`), so that a file gets the
same verdict here and there; beside it what is asked of a trained model: evaluation, threshold.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.core.errors import BadImage, InvalidInput, NotFound
from edged.core.protocols import Engine, Progress
from edged.core.types import ModelSpec, Verdict
from edged.engines import choose
from edged.engines.choose import EngineRequest
from edged.engines.plan import PRECISIONS
from edged.engines.tune import engines_of
from edged.hosting.decide import decide
from edged.hosting.parity import first_qualified
from edged.hosting.units import check_size, predict
from edged.runtime.state import StateFolder
from edged.wire import imaging
from edged.wire.imaging import Decoded
from edged.wire.results import detect_anomaly_result
from edged.wire.spec import GOLDEN, read_spec

if TYPE_CHECKING:
    pass


class Judge:
    """One model on one engine, on the calling thread. Use as a context manager."""

    def __init__(self, model: Path, engine: str = "auto") -> None:
        self._folder = model
        self._choice = engine
        self.spec: ModelSpec = read_spec(model)
        self.engine_name = ""

    def __enter__(self) -> Judge:
        request, engines = EngineRequest(self._choice, units=1), engines_of(user_state())
        candidates = engines.candidates(self._folder, self.spec, request)
        if self._choice in PRECISIONS:  # who names it here wants its numbers, and no other's
            choose.check_installed(self._choice)
            candidates = [engines.candidate(self._choice, self._folder, self.spec, request)]
        self._loader = first_qualified(candidates, self.spec, self._folder / GOLDEN).loader
        self.engine_name = self._loader.name
        self._engine: Engine = self._loader.open()
        return self

    def __exit__(self, *_: object) -> None:
        self._engine.close()
        self._loader.close()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the model's input, in pixels."""
        return (self.spec.height, self.spec.width)

    def read(self, path: Path) -> Decoded:
        """The picture in a file, decoded for the model's input. Raises BadImage."""
        return imaging.read_for(path, self.size)

    def __call__(self, picture: Decoded) -> Verdict:
        """The verdict, its mask at `picture.shape`; BadImage if that is not the training's."""
        check_size(picture.shape, self.spec)
        prediction = predict(self._engine, [picture.image])
        return decide(prediction, 0, self.spec.threshold, self.spec.classes, picture.shape)


def user_state() -> StateFolder:
    """The user's cache folder, where the speed of engines is remembered, and plans are kept."""
    home = os.environ.get("XDG_CACHE_HOME")
    return StateFolder((Path(home) if home else Path.home() / ".cache") / "edged")


def set_threshold(
    model: Path,
    value: float | None,
    false_rejects: float | None,
    escapes: float | None,
    confidence: float,
    reason: str,
) -> dict[str, Any]:
    """Change a model's threshold, and record the change; what was done."""
    from edged.training.figures.budget import asked_budget
    from edged.training.threshold import change

    budget = asked_budget(false_rejects, escapes, confidence)
    if value is not None and budget is not None:
        raise InvalidInput("Give --value or a budget, not both: one threshold.")
    wanted = budget if value is None else value
    if wanted is None:
        raise InvalidInput("Give --value, --false-rejects or --escapes.")
    return change(model, wanted, reason)


def evaluate(
    model: Path, images: Path, engine: str, progress: Progress, report: Path | None = None
) -> dict[str, Any]:
    """Judge a labelled set; the metrics. With `report`, an HTML page is written there."""
    from edged.training.data.dataset import read_dataset
    from edged.training.evaluate import figures, tally
    from edged.training.report import write_report

    dataset = read_dataset(images, split="test")
    with Judge(model, engine) as judge:
        found = tally(dataset, judge, progress, judge.spec.classes, judge.size)
        if report is not None:
            title = f"{judge.spec.ref.name} on {images.name}, {judge.engine_name}"
            write_report(report, title, found, judge)
    return {"engine": judge.engine_name, **figures(found)}


def detect(
    model: Path, paths: list[Path], engine: str, heatmaps: Path | None
) -> Iterator[dict[str, Any]]:
    """One object per picture: its verdict in DetectAnomalyResult form, or `error`."""
    with Judge(model, engine) as judge:
        files = list(pictures(paths))
        if not files:
            raise NotFound(f"{', '.join(map(str, paths))}: no pictures there.")
        overlays = _distinct(files)
        for path in files:
            overlay = None if heatmaps is None else heatmaps / overlays[path]
            try:
                yield _judged(path, judge, overlay)
            except BadImage as error:
                words = str(error)
                known = words.startswith(str(path))
                yield {"name": str(path), "error": words if known else f"{path}: {words}"}


def _judged(path: Path, judge: Judge, overlay: Path | None) -> dict[str, Any]:
    verdict = judge(judge.read(path))
    found: dict[str, Any] = {
        "name": str(path),
        "score": verdict.score,
        "threshold": verdict.threshold,
        "engine": judge.engine_name,
        "DetectAnomalyResult": detect_anomaly_result(verdict),
    }
    if overlay is None or verdict.heatmap is None:
        return found
    overlay.parent.mkdir(parents=True, exist_ok=True)
    # Read anew, at full size: the score must not depend on whether somebody wants to see it.
    imaging.write_png(overlay, imaging.heatmap_overlay(imaging.read(path), verdict.heatmap))
    found["heatmap"] = str(overlay)
    if verdict.mask is not None:
        colors = [c.color for c in judge.spec.classes]
        drawn = overlay.with_name(overlay.name.replace(".heatmap.", ".mask."))
        imaging.write_png(drawn, imaging.mask_overlay(verdict.mask, colors))
        found["mask"] = str(drawn)
    return found


def _distinct(files: list[Path]) -> dict[Path, str]:
    """A name for each overlay: the picture's own, and its folders' before it where two share it."""
    names: dict[Path, str] = {}
    for path in files:
        name, parents = path.stem, list(path.resolve().parents)
        while f"{name}.heatmap.png" in names.values() and parents:
            name = f"{parents.pop(0).name}-{name}"
        names[path] = f"{name}.heatmap.png"
    return names


def pictures(paths: list[Path]) -> Iterator[Path]:
    """The picture files among files and folders. Raises NotFound for a path that is neither."""
    for path in paths:
        if path.is_dir():
            yield from sorted(
                p for p in path.rglob("*") if p.suffix.lower() in imaging.SUFFIXES and p.is_file()
            )
        elif path.exists():
            yield path
        else:
            raise NotFound(f"{path}: no such file or folder.")
