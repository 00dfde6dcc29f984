"""Hosts again what served and fell: no operator has to see it first.

Owns the back-off. A model that StartModel could not bring up at all stays HOSTING_FAILED, with its
reason, until somebody starts it anew: trying again would only repeat it. One that served in this
life, or that was to be hosted when this life began, is tried again after FIRST seconds, then after
twice as long each time, up to LAST.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edged.core.errors import EdgedError
from edged.core.lifecycle import SERVING, ModelStatus
from edged.rest.context import Context
from edged.rest.models import host, hosted_name, status_of
from edged.store.models import ModelRow

log = logging.getLogger(__name__)

FIRST, LAST = 5.0, 300.0


@dataclass(slots=True)
class _Trial:
    due: float
    pause: float


@dataclass(slots=True)
class Revival:
    """What served, and when it is tried again. On one thread."""

    clock: Callable[[], float] = time.monotonic
    _served: set[int] = field(default_factory=set)
    _trials: dict[int, _Trial] = field(default_factory=dict)

    def host_all(self, context: Context) -> None:
        """Host what was hosted when the last life ended."""
        for row in context.models.having("HOSTED"):
            self._served.add(row.id)
            self._host(context, row)

    def settle(self, context: Context) -> None:
        """Look at what shall be hosted, and try again what has fallen."""
        wanted = context.models.having("HOSTED")
        ids = {row.id for row in wanted}
        self._served &= ids
        self._trials = {number: trial for number, trial in self._trials.items() if number in ids}
        for row in wanted:
            status, _ = status_of(context, row)
            if status in SERVING:
                self._served.add(row.id)
                self._trials.pop(row.id, None)
            elif status is ModelStatus.HOSTING_FAILED and row.id in self._served:
                self._try_again(context, row)

    def _try_again(self, context: Context, row: ModelRow) -> None:
        now = self.clock()
        trial = self._trials.setdefault(row.id, _Trial(now + FIRST, FIRST))
        if now < trial.due:
            return
        trial.pause = min(LAST, 2 * trial.pause)
        trial.due = now + trial.pause
        log.warning("model %s failed; hosting it again", hosted_name(row))
        with context.catalog.transaction():  # nobody starts or stops it meanwhile
            found = context.models.by_id(row.id)
            if found is not None and found.status == "HOSTED":
                self._host(context, found)

    def _host(self, context: Context, row: ModelRow) -> None:
        try:
            host(context, row, row.facts["units"], row.facts["most"])
        except EdgedError as error:
            log.error("model %s is not hosted again: %s", hosted_name(row), error)
