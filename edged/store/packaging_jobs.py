"""Rows of packaging jobs. Rules as in catalog.py: SQL, and none of the API's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edged.core.lifecycle import PackagingStatus
from edged.store.catalog import Project, Scope
from edged.store.database import Database

_S = PackagingStatus
JOINED = (
    "SELECT jobs.id, projects.account, projects.region, projects.name, jobs.name, version, status,"
    " message, jobs.created, updated, facts FROM jobs JOIN projects ON projects.id = project"
)


@dataclass(frozen=True, slots=True)
class PackagingJobRow:
    """One packaging job. facts: what was asked for and what it made, JSON-ready."""

    id: int
    scope: Scope
    project: str
    name: str
    version: int
    status: PackagingStatus
    message: str
    created: float
    updated: float
    facts: dict[str, Any]


class PackagingJobs:
    """All jobs, over one database. Any thread."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(
        self, project: Project, name: str, version: int, facts: dict[str, Any], now: float
    ) -> bool:
        """A new job, CREATED; False if the project has one of that name."""
        return self._db.run(
            "INSERT INTO jobs (project, name, version, status, message, created, updated, facts)"
            " VALUES (?, ?, ?, ?, 'The job was created.', ?, ?, ?) ON CONFLICT DO NOTHING",
            project.id, name, version, _S.CREATED.value, now, now, json.dumps(facts),
        ) > 0  # fmt: skip

    def find(self, project: Project, name: str) -> PackagingJobRow | None:
        """The project's job of that name."""
        found = self._db.one(f"{JOINED} WHERE project = ? AND jobs.name = ?", project.id, name)
        return _row(found) if found else None

    def of(self, project: Project, after: int, limit: int) -> list[PackagingJobRow]:
        """Up to `limit` jobs, oldest first, after id `after`."""
        found = self._db.rows(
            f"{JOINED} WHERE project = ? AND jobs.id > ? ORDER BY jobs.id LIMIT ?",
            project.id, after, limit,
        )  # fmt: skip
        return [_row(row) for row in found]

    def waiting(self) -> list[PackagingJobRow]:
        """Jobs that are not done, of whatever project, oldest first."""
        found = self._db.rows(
            f"{JOINED} WHERE status IN (?, ?) ORDER BY jobs.id",
            _S.CREATED.value, _S.RUNNING.value,
        )  # fmt: skip
        return [_row(row) for row in found]

    def has_component(self, scope: Scope, name: str, version: str) -> bool:
        """Whether a job that did not fail makes, or made, that component."""
        found = self._db.one(
            f"{JOINED} WHERE account = ? AND region = ? AND status != ?"
            " AND json_extract(facts, '$.component') = ?"
            " AND json_extract(facts, '$.component_version') = ?",
            *scope, _S.FAILED.value, name, version,
        )  # fmt: skip
        return found is not None

    def set(self, row: PackagingJobRow, status: PackagingStatus, message: str, now: float) -> None:
        """Change its status."""
        self._db.run(
            "UPDATE jobs SET status = ?, message = ?, updated = ? WHERE id = ?",
            status.value, message, now, row.id,
        )  # fmt: skip


def _row(found: tuple[Any, ...]) -> PackagingJobRow:
    number, account, region, project, name, version, status, message, created, updated, facts = (
        found
    )
    scope, state, facts = Scope(account, region), PackagingStatus(status), json.loads(facts)
    return PackagingJobRow(
        number, scope, project, name, version, state, message, created, updated, facts
    )
