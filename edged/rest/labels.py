"""LabelInspection: a picture of the archive becomes an entry of a data set. Learning from the line.

Not an operation of Lookout for Vision: it stands beside its surface. Owns the copy of
the picture in a bucket, so that the entry stays good when the archive lets its picture go, and the
manifest line; what an entry must be is checked as for UpdateDatasetEntries. Unlike
that, it is done when it is answered: one line needs nothing in the background.

A second process may do the same while the daemon runs: the catalog takes one writer at a time.

Choices: all pictures of a data set are in one bucket, so the copy goes to that of the others, or
into EMPTY_BUCKET; a picture labelled twice keeps its place, and the later label holds; one that is
in the other data set is refused, for what trains must not test.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from edged.config import ACCOUNT, REGION, Quotas
from edged.core.errors import InvalidInput, NotFound, Resource, WrongState
from edged.core.lifecycle import CHANGEABLE, DATASET_LIFE, DatasetEvent, advance
from edged.core.protocols import Journal, Label
from edged.rest.context import Call, Context, check_picture
from edged.rest.datasets import checked_line, known, resource_of
from edged.store.buckets import Buckets
from edged.store.catalog import Catalog, DatasetRow, Scope

EMPTY_BUCKET = "edged-line"
FOLDER = "edged-line"
"""Of the copies in a bucket that has other pictures."""
ATTRIBUTE = "anomaly-label"
TYPES = ("train", "test")
CLASS = re.compile(r"[A-Za-z0-9 _.:-]{1,64}")
MOST_CLASSES = 20
UPDATED = "The dataset was updated successfully."


def label(context: Context, call: Call) -> dict[str, Any]:
    """Label one inspection; the reference that its picture has in the data set."""
    if context.labels is None:
        raise NotFound("This box keeps no archive: add an [archive] section.")
    wanted = Label(
        call["Label"] == "anomaly",
        call.get("DatasetType") or "train",
        call.get("ProjectName") or "",
        tuple(call.get("Classes") or ()),
        call.scope,
    )
    return {"SourceRef": context.labels.label(call["InspectionId"], wanted)}


@dataclass(frozen=True, slots=True)
class Desk:
    """Implements core.protocols.Labels. followed: station -> `account/region/project/`, or empty.

    Any thread.
    """

    catalog: Catalog
    buckets: Buckets
    quotas: Quotas
    journal: Journal
    followed: Mapping[str, str]
    now: Callable[[], float] = time.time

    def label(self, id: str, label: Label) -> str:
        """See core.protocols.Labels."""
        _check(label)
        found = self.journal.find(id)
        station = str(found.record["station"])
        scope, name = self._project(label, station)
        row = self._dataset(scope, name, label.dataset)
        picture, _ = self.journal.picture(id)
        check_picture(self.quotas, picture, f"The picture of inspection {id}")
        home = known(self, row.id, label.dataset).home
        bucket, folder = (EMPTY_BUCKET, station) if home is None else (home, f"{FOLDER}/{station}")
        if home == EMPTY_BUCKET:
            folder = station
        key = f"{folder}/{id}.png"
        source = f"s3://{bucket}/{key}"
        self._check_other(scope, name, label.dataset, source)
        if home is None:
            self.buckets.make(bucket)
        self.buckets.bucket(bucket).write(key, picture)
        line = json.dumps(_entry(source, label, found.record, self.now()), separators=(",", ":"))
        with self.catalog.transaction():
            row = self._dataset(scope, name, label.dataset)
            self._check_other(scope, name, label.dataset, source)
            had = known(self, row.id, label.dataset)
            entry = checked_line(line, f"Inspection {id}", had)
            self.catalog.put_entries(row.id, [entry], self.now())
            status, name = row.status, f"The dataset {row.id}"
            for event in (DatasetEvent.UPDATE, DatasetEvent.UPDATE_DONE):
                status = advance(DATASET_LIFE, status, event, name)
            self.catalog.set_dataset(row.id, status, UPDATED, self.now())
        return source

    def _project(self, label: Label, station: str) -> tuple[Scope, str]:
        """Whose project it is, and its name. Raises InvalidInput, NotFound."""
        if label.project:
            return Scope(*(label.scope or (ACCOUNT, REGION))), label.project
        follows = self.followed.get(station, "")
        if not follows:
            raise InvalidInput(
                f"Station {station} follows no project of the API: name the project that the "
                "picture is for."
            )
        account, region, name = follows.rstrip("/").split("/")
        if label.scope is not None and label.scope != (account, region):
            raise NotFound(
                f"Station {station} follows a project of another account or region: name a "
                "project of yours."
            )
        return Scope(account, region), name

    def _dataset(self, scope: Scope, name: str, kind: str) -> DatasetRow:
        """A data set that can be changed now. Raises NotFound, WrongState."""
        project = self.catalog.project(scope, name)
        if project is None:
            raise NotFound(
                f"The project {name} cannot be found in account {scope.account}, {scope.region}.",
                Resource("PROJECT", name),
            )
        row = self.catalog.dataset(project, kind)
        if row is None:
            raise NotFound(
                f"The project {name} has no {kind} dataset: make one first (CreateDataset).",
                resource_of(project, kind),
            )
        if row.status not in CHANGEABLE:
            raise WrongState(
                f"The {kind} dataset of {name} is {row.status.value}: wait until that has ended, "
                "or make it anew if it failed.",
                resource_of(project, kind),
            )
        return row

    def _check_other(self, scope: Scope, name: str, kind: str, source: str) -> None:
        project = self.catalog.project(scope, name)
        for row in self.catalog.datasets(project) if project is not None else ():
            if row.type != kind and source in self.catalog.sources(row.id):
                raise WrongState(
                    f"{source} is in the {row.type} dataset of {name} already: a picture must not "
                    "train and test the same model.",
                    Resource("DATASET", f"{name}/{row.type}"),
                )


def _check(label: Label) -> None:
    if label.dataset not in TYPES:
        raise InvalidInput(f"dataset {label.dataset[:40]!r}: give train or test.")
    if label.classes and not label.anomalous:
        raise InvalidInput("A normal part has no class of defect: leave the classes out.")
    wrong = [c for c in label.classes if not CLASS.fullmatch(c)]
    if wrong or len(label.classes) > MOST_CLASSES:
        what = repr(wrong[0][:80]) if wrong else f"{len(label.classes)} classes"
        raise InvalidInput(
            f"{what}: at most {MOST_CLASSES} classes of 1 to 64 letters, digits, spaces and _.:- "
            "are taken."
        )


def _entry(source: str, label: Label, record: Mapping[str, Any], moment: float) -> dict[str, Any]:
    """The manifest line's object. What is ours in the metadata begins with `edged-`."""
    made = datetime.fromtimestamp(moment, timezone.utc).replace(tzinfo=None)
    facts: dict[str, Any] = {
        "confidence": 1,
        "job-name": "labeling-job/edged-label",
        "class-name": "anomaly" if label.anomalous else "normal",
        "human-annotated": "yes",
        "creation-date": made.isoformat(timespec="microseconds"),
        "type": "groundtruth/image-classification",
        "edged-inspection": record["id"],
    }
    if label.classes:
        facts["edged-classes"] = list(label.classes)
    if record.get("simulated"):
        facts["edged-simulated"] = True
    return {"source-ref": source, ATTRIBUTE: int(label.anomalous), f"{ATTRIBUTE}-metadata": facts}
