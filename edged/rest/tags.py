"""TagResource, UntagResource, ListTagsForResource.

Models and projects carry tags. The documentation speaks of models only; a project's are kept, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from edged.core.errors import InvalidInput, NotFound, QuotaExceeded, Resource
from edged.rest.context import Call, Context
from edged.store.catalog import Scope

ARN = re.compile(
    r"arn:aws:lookoutvision:([a-z0-9-]+):([0-9]{12}):(project|model)/([^/]+)(?:/([1-9][0-9]{0,9}))?"
)


def add(context: Context, call: Call) -> dict[str, Any]:
    """Add tags, or change the values of known ones."""
    with context.catalog.transaction():
        arn, resource = _resource(context, call)
        put(context, arn, resource, call["Tags"])
    return {}


def put(context: Context, arn: str, resource: Resource, tags: Sequence[Mapping[str, str]]) -> None:
    """Add tags to those that the resource has. Raises InvalidInput, QuotaExceeded."""
    given = {tag["Key"]: tag["Value"] for tag in tags}
    if len(given) != len(tags):
        raise InvalidInput("A tag's key stands twice: give every key once.")
    if any(key.lower().startswith("aws:") for key in given):
        raise InvalidInput("A tag's key may not begin with aws:, which is reserved.")
    whole = {**context.catalog.tags(arn), **given}
    if len(whole) > context.quotas.tags:
        raise QuotaExceeded(
            f"{arn} would have {len(whole)} tags; {context.quotas.tags} are allowed.",
            "TAGS",
            resource,
        )
    context.catalog.set_tags(arn, whole)


def remove(context: Context, call: Call) -> dict[str, Any]:
    """Remove tags; keys that are not there are no fault."""
    with context.catalog.transaction():
        arn, _ = _resource(context, call)
        gone = set(call["TagKeys"])
        kept = {k: v for k, v in context.catalog.tags(arn).items() if k not in gone}
        context.catalog.set_tags(arn, kept)
    return {}


def list_all(context: Context, call: Call) -> dict[str, Any]:
    """The tags of a resource, by key."""
    arn, _ = _resource(context, call)
    tags = context.catalog.tags(arn)
    return {"Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}


def _resource(context: Context, call: Call) -> tuple[str, Resource]:
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
    project = context.catalog.project(call.scope, name)
    if project is None:
        raise missing
    if version is not None and not context.catalog.has_model(project, int(version)):
        raise missing
    return arn, resource
