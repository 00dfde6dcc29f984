"""Training: what is done, and how it is a guest on the box, in a process of its own.

Joins training and engines. `train` and `train_and_judge` run wherever they are called;
`TrainingJob` has them run in a child at low priority with a memory cap (runtime/child.py).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edged.core.errors import BadImage, InvalidInput, ModelError
from edged.core.protocols import Progress
from edged.engines import choose
from edged.runtime.child import Cancelled, Child, serve
from edged.tools.judge import Judge
from edged.wire import imaging
from edged.wire.imaging import Opener

if TYPE_CHECKING:
    from edged.store.sealing import Closet

__all__ = ["Cancelled", "TrainingJob"]

MEMORY_MB = 4096
LEAST_MEMORY_MB = 256


class TrainingJob(Child):
    """One training in a process of its own. `run` on one thread; `cancel` on any."""

    def __init__(self, request: dict[str, Any], memory_mb: int = MEMORY_MB) -> None:
        """request: arguments of `train`, JSON-ready, without `progress`.

        With `test` in it, of `train_and_judge`. A child that dies is a ModelError.
        """
        if memory_mb < LEAST_MEMORY_MB:
            raise InvalidInput(
                f"memory {memory_mb} MB: training needs at least {LEAST_MEMORY_MB} MB."
            )
        super().__init__("edged.tools.training_job", "The training", request, memory_mb, ModelError)


def train(
    images: Path,
    output: Path,
    name: str,
    seed: int,
    progress: Progress,
    false_rejects: float | None = None,
    escapes: float | None = None,
    confidence: float = 0.95,
    side: int | None = None,
    backbone: Path | None = None,
    cache: Path | None = None,
    opener: Opener = imaging.content,
) -> dict[str, Any]:
    """Train a model folder from a folder of pictures or a manifest; the trainer's report.

    backbone: an ONNX file instead of EfficientNet-Lite0, see training/features/plug.py. cache:
    where a training that is cut off leaves its features for the next one. opener: how pictures are
    read.
    """
    if seed < 0:
        raise InvalidInput(f"seed {seed}: give a whole number from 0.")
    from edged.training.data.dataset import read_dataset
    from edged.training.features.backbone import EfficientNetLite0
    from edged.training.features.plug import load_network
    from edged.training.figures.budget import asked_budget
    from edged.training.fit import train as fit

    network = load_network(backbone, choose.extractor) if backbone else EfficientNetLite0()
    dataset = read_dataset(images, split="train").opened_by(opener)
    return fit(
        dataset,
        output,
        name=name,
        seed=seed,
        extractor=choose.extractor,
        progress=progress,
        side=side,
        budget=asked_budget(false_rejects, escapes, confidence),
        network=network,
        versions={"opencv": imaging.version(), **choose.extractor_version()},
        cache=cache,
    )


def train_and_judge(
    images: Path,
    output: Path,
    test: Path,
    progress: Progress,
    sealed: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Train as `train` does, and judge the manifest `test` with the new model.

    The report has two more members: `test`, the figures, and `judged`, for each picture that could
    be judged [path, is_anomalous, score, rejected]. sealed: `folder`, whose files are sealed, and
    their `key`, of store/sealing.py.
    """
    from edged.store.sealing import Closet, DataKey
    from edged.training.data.dataset import read_dataset
    from edged.training.evaluate import figures, tally

    opener = imaging.content
    if sealed is not None:
        closet = Closet(Path(sealed["folder"]), DataKey.from_text(sealed["key"]))
        opener = partial(_unsealed, closet)
    report = train(images, output, progress=progress, opener=opener, **more)
    with Judge(output, "onnxruntime") as judge:
        dataset = read_dataset(test, split="test").opened_by(opener)
        found = tally(dataset, judge, progress, judge.spec.classes, judge.size)
    judged = [[str(p.path), p.is_anomalous, p.score, p.rejected] for p in found.pictures]
    return {**report, "test": figures(found), "judged": judged}


def _unsealed(closet: Closet, path: Path) -> bytes:
    """An Opener."""
    try:
        return closet.opened(path)
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror}).") from error
    except ModelError as error:
        raise BadImage(str(error)) from None


def _train(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    for key in ("images", "output", "backbone", "cache", "test"):
        if request.get(key) is not None:
            request[key] = Path(request[key])
    work = train_and_judge if "test" in request else train
    return work(**request, progress=progress)


if __name__ == "__main__":
    sys.exit(serve(_train, "Training"))
