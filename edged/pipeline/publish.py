"""From one inspection to every sink: the reply of all camera jobs.

A frame that a newer one of its free-running camera replaced is counted and not published: it was
no part that anybody asked about. Every other inspection goes out, judged or not, so that a part
without a verdict is seen as such. One sink that fails does not keep the record from the others.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from edged.core.errors import SinkError
from edged.core.observer import Observer
from edged.core.protocols import Sink
from edged.core.types import Inspection, NoVerdict, Reason

log = logging.getLogger(__name__)


class Publisher:
    """Fan-out to the sinks. `publish` is called on unit threads, several at once."""

    def __init__(self, sinks: Sequence[Sink], observer: Observer) -> None:
        self._sinks = tuple(sinks)
        self._observer = observer

    def publish(self, inspection: Inspection) -> None:
        """Hand the record to every sink; never raises."""
        outcome = inspection.outcome
        if isinstance(outcome, NoVerdict) and outcome.reason is Reason.SUPERSEDED:
            return
        self._observer.inspected(inspection)
        for sink in self._sinks:
            try:
                sink.accept(inspection)
            except SinkError as error:
                log.error("sink %s lost inspection %s: %s", sink.name, inspection.id, error)
            except Exception:
                log.exception("sink %s failed on inspection %s", sink.name, inspection.id)
