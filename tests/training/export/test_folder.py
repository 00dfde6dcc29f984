"""A model folder is replaced whole or not at all."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from edged.training.export.folder import write_folder


def test_a_cancel_between_the_two_renames_leaves_a_whole_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "model"
    write_folder(output, b"first", {"name": "m"}, {})
    renamed = Path.rename
    moves: list[str] = []

    def rename(self: Path, target: Path) -> Path:
        moved = renamed(self, target)
        moves.append(self.name)
        if len(moves) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return moved

    def cancel(number: int, frame: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        monkeypatch.setattr(Path, "rename", rename)
        with pytest.raises(SystemExit):
            write_folder(output, b"second", {"name": "m"}, {})
    finally:
        signal.signal(signal.SIGTERM, before)
    assert moves == ["model", "old"], "what stood there went aside, and came back"
    assert (output / "model.onnx").read_bytes() == b"first"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
