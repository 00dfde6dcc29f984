"""The Lookout for Vision API as a part of the daemon: joins control, store, host and training.

Apart from app.py, which need not know the API. Three workers do in the background what requests
began: `rest-host` ends hostings and brings back what fell, `rest-work` imports and packages,
`rest-train` trains. A fault in them is logged and tried again: the line goes on whatever happens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from edged.config import Quotas, RestConfig, split_address
from edged.core.errors import ModelError
from edged.core.protocols import Journal, Labels
from edged.daemon.supervise import UNHOST_SECONDS, ApiHosting, ApiModels
from edged.hosting.host import Host
from edged.rest import datasets, models, packaging, trainings
from edged.rest.chain import AuditLog, Chain, Done, Throttle
from edged.rest.context import Context
from edged.rest.labels import Desk
from edged.rest.server import RestServer
from edged.runtime.state import StateFolder
from edged.runtime.workers import Crew, Deadline, Worker
from edged.store.buckets import Buckets, S3Service
from edged.store.catalog import Catalog
from edged.store.credentials import Credentials
from edged.store.database import Database
from edged.store.keyring import Keyring
from edged.store.models import Models
from edged.store.packaging_jobs import PackagingJobs
from edged.store.scratch import Scratch
from edged.tools.training_job import Cancelled, TrainingJob

log = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
TRAIN_PATIENCE = 48 * 3600.0
"""A training takes as long as it takes; its own process is watched by its pipe."""
WORK_PATIENCE = 1800.0
"""For one import or package; an S3 service that hangs is given up long before."""


class LookoutApi:
    """The API, running. `start` and `close` are called on main."""

    def __init__(
        self,
        config: RestConfig,
        quotas: Quotas,
        state: StateFolder,
        host: Host,
        crew: Crew,
        deadline: Deadline,
        on_done: Callable[[Done], None],
        journal: Journal | None = None,
        followed: Mapping[str, str] | None = None,
    ) -> None:
        """journal: the archive, for labels. followed: of each station, the project's models."""
        self._config = config
        self._quotas = quotas
        self._state = state
        self._host = host
        self._crew = crew
        self._deadline = deadline
        self._on_done = on_done
        self._journal = journal
        self._followed = followed or {}
        self._stack = ExitStack()
        self._woken: list[threading.Event] = []
        self._job: TrainingJob | None = None
        self.port = 0
        self.labels: Labels | None = None
        """Takes labels while the API is up, if there is an archive."""

    def start(self) -> None:
        """Open the catalog, host what was hosted, serve. Raises an EdgedError if it cannot."""
        with ExitStack() as stack:
            context, credentials = self._context(stack)
            audit = stack.enter_context(AuditLog(self._state.audit_log))
            chain = Chain(
                context,
                None if self._config.anonymous else credentials.find,
                Throttle(self._config.calls_per_second),
                [audit.write, self._on_done],
            )
            revived = ApiModels()
            revived.host_all(context)
            for name, do in (
                ("rest-host", partial(self._do_hosting, context, revived)),
                ("rest-work", partial(self._do_work, context)),
                ("rest-train", partial(self._do_training, context)),
            ):
                woken = threading.Event()
                self._woken.append(woken)
                worker = self._crew.start(name, partial(self._repeat, do, woken))
                stack.callback(self._join, worker)
                stack.callback(self._end, worker)
            cert, key = self._config.cert_file, self._config.key_file
            server = RestServer(
                split_address(self._config.listen),
                chain,
                self._crew,
                self._deadline,
                (cert, key) if cert and key else None,
            )
            server.start()
            stack.callback(server.close)
            self.port = server.port
            self._stack = stack.pop_all()
        log.info("the API answers on %s", self._config.listen)

    def close(self) -> None:
        """Refuse requests, cancel a training (it goes on at the next start), close the catalog."""
        self._stack.close()

    def _context(self, stack: ExitStack) -> tuple[Context, Credentials]:
        config = self._config
        database = Database(self._state.catalog)
        database.open()
        stack.callback(database.close)
        self._state.models.mkdir(mode=0o750, exist_ok=True)
        root = config.buckets or self._state.buckets
        root.mkdir(mode=0o750, parents=True, exist_ok=True)
        scratch = Scratch(self._state.path)
        scratch.empty()
        stack.callback(scratch.empty)
        s3 = S3Service(config.s3_endpoint, config.s3_region) if config.s3 else None
        catalog, buckets, journal = Catalog(database), Buckets(root, s3), self._journal
        desk = None
        if journal is not None:
            desk = self.labels = Desk(catalog, buckets, self._quotas, journal, self._followed)
        context = Context(
            catalog,
            Models(database),
            PackagingJobs(database),
            buckets,
            ApiHosting(self._host, self._state, config.units),
            self._state,
            Keyring(self._state.keyring),
            scratch,
            partial(database.on_commit, self._wake),  # who is woken must see what there is to do
            self._quotas,
            labels=desk,
        )
        return context, Credentials(self._state.credentials)

    def _wake(self) -> None:
        for woken in self._woken:
            woken.set()

    def _join(self, worker: Worker) -> None:
        worker.join(self._deadline.remaining(10.0))

    def _end(self, worker: Worker) -> None:
        worker.stop.set()
        if self._job is not None:
            self._job.cancel()
        self._wake()

    def _do_hosting(self, context: Context, revived: ApiModels, worker: Worker) -> None:
        worker.beat(UNHOST_SECONDS)
        models.settle(context, partial(worker.beat, UNHOST_SECONDS))
        revived.revive(context)

    def _do_work(self, context: Context, worker: Worker) -> None:
        beat = partial(worker.beat, WORK_PATIENCE)
        datasets.settle(context, worker.stop.is_set, beat)
        packaging.settle(context, beat)

    def _do_training(self, context: Context, worker: Worker) -> None:
        worker.beat(TRAIN_PATIENCE)
        trainings.settle(context, partial(self._train, worker), worker.stop.is_set)

    def _repeat(self, do: Callable[[Worker], None], woken: threading.Event, worker: Worker) -> None:
        """Do it whenever there may be something to do. Nothing in it may end the daemon.

        What could not be done is still in the catalog, and is done the next time, or the time
        after: a full disk, or a catalog that somebody holds locked, passes.
        """
        while not worker.stop.is_set():
            woken.clear()
            try:
                do(worker)
            except Exception:
                log.exception("%s failed, and tries again", worker.name)
            worker.beat()
            if not worker.stop.is_set():  # its wake may have been cleared above
                woken.wait(IDLE_SECONDS)

    def _train(self, worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
        job = self._job = TrainingJob(request, self._config.training_memory_mb)
        if worker.stop.is_set():
            job.cancel()
        hours = self._quotas.training_hours
        until = time.monotonic() + hours * 3600.0

        def progress(stage: str, done: int, total: int, **facts: Any) -> None:
            worker.beat(TRAIN_PATIENCE)
            if time.monotonic() > until:
                job.cancel()

        try:
            return job.run(progress)
        except Cancelled:
            if time.monotonic() > until:
                raise ModelError(
                    f"The training took more than the {hours:g} hours that are allowed: train on "
                    "fewer images, or raise quotas.training_hours."
                ) from None
            worker.stop.set()
            raise
        finally:
            self._job = None
