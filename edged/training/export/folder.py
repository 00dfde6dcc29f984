"""Writes a model folder: whole or not at all.

Owns the temporary folder beside the output, durability and replacement. Learns nothing. The
form of the folder is wire/spec.py's.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from edged.core.errors import InvalidInput
from edged.core.types import Image
from edged.runtime.durable import sync
from edged.wire import imaging
from edged.wire.spec import FORMAT, GOLDEN, MODEL, SPEC


def check_replaceable(output: Path) -> None:
    """Raise InvalidInput unless `output` is free, empty, or a model folder to be replaced."""
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise InvalidInput(f"{output}: is not a folder: choose another output.")
    if not output.exists() or not any(output.iterdir()):
        return
    try:
        spec = json.loads((output / SPEC).read_text(encoding="utf-8"))
        known = isinstance(spec, dict) and "format" in spec and (output / MODEL).is_file()
    except (OSError, ValueError):
        known = False
    if not known:
        raise InvalidInput(
            f"{output}: holds files that are no model; nothing was touched: choose an empty or "
            "new folder."
        )


def write_folder(
    output: Path, model: bytes, spec: Mapping[str, Any], golden: Mapping[str, Image]
) -> None:
    """Write model.onnx, spec.json and golden/ as `output`, replacing a model there.

    Everything is written and synchronised beside `output` and then renamed. On any failure
    nothing half-written stays and the old model is where it was. Raises InvalidInput when
    `output` is something else than a model, or cannot be written.
    """
    output = output.absolute()
    check_replaceable(output)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise InvalidInput(f"{output}: cannot be written ({error.strerror}).") from error
    try:
        new = scratch / "new"
        _fill(new, model, spec, golden)
        _swap(new, output, scratch / "old")
    except OSError as error:
        raise InvalidInput(f"{output}: cannot be written ({error.strerror}).") from error
    finally:
        if output.exists() or not (scratch / "old").exists():  # the only copy is never removed
            shutil.rmtree(scratch, ignore_errors=True)


def rewrite_spec(folder: Path, spec: Mapping[str, Any]) -> None:
    """Replace spec.json of a model folder, whole or not at all. Raises InvalidInput."""
    part = folder / f".{SPEC}.part"
    try:
        part.write_text(_as_text(spec), encoding="utf-8")
        sync(part)
        part.replace(folder / SPEC)
        sync(folder)
    except OSError as error:
        raise InvalidInput(f"{folder}: cannot be written ({error.strerror}).") from error
    finally:
        with suppress(OSError):  # the folder itself may be what cannot be written
            part.unlink(missing_ok=True)


def _as_text(spec: Mapping[str, Any]) -> str:
    text = json.dumps({"format": FORMAT, **spec}, indent=2, sort_keys=True, allow_nan=False)
    return text + "\n"


def _fill(folder: Path, model: bytes, spec: Mapping[str, Any], golden: Mapping[str, Image]) -> None:
    (folder / GOLDEN).mkdir(parents=True)
    (folder / MODEL).write_bytes(model)
    (folder / SPEC).write_text(_as_text(spec), encoding="utf-8")
    for name, image in golden.items():
        imaging.write_png(folder / GOLDEN / name, image)
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


def _swap(new: Path, output: Path, old: Path) -> None:
    """Put `new` in the place of `output`; what stood there goes to `old`, or back on failure."""
    try:
        if output.exists():
            output.rename(old)
        new.rename(output)
    except BaseException:
        if old.exists() and not output.exists():
            old.rename(output)  # also when a cancel came between the two renames
        raise
    sync(output.parent)
