"""What every operation works with, and the errors that they share.

Owns names: ARNs, tokens of pages, what is said when a thing is not there.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from edged.config import Quotas
from edged.core.errors import BadImage, InvalidInput, NotFound, Resource
from edged.core.protocols import HostedModel, Labels
from edged.core.types import Image, Inspection
from edged.runtime.state import StateFolder
from edged.store.buckets import Buckets
from edged.store.catalog import Catalog, Project, Scope
from edged.store.keyring import Keyring
from edged.store.models import ModelRow, Models
from edged.store.packaging_jobs import PackagingJobs
from edged.store.scratch import Scratch
from edged.wire import imaging

SERVICE = "lookoutvision"
PAGE = 100
LONGEST_PLACE = 300


class ModelHosting(Protocol):
    """Where models are hosted, as the API sees it. Any thread."""

    def host(
        self,
        name: str,
        folder: Path,
        units: int,
        most: int,
        opened: Callable[[], Path] | None = None,
    ) -> None:
        """Begin to host a model folder with `units` units, growing to `most`; returns at once.

        opened: lays an open copy of a sealed folder and says where; called when the model starts.
        Raises QuotaExceeded with the figure when units or memory do not suffice.
        """

    def unhost(self, name: str) -> None:
        """Stop hosting and forget the name; returns when the work in progress is done."""

    def hosted(self, name: str) -> HostedModel | None:
        """What is known of a model that was given to `host` and is not forgotten."""

    def detect(self, name: str, image: Image) -> Future[Inspection]:
        """Judge one picture; see core.protocols.ModelHost.detect."""


class Shelf(Protocol):
    """What data sets alone need: a part of Context."""

    @property
    def catalog(self) -> Catalog:
        """Of projects and data sets."""

    @property
    def buckets(self) -> Buckets:
        """Where pictures lie."""

    @property
    def quotas(self) -> Quotas:
        """What data sets may have."""


@dataclass(frozen=True, slots=True)
class Context:
    """The parts that operations need. `wake`: there is new work in the catalog's pending."""

    catalog: Catalog
    models: Models
    jobs: PackagingJobs
    buckets: Buckets
    hosting: ModelHosting
    state: StateFolder
    """Where the models' folders lie."""
    keyring: Keyring
    scratch: Scratch
    wake: Callable[[], None]
    quotas: Quotas = field(default_factory=Quotas)
    now: Callable[[], float] = time.time
    labels: Labels | None = None
    """Of the archive; None = there is none."""


@dataclass(frozen=True, slots=True)
class Call:
    """One authenticated, checked request."""

    scope: Scope
    parameters: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.parameters[name]

    def get(self, name: str) -> Any:
        """A member that may be absent: None then."""
        return self.parameters.get(name)


def project_of(context: Context, call: Call) -> Project:
    """The project that the call names. Raises NotFound."""
    name = str(call["ProjectName"])
    found = context.catalog.project(call.scope, name)
    if found is None:
        raise NotFound(f"The project {name} cannot be found.", Resource("PROJECT", name))
    return found


def model_of(context: Context, call: Call) -> tuple[Project, ModelRow]:
    """The project and model that the call names. Raises NotFound."""
    project, version = project_of(context, call), str(call["ModelVersion"])
    found = context.models.find(project, version)
    if found is None:
        raise NotFound(
            f"The model {project.name}/{version} cannot be found.",
            Resource("MODEL", f"{project.name}/{version}"),
        )
    return project, found


def check_picture(quotas: Quotas, data: bytes, name: str) -> tuple[int, int]:
    """(height, width) of a picture that the service takes, undecoded. Raises BadImage."""
    if len(data) > quotas.image_bytes:
        raise BadImage(f"{name} has {len(data)} bytes; {quotas.image_bytes} are allowed.")
    shape = imaging.measured(data, name)
    if shape is None:
        raise BadImage(f"{name} is neither PNG nor JPEG.")
    height, width = shape
    least, most = quotas.least_side, quotas.most_side
    if min(shape) < least or max(shape) > most:
        raise BadImage(
            f"{name} has {width}x{height} pixels; {least}x{least} to {most}x{most} are taken."
        )
    return shape


def project_arn(scope: Scope, name: str) -> str:
    """The project's ARN."""
    return f"arn:aws:{SERVICE}:{scope.region}:{scope.account}:project/{name}"


def model_arn(scope: Scope, project: str, version: int) -> str:
    """The model's ARN."""
    return f"arn:aws:{SERVICE}:{scope.region}:{scope.account}:model/{project}/{version}"


def page_token(of: str, place: str | int) -> str:
    """Where the next page of a list begins, in letters that a NextToken may have.

    of: which list; its token is none of another's.
    """
    return base64.b64encode(json.dumps([of, place]).encode()).decode()


def page_start(token: str | None, of: str, kind: type) -> Any:
    """What `page_token` put into it, or None without one. Raises InvalidInput."""
    if not token:
        return None
    try:
        known, place = json.loads(base64.b64decode(token, validate=True))
        fits = known == of and type(place) is kind and len(str(place).encode()) < LONGEST_PLACE
    except (ValueError, TypeError, RecursionError):
        fits, place = False, None
    if not fits:
        raise InvalidInput("NextToken is not one that this list gave.")
    return place
