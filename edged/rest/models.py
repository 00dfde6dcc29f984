"""ListModels, DescribeModel, DeleteModel, StartModel, StopModel.

A row holds what is wanted and what has settled: TRAINING, TRAINED, TRAINING_FAILED, HOSTED for a
model that shall be hosted, also after a restart, and STOPPING_HOSTING until it no longer is. What
the daemon does with a hosted one right now is asked of it: the status that is told is a projection
of both.

CreateModel is in trainings.py. A choice where nothing is documented: `latest` is the highest
version, and a version is never used again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edged.core.errors import (
    InvalidInput,
    ModelError,
    NotFound,
    Resource,
    WrongState,
)
from edged.core.lifecycle import MODEL_LIFE, ModelEvent, ModelStatus, advance
from edged.rest.context import (
    PAGE,
    Call,
    Context,
    model_arn,
    model_of,
    page_start,
    page_token,
    project_of,
)
from edged.store.models import ModelRow
from edged.store.sealing import Closet, DataKey

log = logging.getLogger(__name__)

MODEL = "model"
TRAINED = "Training completed successfully."
STARTING = "The model is starting."
RUNNING = "The model is running"
STOPPING = "The model is stopping."
NOT_HOSTED = "The model could not be hosted again after a restart: start it, or see the log."


def list_all(context: Context, call: Call) -> dict[str, Any]:
    """Models by version."""
    limit = call.get("MaxResults") or PAGE
    of = f"models {call['ProjectName']}"
    after = page_start(call.get("NextToken"), of, int) or 0
    found = context.models.of(project_of(context, call), after, limit + 1)
    page = found[:limit]
    return {
        "Models": [metadata(context, each) for each in page],
        "NextToken": page_token(of, page[-1].version) if len(found) > limit else None,
    }


def describe(context: Context, call: Call) -> dict[str, Any]:
    """Everything about a model."""
    _, row = model_of(context, call)
    facts = row.facts
    units = {"MinInferenceUnits": facts.get("units"), "MaxInferenceUnits": facts.get("most")}
    return {
        "ModelDescription": {
            **metadata(context, row),
            "OutputConfig": {"S3Location": facts["output"]},
            "EvaluationManifest": facts.get("evaluation_manifest"),
            "EvaluationResult": facts.get("evaluation_result"),
            "EvaluationEndTimestamp": facts.get("evaluation_end"),
            "KmsKeyId": facts.get("kms"),
            **(units if row.status is ModelStatus.HOSTED else {}),
        }
    }


def delete(context: Context, call: Call) -> dict[str, Any]:
    """Remove a model that is neither in training nor hosted, before the answer."""
    with context.catalog.transaction():
        _, row = model_of(context, call)
        _moved(context, row, ModelEvent.DELETE)
        me = (row.scope, row.project, row.version)
        if me in [(job.scope, job.project, job.version) for job in context.jobs.waiting()]:
            raise WrongState(
                f"The model {row.project}/{row.version} is being packaged: wait until that has "
                "ended.",
                Resource("MODEL", f"{row.project}/{row.version}"),
            )
        _unhost(context, row)
        context.models.delete(row)
        arn = model_arn(row.scope, row.project, row.version)
        context.catalog.set_tags(arn, {})
    context.wake()  # its folder goes in the background
    return {"ModelArn": arn}


def start(context: Context, call: Call) -> dict[str, Any]:
    """Host a trained model."""
    units = int(call["MinInferenceUnits"])
    most = int(call.get("MaxInferenceUnits") or units)
    if most < units:
        raise InvalidInput(
            f"MaxInferenceUnits {most} is less than MinInferenceUnits {units}: give at least as "
            "many."
        )
    with context.catalog.transaction():
        _, row = model_of(context, call)
        starting = _moved(context, row, ModelEvent.START)
        # The row says what it shall come to; what the daemon does with it now is asked of it.
        wanted = advance(MODEL_LIFE, starting, ModelEvent.HOSTING_DONE, hosted_name(row))
        facts = {**row.facts, "units": units, "most": most}
        context.models.set(row, wanted, STARTING, facts)
        host(context, row, units, most)
        # What cannot be written down must not run.
        context.catalog.on_rollback(partial(_unhost, context, row))
    return {"Status": starting.value}


def stop(context: Context, call: Call) -> dict[str, Any]:
    """Stop hosting; what is in progress is finished in the background."""
    with context.catalog.transaction():
        _, row = model_of(context, call)
        stopping = _moved(context, row, ModelEvent.STOP)
        context.models.set(row, stopping, STOPPING, row.facts)
    context.wake()
    return {"Status": stopping.value}


def settle(context: Context, beat: Callable[[], None]) -> None:
    """End the hosting of every model that was stopped. beat: before each."""
    for row in context.models.having(ModelStatus.STOPPING_HOSTING):
        beat()
        try:
            _unhost(context, row)
        except WrongState as error:
            log.warning("a model could not be stopped, and is tried again: %s", error)
            continue
        stopped = advance(MODEL_LIFE, row.status, ModelEvent.STOPPED, hosted_name(row))
        context.models.set(row, stopped, TRAINED, row.facts)


def host(context: Context, row: ModelRow, units: int, most: int) -> None:
    """Begin to host a trained model; see context.ModelHosting."""

    def opened() -> Path:
        place = context.scratch.place(_place(row))
        closet_of(context, row).take_out(MODEL, place)
        return place

    sealed = opened if "data_key" in row.facts else None
    folder = context.state.models / str(row.id) / MODEL
    context.hosting.host(hosted_name(row), folder, units, most, sealed)


def _unhost(context: Context, row: ModelRow) -> None:
    context.hosting.unhost(hosted_name(row))
    context.scratch.remove(_place(row))


def _place(row: ModelRow) -> str:
    return f"hosted-{row.id}"


def status_of(context: Context, row: ModelRow) -> tuple[ModelStatus, str]:
    """What a model is now, and the message that goes with it."""
    settled = row.status
    live = context.hosting.hosted(hosted_name(row))
    if live is None:
        lost = settled is ModelStatus.HOSTED
        return (ModelStatus.HOSTING_FAILED, NOT_HOSTED) if lost else (settled, row.message)
    if settled is not ModelStatus.HOSTED:
        return settled, row.message
    message = RUNNING if live.message == f"{RUNNING}." else live.message
    return live.status, message


def _moved(context: Context, row: ModelRow, event: ModelEvent) -> ModelStatus:
    """Where `event` leads the model as it is now. Raises WrongState if it may not happen."""
    status, _ = status_of(context, row)
    name = f"{row.project}/{row.version}"
    try:
        return advance(MODEL_LIFE, status, event, f"The model {name}")
    except WrongState as error:
        raise WrongState(str(error), Resource("MODEL", name)) from None


def metadata(context: Context, row: ModelRow) -> dict[str, Any]:
    """What lists tell of a model."""
    status, message = status_of(context, row)
    return {
        "CreationTimestamp": round(row.created, 3),
        "ModelVersion": str(row.version),
        "ModelArn": model_arn(row.scope, row.project, row.version),
        "Description": row.facts.get("description"),
        "Status": status.value,
        "StatusMessage": message,
        "Performance": row.facts.get("performance"),
    }


def hosted_name(row: ModelRow) -> str:
    """What the data plane calls the model; no name in a configuration has slashes."""
    return f"{row.scope.account}/{row.scope.region}/{row.project}/{row.version}"


def closet_of(context: Context, row: ModelRow) -> Closet:
    """The model's folder; its model folder is `MODEL` in it. Raises ModelError without its key."""
    root, wrapped = context.state.models / str(row.id), row.facts.get("data_key")
    if wrapped is None:
        return Closet(root, None)
    try:
        master = context.keyring.find(row.facts["kms"]).key
    except NotFound:
        raise ModelError(
            f"The model {row.project}/{row.version} is encrypted, and the keyring has no key "
            f"{row.facts['kms']} any more: bring back the keyring."
        ) from None
    return Closet(
        root, DataKey.unwrapped(wrapped, master, model_arn(row.scope, row.project, row.version))
    )
