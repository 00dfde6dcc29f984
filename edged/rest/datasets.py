"""CreateDataset, DescribeDataset, DeleteDataset, ListDatasetEntries, UpdateDatasetEntries.

What reads a manifest or changes entries is accepted at once, with its status, and done in the
background by `settle`. Accepted work lies in the catalog; it is done, and forgotten, in one
transaction with what came of it, so that after a crash it is simply done again. A line that is
wrong fails the whole of its work, with a sentence that names the line.

Choices where nothing is documented: a data set that is being made or changed can neither be
changed nor deleted (ConflictException); a failed one can only be deleted; a picture that stands
twice fails an import, as the text says that images must be unique, and in an update the later line
holds.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from edged.core.errors import BadDataset, EdgedError, NotFound, Resource, WrongState
from edged.core.lifecycle import CHANGEABLE, DATASET_LIFE, DatasetEvent, DatasetStatus, advance
from edged.rest.context import PAGE, Call, Context, Shelf, page_start, page_token, project_of
from edged.rest.projects import dataset_metadata
from edged.store.buckets import Limit, split
from edged.store.catalog import DatasetEntry, DatasetRow, EntryFilter, Pending, Project
from edged.wire.manifest import as_stored, entry_of, kind_of, mask_of, source_of

log = logging.getLogger(__name__)

LONGEST = 8192
"""Characters of a line."""
BASE64 = re.compile(rb"eyJ[A-Za-z0-9+/]+={0,2}\s*")
"""Of what begins as an object of JSON does."""
LONGEST_BYTES = 6 * LONGEST
"""Of a line that has so many characters, however they are written."""
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


def settle(context: Context, stopped: Callable[[], bool], beat: Callable[[], None]) -> None:
    """Do all pending work, oldest first; on one thread at a time. beat: before each piece."""
    while not stopped():
        beat()
        work = context.catalog.pending()
        if work is None:
            return
        _settle(context, work)


def _settle(context: Context, work: Pending) -> None:
    facts = json.loads(work.facts)
    creating = "manifest" in facts
    done, failed = (
        (DatasetEvent.CREATION_DONE, DatasetEvent.CREATION_FAILED)
        if creating
        else (DatasetEvent.UPDATE_DONE, DatasetEvent.UPDATE_FAILED)
    )
    word = "created" if creating else "updated"
    try:
        entries = _entries(context, work, facts)
    except EdgedError as error:
        return _end(context, work, failed, str(error), [])
    except Exception:
        log.exception("data set %d: its import failed", work.dataset)
        why = "The import failed for a reason of the server's own."
        return _end(context, work, failed, why, [])
    _end(context, work, done, f"The dataset was {word} successfully.", entries)


def _end(
    context: Context, work: Pending, event: DatasetEvent, message: str, entries: list[DatasetEntry]
) -> None:
    status, name = work.status, f"The dataset {work.dataset}"
    if status in CHANGEABLE:  # a change that nobody announced: one such must not hold up all others
        status = advance(DATASET_LIFE, status, DatasetEvent.UPDATE, name)
    status = advance(DATASET_LIFE, status, event, name)
    with context.catalog.transaction():
        if context.catalog.set_dataset(work.dataset, status, message, context.now()):
            context.catalog.put_entries(work.dataset, entries, context.now())
        context.catalog.done(work)


def _entries(context: Context, work: Pending, facts: dict[str, Any]) -> list[DatasetEntry]:
    """The checked entries of a piece of work. Raises an EdgedError that names the line."""
    quotas = context.quotas
    if "manifest" in facts:
        place = facts["manifest"]
        bucket, key = str(place["Bucket"]), str(place["Key"])
        limit = Limit(quotas.manifest_bytes, LONGEST_BYTES)
        lines = context.buckets.bucket(bucket).lines(key, place.get("VersionId"), limit)
        most = quotas.train_images if work.type == "train" else quotas.test_images
        return _checked(lines, f"s3://{bucket}/{key}", Known(set(), None, most, work.type), True)
    changes = facts["changes"].encode("utf-8", "surrogateescape")
    if BASE64.fullmatch(changes):
        raise BadDataset("Changes: is base64 twice: give the SDK the lines as they are.")
    had = known(context, work.dataset, work.type)
    return _checked(iter(changes.split(b"\n")), "Changes", had, False)


@dataclass(frozen=True, slots=True)
class Known:
    """What a data set has already: its pictures, their bucket, and how many it may have."""

    stored: set[str]
    home: str | None
    most: int
    type: str


def known(context: Shelf, dataset: int, kind: str) -> Known:
    """What a data set of that type has already."""
    sources = context.catalog.sources(dataset)
    quotas = context.quotas
    most = quotas.train_images if kind == "train" else quotas.test_images
    return Known(set(sources), split(sources[0])[0] if sources else None, most, kind)


def checked_line(line: str, name: str, had: Known) -> DatasetEntry:
    """The entry of one line of an update, by the rules of all. Raises BadDataset."""
    return _checked(iter([line.encode()]), name, had, once=False)[0]


def _checked(lines: Iterator[bytes], name: str, had: Known, once: bool) -> list[DatasetEntry]:
    """once: a picture may stand once. Raises an EdgedError that names the line."""
    home = had.home
    found: dict[str, tuple[int, DatasetEntry]] = {}
    new = 0
    for number, entry, references in _parsed(lines, name):
        home = _same_bucket(references, home, f"{name}:{number}")
        if entry.source in found and once:
            raise BadDataset(
                f"{name}:{number}: {entry.source} stands in line {found[entry.source][0]} already; "
                "every picture may stand once: remove one of the lines."
            )
        new += entry.source not in had.stored and entry.source not in found
        if len(had.stored) + new > had.most:
            raise BadDataset(
                f"{name}:{number}: more than the {had.most} pictures that a {had.type} dataset may "
                "have."
            )
        found[entry.source] = (number, entry)
    if not found:
        raise BadDataset(f"{name}: has no line.")
    return [entry for _, entry in found.values()]


def _same_bucket(references: list[str], home: str | None, where: str) -> str:
    """The bucket of all pictures and masks. Raises BadDataset for another."""
    for reference in references:
        bucket, _ = split(reference)
        home = home or bucket
        if bucket != home:
            raise BadDataset(
                f"{where}: {reference} is in bucket {bucket}, others in {home}: all pictures and "
                "masks of a dataset must be in one bucket."
            )
    return home or ""


def _parsed(lines: Iterator[bytes], name: str) -> Iterator[tuple[int, DatasetEntry, list[str]]]:
    """Number, entry, and the references in its bucket, of each line that is not empty."""
    for number, data in enumerate(lines, 1):
        where = f"{name}:{number}"
        if not data.strip():
            continue
        if len(data) > LONGEST_BYTES:
            raise BadDataset(f"{where}: has more than the {LONGEST} characters that are allowed.")
        try:
            line = data.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise BadDataset(f"{where}: is not UTF-8 text (byte {error.start}).") from None
        entry = entry_of(line, where)
        source, kind = source_of(entry, where), kind_of(entry, where)
        split(source)
        stored = as_stored(entry, where)
        if len(stored) > LONGEST:
            raise BadDataset(f"{where}: has {len(stored)} characters; {LONGEST} are allowed.")
        mask = mask_of(entry)
        references = [source]
        if mask is not None and mask.reference.startswith("s3://"):
            references.append(mask.reference)
        yield number, DatasetEntry(source, stored, kind), references
