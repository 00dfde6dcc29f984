"""A REST server of its own for a test, and boto3 pointed at it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edged.config import Quotas
from edged.core.observer import Observer
from edged.daemon.supervise import ApiHosting
from edged.hosting.host import Host
from edged.rest import datasets
from edged.rest.chain import Chain, Done, Throttle
from edged.rest.context import Context
from edged.rest.server import RestServer
from edged.runtime.state import StateFolder
from edged.runtime.workers import Crew, Deadline
from edged.store.buckets import Buckets
from edged.store.catalog import Catalog
from edged.store.credentials import Credential, Credentials
from edged.store.database import Database
from edged.store.keyring import Keyring
from edged.store.models import Models
from edged.store.packaging_jobs import PackagingJobs
from edged.store.scratch import Scratch
from tests.support.rest_client import aws_client


@dataclass
class Rest:
    """A running server. `settle` does the pending imports, on the test's own thread."""

    port: int
    service: Context
    credentials: Credentials
    key: Credential
    server: RestServer
    done: list[Done] = field(default_factory=list)

    def settle(self) -> None:
        datasets.settle(self.service, lambda: False, lambda: None)

    def client(self, key: Credential | None = None, region: str = "us-east-1") -> Any:
        """boto3, which sends every call once."""
        return aws_client(self.port, key or self.key, region)


def context_of(folder: Path, database: Database, host: Host, quotas: Quotas) -> Context:
    """What the API's operations work on, its state in `folder`."""
    return Context(
        Catalog(database),
        Models(database),
        PackagingJobs(database),
        Buckets(folder / "buckets"),
        ApiHosting(host, StateFolder(folder), 4),
        StateFolder(folder),
        Keyring(StateFolder(folder).keyring),
        Scratch(folder),
        lambda: None,
        quotas,
    )


@contextmanager
def rest_server(
    folder: Path,
    quotas: Quotas | None = None,
    rate: float = 0.0,
    certificate: tuple[Path, Path] | None = None,
) -> Iterator[Rest]:
    """A server on a free port, its state in `folder`; with a certificate and its key, HTTPS."""
    folder.mkdir(exist_ok=True)
    (folder / "buckets" / "parts").mkdir(parents=True, exist_ok=True)
    database = Database(folder / "catalog.sqlite")
    database.open()
    crew, deadline = Crew(), Deadline()
    host = Host([], crew, Observer(), deadline)
    service = context_of(folder, database, host, quotas or Quotas(projects=2000))
    credentials = Credentials(folder / "credentials.json")
    known = credentials.all()
    key = known[0] if known else credentials.create(["*"], ["*"])
    done: list[Done] = []
    chain = Chain(service, credentials.find, Throttle(rate), [done.append])
    server = RestServer(("127.0.0.1", 0), chain, crew, deadline, certificate)
    server.start()
    try:
        yield Rest(server.port, service, credentials, key, server, done)
    finally:
        server.close()
        database.close()
