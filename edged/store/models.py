"""Rows of models: the catalog's other half. Rules as in catalog.py: SQL, and none of the API's."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from edged.core.lifecycle import ModelStatus
from edged.store.catalog import Project, Scope
from edged.store.database import Database

COLUMNS = (
    "models.id, projects.account, projects.region, projects.name, version, status, message,"
    " models.created, facts"
)
JOINED = f"SELECT {COLUMNS} FROM models JOIN projects ON projects.id = project"


@dataclass(frozen=True, slots=True)
class ModelRow:
    """One model. facts: everything that is told of it and asked by nobody, JSON-ready."""

    id: int
    scope: Scope
    project: str
    version: int
    status: ModelStatus
    message: str
    created: float
    facts: dict[str, Any]


class Models:
    """All models, over one database. Any thread."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def add(
        self, project: Project, status: ModelStatus, message: str, facts: dict[str, Any], now: float
    ) -> ModelRow:
        """A model with the project's next version; no version is given twice."""
        self._db.run("UPDATE projects SET last_version = last_version + 1 WHERE id = ?", project.id)
        found = self._db.one(
            "INSERT INTO models (project, version, status, message, created, facts)"
            " SELECT id, last_version, ?, ?, ?, ? FROM projects WHERE id = ? RETURNING id",
            status.value, message, now, json.dumps(facts), project.id,
        )  # fmt: skip
        row = self.by_id(int(found[0])) if found else None
        if row is None:
            raise KeyError(project.name)  # its project went, which a transaction does not allow
        return row

    def by_id(self, number: int) -> ModelRow | None:
        """The model of that id, if it is still there."""
        found = self._db.one(f"{JOINED} WHERE models.id = ?", number)
        return _row(found) if found else None

    def find(self, project: Project, version: str) -> ModelRow | None:
        """A version; `latest` is the highest, whatever its status."""
        where, values = ("version = ?", [int(version)]) if version != "latest" else ("1", [])
        found = self._db.one(
            f"{JOINED} WHERE project = ? AND {where} ORDER BY version DESC LIMIT 1",
            project.id, *values,
        )  # fmt: skip
        return _row(found) if found else None

    def of(self, project: Project, after: int, limit: int) -> list[ModelRow]:
        """Up to `limit` models by version, after `after`."""
        found = self._db.rows(
            f"{JOINED} WHERE project = ? AND version > ? ORDER BY version LIMIT ?",
            project.id, after, limit,
        )  # fmt: skip
        return [_row(row) for row in found]

    def having(self, status: ModelStatus) -> list[ModelRow]:
        """Every model of whatever project in that status, oldest first."""
        found = self._db.rows(f"{JOINED} WHERE status = ? ORDER BY models.id", status.value)
        return [_row(row) for row in found]

    def set(self, row: ModelRow, status: ModelStatus, message: str, facts: dict[str, Any]) -> bool:
        """Change it; False if it has gone."""
        return self._db.run(
            "UPDATE models SET status = ?, message = ?, facts = ? WHERE id = ?",
            status.value, message, json.dumps(facts), row.id,
        ) > 0  # fmt: skip

    def delete(self, row: ModelRow) -> None:
        """Remove the row."""
        self._db.run("DELETE FROM models WHERE id = ?", row.id)


def _row(found: tuple[Any, ...]) -> ModelRow:
    number, account, region, project, version, status, message, created, facts = found
    return ModelRow(
        number,
        Scope(account, region),
        project,
        version,
        ModelStatus(status),
        message,
        created,
        json.loads(facts),
    )
