"""Training as a guest on the box: see runtime/child.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edged.core.errors import InvalidInput, ModelError
from edged.core.protocols import Progress
from edged.runtime.child import Cancelled, Child, serve

__all__ = ["Cancelled", "TrainingJob"]

MEMORY_MB = 4096
LEAST_MEMORY_MB = 256


class TrainingJob(Child):
    """One training in a process of its own. `run` on one thread; `cancel` on any."""

    def __init__(self, request: dict[str, Any], memory_mb: int = MEMORY_MB) -> None:
        """request: arguments of judge.train, JSON-ready, without `progress`.

        With `test` in it, of judge.train_and_judge. A child that dies is a ModelError.
        """
        if memory_mb < LEAST_MEMORY_MB:
            raise InvalidInput(
                f"memory {memory_mb} MB: training needs at least {LEAST_MEMORY_MB} MB."
            )
        super().__init__("edged.tools.training_job", "The training", request, memory_mb, ModelError)


def _train(request: dict[str, Any], progress: Progress) -> dict[str, Any]:
    from edged.tools import judge

    for key in ("images", "output", "backbone", "cache", "test"):
        if request.get(key) is not None:
            request[key] = Path(request[key])
    work = judge.train_and_judge if "test" in request else judge.train
    return work(**request, progress=progress)


if __name__ == "__main__":
    sys.exit(serve(_train, "Training"))
