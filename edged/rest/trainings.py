"""CreateModel, and the trainings that it asks for: one after the other, in the background.

Owns the way from a project's data sets to a model's folder and its evaluation files. What is to be
trained lies in the model's folder since CreateModel answered; after a crash it is trained again,
with the features that were kept. Pictures are judged as the documentation says: all of one size,
the test set apart; a single data set is split, one in five to the test.

Choices where nothing is documented: an unknown key is a ValidationException at once, since nothing
is gained by finding out later; faults of pictures are found in training.
"""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from edged.core.errors import (
    BadDataset,
    EdgedError,
    InvalidInput,
    NotFound,
    QuotaExceeded,
    Resource,
)
from edged.core.lifecycle import MODEL_LIFE, ModelEvent, ModelStatus, advance
from edged.rest import tags
from edged.rest.context import Call, Context, check_picture, model_arn, project_of
from edged.rest.models import MODEL, TRAINED, closet_of, metadata
from edged.rest.training_data import lines_of
from edged.store.buckets import split
from edged.store.models import ModelRow
from edged.store.sealing import Closet, DataKey
from edged.wire.manifest import ANOMALY, META, SOURCE, kind_of

log = logging.getLogger(__name__)

TRAINING = "The model is being trained."
TEST_SHARE = 5
"""One in so many goes to the test set when there is a single data set."""
NO_PERFORMANCE = {"F1Score": 0.0, "Recall": 0.0, "Precision": 0.0}

ManifestLine: TypeAlias = dict[str, Any]
Train: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
"""Runs a training: arguments of tools.training_job.train_and_judge, JSON-ready, to its report."""


def create(context: Context, call: Call) -> dict[str, Any]:
    """A model in training, on the entries that the data sets have now."""
    kms, master = call.get("KmsKeyId"), None
    if kms is not None:
        try:
            master = context.keyring.find(kms)
        except NotFound as error:
            raise InvalidInput(str(error)) from None
    where = call["OutputConfig"]["S3Location"]
    prefix = where.get("Prefix", "")
    try:
        context.buckets.bucket(where["Bucket"]).check(f"{prefix}EvaluationResult.json")
    except NotFound as error:
        raise InvalidInput(f"OutputConfig: {error}") from None
    with context.catalog.transaction():
        project = project_of(context, call)
        data = lines_of(context, project)
        if len(context.models.having(ModelStatus.TRAINING)) >= context.quotas.trainings:
            raise QuotaExceeded(
                f"{context.quotas.trainings} models are in training, as many as are allowed: wait "
                "until one is done.",
                "TRAININGS",
                Resource("MODEL", project.name),
            )
        facts = {
            "description": call.get("Description"),
            "output": {"Bucket": where["Bucket"], "Prefix": prefix},
        }
        row = context.models.add(project, ModelStatus.TRAINING, TRAINING, facts, context.now())
        arn = model_arn(row.scope, row.project, row.version)
        key = DataKey.new() if master is not None else None
        if master is not None and key is not None:
            facts |= {"kms": kms, "data_key": key.wrapped(master.key, arn)}
            context.models.set(row, row.status, row.message, facts)
        closet = Closet(context.state.models / str(row.id), key)
        closet.root.mkdir(parents=True, exist_ok=True)
        for kind, lines in data.items():
            closet.write(f"{kind}.manifest", ("\n".join(lines) + "\n").encode(), durable=True)
        if call.get("Tags"):
            resource = Resource("MODEL", f"{row.project}/{row.version}")
            tags.put(context, arn, resource, call["Tags"])
    context.wake()
    return {"ModelMetadata": metadata(context, row)}


def settle(context: Context, train: Train, stopped: Callable[[], bool]) -> None:
    """Train every model that waits for it, and remove folders of models that are gone."""
    while not stopped():
        waiting = context.models.having(ModelStatus.TRAINING)
        if not waiting:
            break
        _train(context, train, waiting[0], stopped)
    _sweep(context)


def _train(context: Context, train: Train, row: ModelRow, stopped: Callable[[], bool]) -> None:
    try:
        facts = _trained(context, train, row)
        event, message = ModelEvent.TRAINING_DONE, TRAINED
    except EdgedError as error:
        if stopped():
            return  # the daemon ends: the model is trained at its next start
        event, message, facts = ModelEvent.TRAINING_FAILED, str(error), row.facts
    except Exception:
        log.exception("model %s/%d: its training failed", row.project, row.version)
        message = "The training failed for a reason of the server's own; its log says why."
        event, facts = ModelEvent.TRAINING_FAILED, row.facts
    for name in ("images", "features"):
        shutil.rmtree(context.state.models / str(row.id) / name, ignore_errors=True)
    context.scratch.remove(_place(row))
    status = advance(MODEL_LIFE, row.status, event, f"The model {row.project}/{row.version}")
    context.models.set(row, status, message, facts)


def _trained(context: Context, train: Train, row: ModelRow) -> dict[str, Any]:
    """Train, write the evaluation, and give the model's facts."""
    closet = closet_of(context, row)
    context.buckets.bucket(row.facts["output"]["Bucket"]).reach()  # before hours, not after
    # Of a sealed model, what lies open lies in memory; its features are not kept.
    work = closet.root if closet.key is None else context.scratch.place(_place(row))
    (closet.root / "images").mkdir(exist_ok=True)
    sets = _sets(closet, row.id)
    sources: dict[str, ManifestLine] = {}
    sizes: set[tuple[int, int]] = set()
    for kind, entries in sets.items():
        local = [_local(context, closet, kind, n, e, sizes) for n, e in enumerate(entries)]
        for mine, entry in zip(local, entries, strict=True):
            sources[mine[SOURCE]] = entry
        text = "\n".join(json.dumps(each) for each in local)
        (work / f"local-{kind}.manifest").write_text(text + "\n", encoding="utf-8")
    request = {
        "images": str(work / "local-train.manifest"),
        "test": str(work / "local-test.manifest"),
        "output": str(work / MODEL),
        "name": f"{row.project}-{row.version}",
        "seed": 0,
    }
    if closet.key is None:
        report = train({**request, "cache": str(work / "features")})
    else:
        sealed = {"folder": str(closet.root), "key": closet.key.text()}
        report = train({**request, "sealed": sealed})
        closet.take_in(work / MODEL, MODEL)
    return _evaluated(context, row, report, sources)


def _place(row: ModelRow) -> str:
    return f"training-{row.id}"


def _sets(closet: Closet, seed: int) -> dict[str, list[ManifestLine]]:
    """Entries of the train and of the test set."""
    read = {
        kind: [json.loads(line) for line in closet.read(f"{kind}.manifest").split(b"\n") if line]
        for kind in ("train", "test")
        if (closet.root / f"{kind}.manifest").exists()
    }
    if "test" in read:
        return read
    chosen = random.Random(seed)
    train: list[ManifestLine] = []
    test: list[ManifestLine] = []
    for anomalous in (False, True):
        entries = [e for e in read["train"] if (kind_of(e, "entry") == ANOMALY) is anomalous]
        chosen.shuffle(entries)
        count = max(1, len(entries) // TEST_SHARE)
        test += entries[:count]
        train += entries[count:]
    return {"train": train, "test": test}


def _local(
    context: Context,
    closet: Closet,
    kind: str,
    number: int,
    entry: ManifestLine,
    sizes: set[tuple[int, int]],
) -> ManifestLine:
    """The entry with files of this box in place of its references; checks its picture."""
    local = dict(entry)
    for key, reference in entry.items():
        mask = key.endswith("-ref") and f"{key}{META}" in entry
        if key == SOURCE or (mask and isinstance(reference, str)):
            bucket, name = split(reference)
            keep = partial(closet.write, f"images/{kind}-{number}-{key}{Path(name).suffix.lower()}")
            local[key] = str(context.buckets.bucket(bucket).fetch(name, keep))
    data = _content(closet, Path(local[SOURCE]), entry[SOURCE])
    sizes.add(check_picture(context.quotas, data, entry[SOURCE]))
    if len(sizes) > 1:
        raise BadDataset("Images in the dataset must have the same dimensions.")
    return local


def _content(closet: Closet, path: Path, reference: str) -> bytes:
    try:
        return closet.opened(path)
    except OSError as error:
        raise BadDataset(f"{reference}: cannot be read ({error.strerror}).") from error


def _evaluated(
    context: Context, row: ModelRow, report: Mapping[str, Any], sources: Mapping[str, ManifestLine]
) -> dict[str, Any]:
    """Write both evaluation files; the model's facts with them."""
    now = context.now()
    figures, arn = report["test"], model_arn(row.scope, row.project, row.version)
    where = row.facts["output"]
    bucket = context.buckets.bucket(where["Bucket"])
    names = {
        kind: f"{where['Prefix']}Evaluation{kind}-{row.project}-{row.version}.json"
        for kind in ("Manifest", "Result")
    }
    day = datetime.fromtimestamp(now, timezone.utc).isoformat(timespec="microseconds")
    lines = [_line(each, sources, row, arn, day) for each in report["judged"]]
    bucket.write(names["Manifest"], ("\n".join(lines) + "\n").encode("utf-8"))
    metrics = {
        "ROCAUC": figures["auroc"],
        "AveragePrecision": figures["average_precision"],
        "Precision": figures["precision"],
        "Recall": figures["recall"],
        "F1Score": figures["f1"],
    }
    metrics = {key: 0.0 if value is None else value for key, value in metrics.items()}
    pixels = figures.get("pixel_anomaly_class_metrics")
    result = {
        "Version": 1,
        "EvaluationDetails": {
            "ModelArn": arn,
            "EvaluationEndTimestamp": day,
            "NumberOfTrainingImages": report["images"],
            "NumberOfTestingImages": figures["images"],
        },
        "AggregatedEvaluationResults": {
            "Metrics": {**metrics, **({"PixelAnomalyClassMetrics": pixels} if pixels else {})}
        },
    }
    bucket.write(names["Result"], json.dumps(result, indent=2).encode("utf-8"))
    return {
        **row.facts,
        "performance": {key: metrics[key] for key in NO_PERFORMANCE},
        "evaluation_manifest": {"Bucket": where["Bucket"], "Key": names["Manifest"]},
        "evaluation_result": {"Bucket": where["Bucket"], "Key": names["Result"]},
        "evaluation_end": round(now, 3),
        "warnings": report["warnings"],
    }


def _line(
    judged: list[Any], sources: Mapping[str, ManifestLine], row: ModelRow, arn: str, day: str
) -> str:
    """One picture of the evaluation manifest."""
    path, is_anomalous, score, rejected = judged
    words = ("normal", "anomaly")
    return json.dumps(
        {
            "source-ref": sources[path][SOURCE],
            "source-ref-metadata": {"creation-date": day},
            "anomaly-label": int(is_anomalous),
            "anomaly-label-metadata": {
                "class-name": words[is_anomalous],
                "type": "groundtruth/image-classification",
                "human-annotated": "yes",
                "creation-date": day,
                "job-name": "labeling-job/anomaly-detection",
            },
            "anomaly-label-detected": int(rejected),
            "anomaly-label-detected-metadata": {
                "class-name": words[rejected],
                "confidence": round(score if rejected else 1.0 - score, 4),
                "type": "groundtruth/image-classification",
                "human-annotated": "no",
                "creation-date": day,
                "job-name": "training-job/anomaly-detection",
                "model-arn": arn,
                "project-name": row.project,
                "model-version": str(row.version),
            },
        }
    )


def _sweep(context: Context) -> None:
    """Remove folders whose model is gone."""
    if not context.state.models.is_dir():
        return
    for path in context.state.models.iterdir():
        if not path.name.isdecimal() or context.models.by_id(int(path.name)) is not None:
            continue
        with context.catalog.transaction():  # a model in the making has a folder before its row
            if context.models.by_id(int(path.name)) is not None:
                continue
        shutil.rmtree(path, ignore_errors=True)
