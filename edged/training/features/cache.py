"""Features on disk while a training runs, so that one that was cut off goes on where it was.

Owns the folder until the model is written. A picture's features are filed under everything that
they depend on, so what is found is bit for bit what would be computed; a damaged file counts as
none. A disk that is full costs the cache, never the training.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edged.core.types import Floats

Features = tuple[npt.NDArray[np.float16], Floats]
"""A picture's rows: projected locals (rows, positions, dimensions) and wholes (rows, whole)."""


class FeatureCache:
    """Features by key, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._inner = folder / "features"
        self.failure = ""
        """Why it stopped keeping, if it did."""

    @staticmethod
    def key(**facts: Any) -> str:
        """The name under which features are filed that depend on these facts."""
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:40]

    def find(self, key: str) -> Features | None:
        """What was kept under the key."""
        try:
            # Opened here: numpy would leave a damaged file open.
            with (self._inner / f"{key}.npz").open("rb") as file:
                kept = np.load(file, allow_pickle=False)
                return kept["local"], kept["whole"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None

    def keep(self, key: str, features: Features) -> None:
        """File the features, whole or not at all; after the first failure nothing more."""
        if self.failure:
            return
        part = self._inner / f"{key}.part"
        try:
            self._inner.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:
                np.savez(file, local=features[0], whole=features[1])
            part.replace(self._inner / f"{key}.npz")
        except OSError as error:
            self.failure = error.strerror or str(error)
            self.remove()  # it gives back what it took from a full disk

    def remove(self) -> None:
        """Forget everything; a folder that holds anything else is left."""
        shutil.rmtree(self._inner, ignore_errors=True)
        try:
            self._folder.rmdir()
        except OSError:
            pass  # not empty, or not there
