"""Where the shared reference data lies, if it lies anywhere: the product never needs it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("EDGED_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))


def shared_data(relative: str) -> Path:
    """The file or folder, or skip the test that asks for it."""
    path = ROOT / relative
    if not path.exists():
        pytest.skip(f"reference data is not here: {relative} (set EDGED_SHARED_DATA to its folder)")
    return path
