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
    Service,
    page_start,
    page_token,
    project_arn,
    project_of,
)
from edged.store.catalog import DatasetRow, Project, Scope


def create(service: Service, call: Call) -> dict[str, Any]:
    """A new, empty project. Raises WrongState if there is one, QuotaExceeded."""
    name = str(call["ProjectName"])
    resource = Resource("PROJECT", name)
    with service.catalog.transaction():
        if service.catalog.project(call.scope, name):
            raise WrongState(f"The project {name} already exists.", resource)
        if service.catalog.count_projects(call.scope) >= service.quotas.projects:
            raise QuotaExceeded(
                f"There are {service.quotas.projects} projects, as many as are allowed: delete one "
                "or raise quotas.projects.",
                "PROJECTS",
                resource,
            )
        made = service.catalog.add_project(call.scope, name, service.now())
    if made is None:
        raise WrongState(f"The project {name} already exists.", resource)
    return {"ProjectMetadata": _metadata(call.scope, made)}


def list_all(service: Service, call: Call) -> dict[str, Any]:
    """Projects by name."""
    limit = call.get("MaxResults") or PAGE
    after = page_start(call.get("NextToken"), "projects", str) or ""
    found = service.catalog.projects(call.scope, after, limit + 1)
    page = found[:limit]
    return {
        "Projects": [_metadata(call.scope, each) for each in page],
        "NextToken": page_token("projects", page[-1].name) if len(found) > limit else None,
    }


def describe(service: Service, call: Call) -> dict[str, Any]:
    """A project with its data sets."""
    found = project_of(service, call)
    datasets = [dataset_metadata(each) for each in service.catalog.datasets(found)]
    return {"ProjectDescription": {**_metadata(call.scope, found), "Datasets": datasets}}


def delete(service: Service, call: Call) -> dict[str, Any]:
    """Remove an empty project."""
    with service.catalog.transaction():
        found = project_of(service, call)
        resource = Resource("PROJECT", found.name)
        if service.catalog.datasets(found):
            raise WrongState(f"The project {found.name} has datasets: delete them first.", resource)
        if service.models.of(found, 0, 1):
            raise WrongState(f"The project {found.name} has models: delete them first.", resource)
        service.catalog.delete_project(found)
        service.catalog.set_tags(project_arn(call.scope, found.name), {})
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
        "Status": row.status,
        "StatusMessage": row.message,
    }
