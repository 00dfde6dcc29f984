"""CreateDataset, DescribeDataset, DeleteDataset, ListDatasetEntries, UpdateDatasetEntries.

What reads a manifest or changes entries is accepted at once, with its status, and done behind the
answer by imports.py; what was accepted lies in the catalog and is done after a restart, too.

Choices where nothing is documented: a data set that is being made or changed can neither be
changed nor deleted (ConflictException); a failed one can only be deleted.
"""

from __future__ import annotations

import json
from typing import Any

from edged.core.errors import NotFound, Resource, WrongState
from edged.core.lifecycle import CHANGEABLE, DATASET_LIFE, DatasetEvent, DatasetStatus, advance
from edged.rest.context import PAGE, Call, Context, page_start, page_token, project_of
from edged.rest.projects import dataset_metadata
from edged.store.catalog import DatasetRow, EntryFilter, Project

CREATING, CREATED = DatasetStatus.CREATE_IN_PROGRESS, DatasetStatus.CREATE_COMPLETE
MADE = "The dataset was created successfully."


def create(context: Context, call: Call) -> dict[str, Any]:
    """An empty data set, or one that is filled from a manifest in the background."""
    kind = str(call["DatasetType"])
    source = (call.get("DatasetSource") or {}).get("GroundTruthManifest", {}).get("S3Object")
    with context.catalog.transaction():
        project = project_of(context, call)
        status, message = (CREATING, "The dataset is being created.") if source else (CREATED, MADE)
        row = context.catalog.add_dataset(project, kind, status, message, context.now())
        if row is None:
            raise WrongState(
                f"The project {project.name} has a {kind} dataset already: delete it first.",
                resource_of(project, kind),
            )
        if source:
            context.catalog.add_pending(row.id, json.dumps({"manifest": source}))
    if source:
        context.wake()
    return {"DatasetMetadata": dataset_metadata(row)}


def describe(context: Context, call: Call) -> dict[str, Any]:
    """A data set and how many pictures of each kind it has."""
    with context.catalog.transaction():
        project, row = dataset_of(context, call)
        total, normal, anomaly = context.catalog.statistics(row.id)
    return {
        "DatasetDescription": {
            "ProjectName": project.name,
            **dataset_metadata(row),
            "LastUpdatedTimestamp": round(row.updated, 3),
            "ImageStats": {
                "Total": total,
                "Labeled": normal + anomaly,
                "Normal": normal,
                "Anomaly": anomaly,
            },
        }
    }


def delete(context: Context, call: Call) -> dict[str, Any]:
    """Remove a data set with its entries, before the answer; pictures stay in their bucket."""
    with context.catalog.transaction():
        project, row = dataset_of(context, call)
        _check_idle(project, row)
        context.catalog.delete_dataset(row)
    return {}


def list_entries(context: Context, call: Call) -> dict[str, Any]:
    """Lines of the data set, filtered, in the order in which they came."""
    limit = call.get("MaxResults") or PAGE
    of = f"entries {call['ProjectName']} {call['DatasetType']}"
    after = page_start(call.get("NextToken"), of, int) or 0
    before, since = call.get("BeforeCreationDate"), call.get("AfterCreationDate")
    wanted = EntryFilter(
        call.get("Labeled"),
        call.get("AnomalyClass"),
        before and before.timestamp(),
        since and since.timestamp(),
        call.get("SourceRefContains"),
    )
    _, row = dataset_of(context, call)
    found = context.catalog.entries(row.id, wanted, after, limit + 1)
    page = found[:limit]
    return {
        "DatasetEntries": [line for _, line in page],
        "NextToken": page_token(of, page[-1][0]) if len(found) > limit else None,
    }


def update(context: Context, call: Call) -> dict[str, Any]:
    """Add or replace entries, all or none, in the background."""
    with context.catalog.transaction():
        project, row = dataset_of(context, call)
        _check_idle(project, row)
        if row.status not in CHANGEABLE:
            raise WrongState(
                f"The {row.type} dataset of {project.name} is {row.status.value}: delete it and "
                "create it anew.",
                resource_of(project, row.type),
            )
        changes = call["Changes"].decode("utf-8", "surrogateescape")
        context.catalog.add_pending(row.id, json.dumps({"changes": changes}))
        message = "The dataset is being updated."
        status = advance(DATASET_LIFE, row.status, DatasetEvent.UPDATE, f"The dataset {row.id}")
        context.catalog.set_dataset(row.id, status, message, context.now())
    context.wake()
    return {"Status": status.value}


def dataset_of(context: Context, call: Call) -> tuple[Project, DatasetRow]:
    """The project and data set that a call names. Raises NotFound."""
    project, kind = project_of(context, call), str(call["DatasetType"])
    row = context.catalog.dataset(project, kind)
    if row is None:
        raise NotFound(
            f"The project {project.name} has no {kind} dataset.", resource_of(project, kind)
        )
    return project, row


def resource_of(project: Project, kind: str) -> Resource:
    """How errors name a data set."""
    return Resource("DATASET", f"{project.name}/{kind}")


def _check_idle(project: Project, row: DatasetRow) -> None:
    if row.status.value.endswith("IN_PROGRESS"):
        raise WrongState(
            f"The {row.type} dataset of {project.name} is {row.status.value}: wait until that has "
            "ended.",
            resource_of(project, row.type),
        )
