"""CreateProject, ListProjects, DescribeProject, DeleteProject.

A project is there, and gone, before the answer. DeleteProject wants models and data sets gone
first, as the documentation says; what else should happen is not known.
"""

from __future__ import annotations

from typing import Any

from edged.core.errors import QuotaExceeded, Resource, WrongState
from edged.rest.context import (
    PAGE,
    Call,
    Context,
    page_start,
    page_token,
    project_arn,
    project_of,
)
from edged.store.catalog import DatasetRow, Project, Scope


def create(context: Context, call: Call) -> dict[str, Any]:
    """A new, empty project. Raises WrongState if there is one, QuotaExceeded."""
    name = str(call["ProjectName"])
    resource = Resource("PROJECT", name)
    with context.catalog.transaction():
        if context.catalog.project(call.scope, name):
            raise WrongState(f"The project {name} already exists.", resource)
        if context.catalog.count_projects(call.scope) >= context.quotas.projects:
            raise QuotaExceeded(
                f"There are {context.quotas.projects} projects, as many as are allowed: delete one "
                "or raise quotas.projects.",
                "PROJECTS",
                resource,
            )
        made = context.catalog.add_project(call.scope, name, context.now())
    if made is None:
        raise WrongState(f"The project {name} already exists.", resource)
    return {"ProjectMetadata": _metadata(call.scope, made)}


def list_all(context: Context, call: Call) -> dict[str, Any]:
    """Projects by name."""
    limit = call.get("MaxResults") or PAGE
    after = page_start(call.get("NextToken"), "projects", str) or ""
    found = context.catalog.projects(call.scope, after, limit + 1)
    page = found[:limit]
    return {
        "Projects": [_metadata(call.scope, each) for each in page],
        "NextToken": page_token("projects", page[-1].name) if len(found) > limit else None,
    }


def describe(context: Context, call: Call) -> dict[str, Any]:
    """A project with its data sets."""
    found = project_of(context, call)
    datasets = [dataset_metadata(each) for each in context.catalog.datasets(found)]
    return {"ProjectDescription": {**_metadata(call.scope, found), "Datasets": datasets}}


def delete(context: Context, call: Call) -> dict[str, Any]:
    """Remove an empty project."""
    with context.catalog.transaction():
        found = project_of(context, call)
        resource = Resource("PROJECT", found.name)
        if context.catalog.datasets(found):
            raise WrongState(f"The project {found.name} has datasets: delete them first.", resource)
        if context.models.of(found, 0, 1):
            raise WrongState(f"The project {found.name} has models: delete them first.", resource)
        context.catalog.delete_project(found)
        context.catalog.set_tags(project_arn(call.scope, found.name), {})
    return {"ProjectArn": project_arn(call.scope, found.name)}


def _metadata(scope: Scope, project: Project) -> dict[str, Any]:
    return {
        "ProjectArn": project_arn(scope, project.name),
        "ProjectName": project.name,
        "CreationTimestamp": round(project.created, 3),
    }


def dataset_metadata(row: DatasetRow) -> dict[str, Any]:
    """How a data set is told in a project and when it is made."""
    return {
        "DatasetType": row.type,
        "CreationTimestamp": round(row.created, 3),
        "Status": row.status.value,
        "StatusMessage": row.message,
    }
