"""Fills and changes data sets behind the answers, one accepted piece of work after the other.

Owns the checks of manifest lines. Work lies in the catalog; it is done, and forgotten, in one
transaction with what came of it, so that after a crash it is simply done again. A line that is
wrong fails the whole of its work, with a sentence that names the line.

Choices where nothing is documented: a picture that stands twice fails an import, as the text says
that images must be unique; in an update the later line holds.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

from edged.control.service import Service
from edged.core.errors import BadDataset, EdgedError
from edged.store.buckets import split
from edged.store.catalog import Entry, Pending
from edged.wire.manifest import as_stored, entry_of, kind_of, source_of

log = logging.getLogger(__name__)

LONGEST = 8192
"""Characters of a line."""


def settle(service: Service, stopped: Callable[[], bool]) -> None:
    """Do all pending work, oldest first; on one thread at a time."""
    while not stopped():
        work = service.catalog.pending()
        if work is None:
            return
        _settle(service, work)


def _settle(service: Service, work: Pending) -> None:
    facts = json.loads(work.facts)
    creating = "manifest" in facts
    try:
        entries = _entries(service, work, facts)
    except EdgedError as error:
        status = "CREATE_FAILED" if creating else "UPDATE_FAILED_ROLLBACK_COMPLETE"
        _end(service, work, status, str(error), [])
        return
    except Exception:
        log.exception("data set %d: its import failed", work.dataset)
        status = "CREATE_FAILED" if creating else "UPDATE_FAILED_ROLLBACK_COMPLETE"
        _end(service, work, status, "The import failed for a reason of the server's own.", [])
        return
    if creating:
        _end(service, work, "CREATE_COMPLETE", "The dataset was created successfully.", entries)
    else:
        _end(service, work, "UPDATE_COMPLETE", "The dataset was updated successfully.", entries)


def _end(service: Service, work: Pending, status: str, message: str, entries: list[Entry]) -> None:
    with service.catalog.transaction():
        if service.catalog.set_dataset(work.dataset, status, message, service.now()):
            service.catalog.put_entries(work.dataset, entries, service.now())
        service.catalog.done(work)


def _entries(service: Service, work: Pending, facts: dict[str, Any]) -> list[Entry]:
    """The checked entries of a piece of work. Raises an EdgedError that names the line."""
    quotas = service.quotas
    if "manifest" in facts:
        place = facts["manifest"]
        bucket, key = str(place["Bucket"]), str(place["Key"])
        name = f"s3://{bucket}/{key}"
        data = service.buckets.bucket(bucket).read(
            key, place.get("VersionId"), quotas.manifest_bytes
        )
        there, home = 0, None
    else:
        data = facts["changes"].encode("utf-8", "surrogateescape")
        name = "Changes"
        there = service.catalog.statistics(work.dataset)[0]
        first = service.catalog.first_source(work.dataset)
        home = split(first)[0] if first else None
    found: dict[str, tuple[int, Entry]] = {}
    for number, entry in _lines(data, name):
        bucket, _ = split(entry.source)
        home = home or bucket
        if bucket != home:
            raise BadDataset(
                f"{name}:{number}: the picture is in bucket {bucket}, others in {home}: all "
                "pictures of a dataset must be in one bucket."
            )
        if entry.source in found and "manifest" in facts:
            raise BadDataset(
                f"{name}:{number}: {entry.source} stands in line {found[entry.source][0]} already; "
                "every picture may stand once: remove one of the lines."
            )
        found[entry.source] = (number, entry)
    most = quotas.train_images if work.type == "train" else quotas.test_images
    if there + len(found) > most:
        raise BadDataset(
            f"{name}: {there + len(found)} pictures; a {work.type} dataset may have {most}."
        )
    return [entry for _, entry in found.values()]


def _lines(data: bytes, name: str) -> Iterator[tuple[int, Entry]]:
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadDataset(f"{name}: is not UTF-8 text (byte {error.start}).") from None
    empty = True
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        empty = False
        where = f"{name}:{number}"
        entry = entry_of(line, where)
        source, kind = source_of(entry, where), kind_of(entry, where)
        split(source)
        stored = as_stored(entry)
        if len(stored) > LONGEST:
            raise BadDataset(f"{where}: has {len(stored)} characters; {LONGEST} are allowed.")
        yield number, Entry(source, stored, kind)
    if empty:
        raise BadDataset(f"{name}: has no line.")
