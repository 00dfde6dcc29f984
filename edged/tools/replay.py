"""`edged replay`: the score of an archived inspection, given again. A small composition root.

It reads the archive of a configuration, whether the daemon runs or not, finds the model by its hash
among the configuration's and the API's, and judges the kept picture by the same code as the line
(judge.Judge). It changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from edged.archive.reader import JOURNAL, ArchiveReader
from edged.config import Config
from edged.core.errors import EdgedError, InvalidInput, ModelError, NotFound, SinkError
from edged.core.protocols import JournalEntry
from edged.hosting.parity import TOLERANCE
from edged.tools.judge import Judge
from edged.wire import imaging
from edged.wire.imaging import Decoded
from edged.wire.spec import MODEL, SPEC, read_spec

log = logging.getLogger(__name__)

SAME = 1e-4
"""How far scores may be apart on the same engine; on another one, TOLERANCE."""
_AS_CONFIGURED = {
    "onnxruntime cpu fp32": "onnxruntime",
    "onnxruntime cuda fp32": "onnxruntime-cuda",
    "openvino cpu fp32": "openvino",
    "openvino cpu bf16": "openvino-bf16",
    "tensorrt fp32": "tensorrt-fp32",
    "tensorrt fp16": "tensorrt",
    "tensorrt int8": "tensorrt-int8",
}
"""What an engine calls itself, without its device's name -> what a configuration calls it."""


def reader(config: Config) -> ArchiveReader:
    """The archive of a configuration, to read. Raises NotFound without one."""
    given = config.archive.path if config.archive else None
    folder = given or config.state.archive
    if not (folder / JOURNAL).exists():
        raise NotFound(
            f"{folder}: there is no archive: add an [archive] section, and run edged with it."
        )
    return ArchiveReader(folder)


def replay(config: Config, id: str, engine: str | None = None) -> dict[str, Any]:
    """Judge an archived picture again; what was recorded, what comes out, and whether they agree.

    engine: as in a configuration; None = the recorded one, or another if that is not here. Raises
    NotFound, InvalidInput, ModelError, SinkError.
    """
    archive = reader(config)
    try:
        found = archive.find(id)
        picture = _picture(archive, found, id)
    finally:
        archive.close()
    record = found.record
    folder = _model(config, record["model"])
    recorded = str(record.get("engine", ""))
    with ExitStack() as stack:
        judge = _judge(stack, folder, recorded, engine)
        verdict = judge(picture)
        used = judge.engine_name
    tolerance = SAME if used == recorded else TOLERANCE
    difference = abs(verdict.score - record["score"])
    threshold = record["threshold"]
    return {
        "id": id,
        "station": record["station"],
        "seq": record["seq"],
        "model": record["model"]["name"],
        "sha256": record["model"]["sha256"],
        "recorded_engine": recorded,
        "engine": used,
        "recorded_score": record["score"],
        "score": verdict.score,
        "difference": difference,
        "tolerance": tolerance,
        "threshold": threshold,
        "threshold_now": verdict.threshold,
        "recorded_verdict": record["eval"],
        "verdict": "NotOK" if round(verdict.score, 4) >= round(threshold, 4) else "OK",
        "agrees": difference <= tolerance,
    }


def _picture(archive: ArchiveReader, found: JournalEntry, id: str) -> Decoded:
    """The kept picture, which is what was judged, pixel by pixel."""
    record = found.record
    if "score" not in record:
        raise InvalidInput(
            f"Inspection {id} has no verdict ({record.get('reason', 'none')}): there is no score "
            "to give again."
        )
    image = imaging.decode(archive.picture(id)[0], f"The picture of inspection {id}")
    known, now = record.get("image", {}).get("sha256"), hashlib.sha256(image.data).hexdigest()
    if known != now:
        raise SinkError(
            f"The picture of inspection {id} is not the one that was judged: its pixels have "
            f"sha256 {now}, the record says {known}: check the disk."
        )
    return Decoded.whole(image)


def _model(config: Config, wanted: dict[str, Any]) -> Path:
    """The folder with that model. Raises ModelError with both hashes if it has changed."""
    name, sha256 = str(wanted["name"]), str(wanted["sha256"])
    others = []
    for called, folder in _folders(config):
        try:
            spec = read_spec(folder, called)
        except ModelError as error:
            log.warning("%s", error)
            continue
        if spec.ref.sha256 == sha256:
            return folder
        if called == name:
            others.append(f"{folder} has sha256 {spec.ref.sha256} now")
    changed = ", and ".join(others) or "no model of that name is here in the open"
    raise ModelError(
        f"The model {name} with sha256 {sha256} judged, but {changed}: put back the model folder "
        "of then and name it in [[models]]."
    )


def _folders(config: Config) -> Iterator[tuple[str, Path]]:
    """Every model that can be read: the configuration's, and those that the API has trained."""
    for model in config.models:
        yield model.name, model.path
    for spec in sorted(config.state.models.glob(f"*/model/{SPEC}")):
        if (spec.parent / MODEL).exists():
            yield "", spec.parent


def _judge(stack: ExitStack, folder: Path, recorded: str, engine: str | None) -> Judge:
    """On the engine that is asked for, or the recorded one, or whatever is here."""
    wanted = engine or _AS_CONFIGURED.get(recorded.partition(" on ")[0], "auto")
    try:
        return stack.enter_context(Judge(folder, wanted))
    except EdgedError as error:
        if engine is not None or wanted == "auto":
            raise
        log.warning("engine %s is not here (%s): another one judges", recorded, error)
        return stack.enter_context(Judge(folder))
