"""How long descriptions and lists take with 1,000 projects, 100 models and 16,000 entries.

Asks through the whole way of a request (signature, checks, catalog), without a port between.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.support.command import question
from benchmarks.support.figures import quantile
from edged.config import Quotas
from edged.core.lifecycle import DatasetStatus, ModelStatus
from edged.core.observer import Observer
from edged.hosting.host import Host
from edged.rest.chain import Chain, Throttle
from edged.rest.context import Context
from edged.runtime.workers import Crew, Deadline
from edged.store.catalog import Catalog, DatasetEntry, Scope
from edged.store.credentials import Credentials
from edged.store.database import Database
from edged.store.models import Models
from tests.support.rest_client import signed
from tests.support.rest_server import context_of

SCOPE = Scope("123456789012", "us-east-1")
ROUNDS = 200
ASKED = (
    "/projects?maxResults=100",
    "/projects/p500",
    "/projects/p0/models?maxResults=100",
    "/projects/p0/models/latest",
    "/projects/p0/datasets/train",
    "/projects/p0/datasets/train/entries?maxResults=100",
    "/projects/p0/datasets/train/entries?maxResults=100&anomalyClass=anomaly",
    "/projects/p0/datasets/train/entries?sourceRefContains=IMG_15999",
)


def filled(state: Path) -> Context:
    """A catalog with much in it."""
    database = Database(state / "catalog.sqlite")
    database.open()
    catalog, models = Catalog(database), Models(database)
    with catalog.transaction():
        for number in range(1000):
            project = catalog.add_project(SCOPE, f"p{number}", 1.0)
            if project is None or number:
                continue
            row = catalog.add_dataset(project, "train", DatasetStatus.CREATE_COMPLETE, "", 1.0)
            if row is None:
                continue
            lines = (
                (f"s3://parts/IMG_{n}.jpg", "normal" if n % 3 else "anomaly") for n in range(16_000)
            )
            entries = (
                DatasetEntry(source, json.dumps({"source-ref": source, "x": "y" * 300}), kind)
                for source, kind in lines
            )
            catalog.put_entries(row.id, entries, 1.0)
            for _ in range(100):
                facts = {"output": {"Bucket": "b", "Prefix": ""}}
                models.add(project, ModelStatus.TRAINED, "", facts, 1.0)
    host = Host([], Crew(), Observer(), Deadline())
    context: Context = context_of(state, database, host, Quotas())
    return context


def parser() -> argparse.ArgumentParser:
    return question(__doc__, __file__)


def main() -> int:
    """Print p50 and p99 of each question, in milliseconds."""
    parser().parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch)
        service = filled(state)
        keys = Credentials(state / "credentials.json")
        key = keys.create(["*"], ["*"])
        chain = Chain(service, keys.find, Throttle(0.0), [])
        for asked in ASKED:
            request = signed("GET", f"/2020-11-20{asked}", (key.key_id, key.secret, None))
            times = []
            for _ in range(ROUNDS):
                began = time.perf_counter()
                answer = chain.handle(request)
                times.append((time.perf_counter() - began) * 1e3)
                if answer.code != 200:
                    raise SystemExit(f"{asked}: {answer.code}")
            print(f"{quantile(times, 0.5):7.2f} {quantile(times, 0.99):7.2f} ms  {asked}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
