"""Rows of the API's resources: projects, data sets and their entries, tags, idempotency tokens.

Owns the SQL and nothing of the API's rules: a caller decides what is allowed, inside
`transaction()`, so that nothing changes between its look and its deed. Models and packaging jobs
are models.py's. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from edged.core.lifecycle import DatasetStatus
from edged.store.database import Database


class Scope(NamedTuple):
    """Resources of one account in one region; nobody sees those of another."""

    account: str
    region: str


@dataclass(frozen=True, slots=True)
class Project:
    """One row; `id` is never used twice."""

    id: int
    name: str
    created: float


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """One row; type: train or test."""

    id: int
    type: str
    status: DatasetStatus
    message: str
    created: float
    updated: float


@dataclass(frozen=True, slots=True)
class DatasetEntry:
    """One line of a data set. kind: normal, anomaly, or None for an unlabeled picture."""

    source: str
    line: str
    kind: str | None


@dataclass(frozen=True, slots=True)
class EntryFilter:
    """What ListDatasetEntries may ask for; None = whatever."""

    labeled: bool | None = None
    kind: str | None = None
    before: float | None = None
    after: float | None = None
    contains: str | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """Work on a data set; facts: JSON that whoever does it wrote."""

    id: int
    dataset: int
    type: str
    status: DatasetStatus
    facts: str


class Catalog:
    """All of it, over one database. Any thread."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.transaction = database.transaction
        self.on_rollback = database.on_rollback

    def add_project(self, scope: Scope, name: str, now: float) -> Project | None:
        """The new project, or None if there is one of that name."""
        found = self._db.one(
            "INSERT INTO projects (account, region, name, created) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO NOTHING RETURNING id, name, created",
            *scope, name, now,
        )  # fmt: skip
        return Project(*found) if found else None

    def project(self, scope: Scope, name: str) -> Project | None:
        """The project of that name."""
        found = self._db.one(
            "SELECT id, name, created FROM projects WHERE account = ? AND region = ? AND name = ?",
            *scope, name,
        )  # fmt: skip
        return Project(*found) if found else None

    def projects(self, scope: Scope, after: str, limit: int) -> list[Project]:
        """Up to `limit` projects by name, after `after`."""
        found = self._db.rows(
            "SELECT id, name, created FROM projects WHERE account = ? AND region = ? AND name > ?"
            " ORDER BY name LIMIT ?",
            *scope, after, limit,
        )  # fmt: skip
        return [Project(*row) for row in found]

    def count_projects(self, scope: Scope) -> int:
        """How many there are."""
        found = self._db.one(
            "SELECT count(*) FROM projects WHERE account = ? AND region = ?", *scope
        )
        return int(found[0]) if found else 0

    def delete_project(self, project: Project) -> None:
        """With everything in it."""
        self._db.run("DELETE FROM projects WHERE id = ?", project.id)

    def add_dataset(
        self, project: Project, kind: str, status: DatasetStatus, message: str, now: float
    ) -> DatasetRow | None:
        """The new data set, or None if the project has one of that type."""
        found = self._db.one(
            "INSERT INTO datasets (project, type, status, message, created, updated)"
            " VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
            " RETURNING id, type, status, message, created, updated",
            project.id, kind, status.value, message, now, now,
        )  # fmt: skip
        return _dataset(found) if found else None

    def datasets(self, project: Project) -> list[DatasetRow]:
        """Train before test."""
        found = self._db.rows(
            "SELECT id, type, status, message, created, updated FROM datasets WHERE project = ?"
            " ORDER BY type DESC",
            project.id,
        )
        return [_dataset(row) for row in found]

    def dataset(self, project: Project, kind: str) -> DatasetRow | None:
        """The project's data set of that type."""
        return next((each for each in self.datasets(project) if each.type == kind), None)

    def set_dataset(self, dataset: int, status: DatasetStatus, message: str, now: float) -> bool:
        """Change its status; False if it has gone."""
        return self._db.run(
            "UPDATE datasets SET status = ?, message = ?, updated = ? WHERE id = ?",
            status.value, message, now, dataset,
        ) > 0  # fmt: skip

    def add_pending(self, dataset: int, facts: str) -> None:
        """Work on a data set that was accepted; in the transaction that accepts it."""
        self._db.run("INSERT INTO pending (dataset, facts) VALUES (?, ?)", dataset, facts)

    def pending(self) -> Pending | None:
        """The oldest accepted work that is not done."""
        found = self._db.one(
            "SELECT pending.id, dataset, type, status, facts FROM pending"
            " JOIN datasets ON datasets.id = dataset ORDER BY pending.id LIMIT 1"
        )
        if found is None:
            return None
        number, dataset, kind, status, facts = found
        return Pending(number, dataset, kind, DatasetStatus(status), facts)

    def done(self, work: Pending) -> None:
        """Forget work; in the transaction of what it came to."""
        self._db.run("DELETE FROM pending WHERE id = ?", work.id)

    def sources(self, dataset: int) -> list[str]:
        """The references of all pictures of the data set, in the order they came."""
        found = self._db.rows(
            "SELECT source FROM entries WHERE dataset = ? ORDER BY position", dataset
        )
        return [str(row[0]) for row in found]

    def delete_dataset(self, dataset: DatasetRow) -> None:
        """With its entries."""
        self._db.run("DELETE FROM datasets WHERE id = ?", dataset.id)

    def put_entries(self, dataset: int, entries: Iterable[DatasetEntry], now: float) -> None:
        """Add lines, or replace those of the same picture, which keep their place."""
        self._db.run_many(
            "INSERT INTO entries (dataset, source, line, class, created) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (dataset, source) DO UPDATE"
            " SET line = excluded.line, class = excluded.class",
            ((dataset, e.source, e.line, e.kind, now) for e in entries),
        )

    def entries(
        self, dataset: int, wanted: EntryFilter, after: int, limit: int
    ) -> list[tuple[int, str]]:
        """Up to `limit` lines with their positions, in the order they came, after `after`."""
        tests = {
            "class IS NOT NULL": wanted.labeled is True,
            "class IS NULL": wanted.labeled is False,
        }
        clauses = [clause for clause, asked in tests.items() if asked]
        values: list[object] = []
        for clause, value in (
            ("class = ?", wanted.kind),
            ("created < ?", wanted.before),
            ("created > ?", wanted.after),
            ("instr(source, ?) > 0", wanted.contains),
        ):
            if value is not None:
                clauses.append(clause)
                values.append(value)
        more = "".join(f" AND {clause}" for clause in clauses)
        found = self._db.rows(
            f"SELECT position, line FROM entries WHERE dataset = ? AND position > ?{more}"
            " ORDER BY position LIMIT ?",
            dataset, after, *values, limit,
        )  # fmt: skip
        return [(int(position), str(line)) for position, line in found]

    def statistics(self, dataset: int) -> tuple[int, int, int]:
        """How many pictures in all, normal, and anomalous."""
        found = self._db.rows(
            "SELECT class, count(*) FROM entries WHERE dataset = ? GROUP BY class", dataset
        )
        counts = {kind: int(count) for kind, count in found}
        return sum(counts.values()), counts.get("normal", 0), counts.get("anomaly", 0)

    def has_model(self, project: Project, version: int) -> bool:
        """Whether the project has a model of that version."""
        return bool(
            self._db.one(
                "SELECT 1 FROM models WHERE project = ? AND version = ?", project.id, version
            )
        )

    def tags(self, arn: str) -> dict[str, str]:
        """By key, in the order of the keys."""
        found = self._db.rows("SELECT key, value FROM tags WHERE arn = ? ORDER BY key", arn)
        return {str(key): str(value) for key, value in found}

    def set_tags(self, arn: str, tags: dict[str, str]) -> None:
        """All of the resource's tags, instead of those it had."""
        self._db.run("DELETE FROM tags WHERE arn = ?", arn)
        self._db.run_many(
            "INSERT INTO tags (arn, key, value) VALUES (?, ?, ?)",
            ((arn, key, value) for key, value in tags.items()),
        )

    def answer_of(
        self, scope: Scope, operation: str, token: str, now: float
    ) -> tuple[str, str] | None:
        """Digest and answer of an earlier call with this token; forgets what has expired."""
        self._db.run("DELETE FROM tokens WHERE expires <= ?", now)
        found = self._db.one(
            "SELECT digest, answer FROM tokens"
            " WHERE account = ? AND region = ? AND operation = ? AND token = ?",
            *scope, operation, token,
        )  # fmt: skip
        return (str(found[0]), str(found[1])) if found else None

    def keep_answer(
        self, scope: Scope, operation: str, token: str, digest: str, answer: str, expires: float
    ) -> None:
        """Remember a call by its token; in the transaction of what the call did."""
        self._db.run(
            "INSERT INTO tokens VALUES (?, ?, ?, ?, ?, ?, ?)",
            *scope, operation, token, digest, answer, expires,
        )  # fmt: skip


def _dataset(found: tuple[Any, ...]) -> DatasetRow:
    number, kind, status, message, created, updated = found
    return DatasetRow(number, kind, DatasetStatus(status), message, created, updated)
