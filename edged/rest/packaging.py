"""StartModelPackagingJob, DescribeModelPackagingJob, ListModelPackagingJobs.

A job writes one signed bundle (store/bundle.py) to `<Prefix><component>-<version>.edged.zip`;
`edged import` installs it on another box. The graph in it runs on every target that the API knows,
so a target is checked and written down, and nothing is compiled for it: the engine that serves is
chosen, and proves itself, where the model is started.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from edged.core.errors import EdgedError, InvalidInput, NotFound, Resource, WrongState
from edged.core.lifecycle import (
    PACKAGING_LIFE,
    ModelStatus,
    PackagingEvent,
    PackagingStatus,
    advance,
)
from edged.rest.context import (
    PAGE,
    Call,
    Context,
    model_arn,
    page_start,
    page_token,
    project_of,
)
from edged.rest.models import MODEL, closet_of, status_of
from edged.store import bundle
from edged.store.models import ModelRow
from edged.store.packaging_jobs import PackagingJobRow

UNTRAINED = (ModelStatus.TRAINING, ModelStatus.TRAINING_FAILED, ModelStatus.DELETING)
METHOD = "Greengrass"
NVIDIA = {"gpu-code": r"sm_\d+", "trt-ver": r"\d+\.\d+\.\d+", "cuda-ver": r"\d+\.\d+"}
"""What CompilerOptions must say for an NVIDIA target."""


def start(context: Context, call: Call) -> dict[str, Any]:
    """Accept a job."""
    wanted = call["Configuration"]["Greengrass"]
    _check(wanted)
    with context.catalog.transaction():
        project = project_of(context, call)
        row = context.models.find(project, str(call["ModelVersion"]))
        name = f"{project.name}/{call['ModelVersion']}"
        if row is None:
            raise NotFound(f"The model {name} cannot be found.", Resource("MODEL", name))
        status, _ = status_of(context, row)
        if status in UNTRAINED:
            raise WrongState(
                f"The model {name} is {status.value}: only a trained model can be packaged.",
                Resource("MODEL", name),
            )
        version = wanted.get("ComponentVersion") or f"{row.version}.0.0"
        component = wanted["ComponentName"]
        if context.jobs.has_component(call.scope, component, version):
            raise WrongState(
                f"The component {component} {version} exists: choose another ComponentVersion.",
                Resource("MODEL_PACKAGE_JOB", component),
            )
        job = str(call.get("JobName") or uuid.uuid4())
        facts = {
            "configuration": wanted,
            "description": call.get("Description"),
            "component": component,
            "component_version": version,
        }
        if not context.jobs.add(project, job, row.version, facts, context.now()):
            raise WrongState(
                f"The project {project.name} has a packaging job {job} already.",
                Resource("MODEL_PACKAGE_JOB", job),
            )
    context.wake()
    return {"JobName": job}


def describe(context: Context, call: Call) -> dict[str, Any]:
    """Everything about a job."""
    project, name = project_of(context, call), str(call["JobName"])
    row = context.jobs.find(project, name)
    if row is None:
        raise NotFound(
            f"The project {project.name} has no packaging job {name}.",
            Resource("MODEL_PACKAGE_JOB", name),
        )
    facts = row.facts
    made = {
        "ComponentVersionArn": _component_arn(row),
        "ComponentName": facts["component"],
        "ComponentVersion": facts["component_version"],
    }
    return {
        "ModelPackagingDescription": {
            **_metadata(row),
            "ModelPackagingConfiguration": {"Greengrass": facts["configuration"]},
            "ModelPackagingOutputDetails": {"Greengrass": made}
            if row.status is PackagingStatus.SUCCEEDED
            else None,
        }
    }


def list_all(context: Context, call: Call) -> dict[str, Any]:
    """Jobs of a project, oldest first."""
    limit = call.get("MaxResults") or PAGE
    of = f"jobs {call['ProjectName']}"
    after = page_start(call.get("NextToken"), of, int) or 0
    found = context.jobs.of(project_of(context, call), after, limit + 1)
    page = found[:limit]
    return {
        "ModelPackagingJobs": [_metadata(each) for each in page],
        "NextToken": page_token(of, page[-1].id) if len(found) > limit else None,
    }


def settle(context: Context, beat: Callable[[], None]) -> None:
    """Do all accepted jobs, in the background; one that was cut off is done again.

    beat: before each.
    """
    for row in context.jobs.waiting():
        beat()
        name = f"The job {row.name}"
        running = advance(PACKAGING_LIFE, row.status, PackagingEvent.RUN, name)
        context.jobs.set(row, running, "The model is being packaged.", context.now())
        try:
            _package(context, row)
        except EdgedError as error:
            event, message = PackagingEvent.FAIL, str(error)
        else:
            event, message = PackagingEvent.DONE, "The model was packaged."
        context.jobs.set(row, advance(PACKAGING_LIFE, running, event, name), message, context.now())


def _package(context: Context, row: PackagingJobRow) -> None:
    project = context.catalog.project(row.scope, row.project)
    model = context.models.find(project, str(row.version)) if project else None
    if model is None:
        raise NotFound(f"The model {row.project}/{row.version} was deleted.")
    key = bundle.signing_key(context.state.signing_key)
    facts = {
        "component": row.facts["component"],
        "component_version": row.facts["component_version"],
        "model_arn": model_arn(row.scope, row.project, row.version),
        "target": row.facts["configuration"].get("TargetPlatform"),
    }
    closet, place = closet_of(context, model), f"package-{model.id}"
    folder = closet.root / MODEL
    try:
        if closet.key is not None:  # what leaves the box is signed, and open
            folder = context.scratch.place(place)
            closet.take_out(MODEL, folder)
        data = bundle.pack(folder, facts, _recipe(row, model), key)
    finally:
        context.scratch.remove(place)
    where = row.facts["configuration"]["S3OutputLocation"]
    name = f"{row.facts['component']}-{row.facts['component_version']}.edged.zip"
    context.buckets.bucket(where["Bucket"]).write(where.get("Prefix", "") + name, data)


def _recipe(row: PackagingJobRow, model: ModelRow) -> dict[str, Any]:
    """The words of a Greengrass component on the model."""
    words = row.facts["configuration"].get("ComponentDescription") or f"Model of {row.project}"
    return {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": row.facts["component"],
        "ComponentVersion": row.facts["component_version"],
        "ComponentDescription": words,
        "ComponentPublisher": "edged",
        "ComponentConfiguration": {
            "DefaultConfiguration": {"ModelName": f"{model.project}-{model.version}"}
        },
    }


def _check(wanted: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a target that the documentation rules out."""
    device, platform = wanted.get("TargetDevice"), wanted.get("TargetPlatform")
    options = wanted.get("CompilerOptions")
    if (device is None) is (platform is None):
        raise InvalidInput("Give either TargetDevice or TargetPlatform.")
    if device is not None and options is not None:
        raise InvalidInput("CompilerOptions go with TargetPlatform; leave them out.")
    try:
        said = json.loads(options) if options is not None else {}
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise InvalidInput("CompilerOptions must be a JSON object.")
    if platform is not None and platform.get("Accelerator"):
        for key, pattern in NVIDIA.items():
            if not re.fullmatch(pattern, str(said.get(key, ""))):
                raise InvalidInput(
                    f"CompilerOptions must have {key}, as {EXAMPLE[key]}, for an NVIDIA target."
                )


EXAMPLE = {"gpu-code": "sm_87", "trt-ver": "8.5.2", "cuda-ver": "11.4"}


def _component_arn(row: PackagingJobRow) -> str:
    scope, facts = row.scope, row.facts
    return (
        f"arn:aws:greengrass:{scope.region}:{scope.account}:components:{facts['component']}"
        f":versions:{facts['component_version']}"
    )


def _metadata(row: PackagingJobRow) -> dict[str, Any]:
    return {
        "JobName": row.name,
        "ProjectName": row.project,
        "ModelVersion": str(row.version),
        "ModelPackagingJobDescription": row.facts.get("description"),
        "ModelPackagingMethod": METHOD,
        "Status": row.status.value,
        "StatusMessage": row.message,
        "CreationTimestamp": round(row.created, 3),
        "LastUpdatedTimestamp": round(row.updated, 3),
    }
