"""TagResource, UntagResource, ListTagsForResource.

Models and projects carry tags. The documentation speaks of models only; a project's are kept, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edged.core.errors import InvalidInput, NotFound, QuotaExceeded, Resource
from edged.rest.context import Call, Service
from edged.store.catalog import Scope

ARN = re.compile(
    r"arn:aws:lookoutvision:([a-z0-9-]+):([0-9]{12}):(project|model)/([^/]+)(?:/([1-9][0-9]{0,9}))?"
)


def add(service: Service, call: Call) -> dict[str, Any]:
    """Add tags, or change the values of known ones."""
    with service.catalog.transaction():
        arn, resource = _resource(service, call)
        put(service, arn, resource, call["Tags"])
    return {}


def put(service: Service, arn: str, resource: Resource, tags: Sequence[Mapping[str, str]]) -> None:
    """Add tags to those that the resource has. Raises InvalidInput, QuotaExceeded."""
    given = {tag["Key"]: tag["Value"] for tag in tags}
    if len(given) != len(tags):
        raise InvalidInput("A tag's key stands twice: give every key once.")
    if any(key.lower().startswith("aws:") for key in given):
        raise InvalidInput("A tag's key may not begin with aws:, which is reserved.")
    whole = {**service.catalog.tags(arn), **given}
    if len(whole) > service.quotas.tags:
        raise QuotaExceeded(
            f"{arn} would have {len(whole)} tags; {service.quotas.tags} are allowed.",
            "TAGS",
            resource,
        )
    service.catalog.set_tags(arn, whole)


def remove(service: Service, call: Call) -> dict[str, Any]:
    """Remove tags; keys that are not there are no fault."""
    with service.catalog.transaction():
        arn, _ = _resource(service, call)
        gone = set(call["TagKeys"])
        kept = {k: v for k, v in service.catalog.tags(arn).items() if k not in gone}
        service.catalog.set_tags(arn, kept)
    return {}


def list_all(service: Service, call: Call) -> dict[str, Any]:
    """The tags of a resource, by key."""
    arn, _ = _resource(service, call)
    tags = service.catalog.tags(arn)
    return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _resource(service: Service, call: Call) -> tuple[str, Resource]:
    """The ARN that a call names, of a thing that is there. Raises InvalidInput, NotFound."""
    arn = str(call["ResourceArn"])
    found = ARN.fullmatch(arn)
    if found is None:
        raise InvalidInput(f"{arn[:200]} is no ARN of a model or project of this service.")
    region, account, kind, name, version = found.groups()
    resource = Resource(kind.upper(), name if version is None else f"{name}/{version}")
    missing = NotFound(f"{arn} cannot be found.", resource)
    if Scope(account, region) != call.scope or (version is None) is (kind == "model"):
        raise missing
    project = service.catalog.project(call.scope, name)
    if project is None:
        raise missing
    if version is not None and not service.catalog.has_model(project, int(version)):
        raise missing
    return arn, resource
