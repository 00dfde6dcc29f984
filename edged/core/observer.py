"""Hooks that keep counting and logging off the path of a frame.

Every hook does nothing here; metrics and tests subclass what they want to hear. Hooks are called
on whichever thread does the work, must be quick, and must not raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edged.core.stations import StationState
from edged.core.types import Inspection, Job, Reason


class Observer:
    """No-op subscriber: the default everywhere."""

    def frame_captured(self, camera: str) -> None:
        """A camera delivered a frame (capture thread)."""

    def frame_skipped(self, camera: str, name: str, why: str) -> None:
        """A source had something that is no picture, and went on (capture thread)."""

    def camera_state(self, camera: str, up: bool, detail: str) -> None:
        """A camera came up or was lost (capture thread)."""

    def job_dropped(self, model: str, job: Job, reason: Reason) -> None:
        """A job ended without inference (offering thread or unit thread)."""

    def batch_done(self, model: str, size: int, seconds: float) -> None:
        """A unit finished a batch: resize, copy and engine took `seconds` (unit thread)."""

    def inspected(self, inspection: Inspection) -> None:
        """An inspection of a camera's frame goes to the sinks (unit thread)."""

    def triggered(self, station: str, word: str) -> None:
        """A trigger came; `accepted`, or the reason why it was missed (whoever triggers)."""

    def deadline_missed(self, station: str) -> None:
        """A verdict was there in time, but could not leave before its deadline (sink thread)."""

    def result_overrun(self, station: str) -> None:
        """A result that waited for the PLC had to make room (unit thread, sink thread)."""

    def result_confirmed(self, station: str, seconds: float) -> None:
        """The PLC has processed a result, so long after it was decided (sink thread)."""

    def station_state(self, station: str, state: StationState) -> None:
        """A station has moved (its clock's thread)."""

    def units_changed(self, model: str, units: int) -> None:
        """A pool grew or shrank to `units` running units."""

    def engine_changed(self, model: str, engine: str) -> None:
        """A model is served by that engine from now on; empty = by none (any thread)."""

    def engine_refused(self, model: str) -> None:
        """A better engine did not come up, or did not prove itself (the upgrade's thread)."""

    def sink_state(self, sink: str, connected: bool, detail: str) -> None:
        """A sink's far end came up or was lost (sink thread)."""

    def sink_backlog(self, sink: str, rows: int) -> None:
        """Records accepted by a sink and not yet acknowledged by its far end (sink thread)."""

    def sink_outbox(self, sink: str, size: int, age: float) -> None:
        """The records on disk: bytes, and seconds since the oldest came, each second (sink thread).

        The seconds are those that the box was up.
        """

    def sink_confirmed(self, sink: str, records: int) -> None:
        """Receivers have confirmed so many records, which are forgotten now (sink thread)."""

    def sink_delivered(self, sink: str, reason: str) -> None:
        """The far end answered for one record: `success`, `no_subscriber`, ... (sink thread)."""

    def sink_dropped(self, sink: str, policy: str) -> None:
        """A sink let go of a message, by a stated policy (sink thread)."""

    def archive_kept(self, pictures: int, size: int, state: int) -> None:
        """The archive has so many pictures of `size` bytes (its thread).

        state: 0 = as configured, 1 = the disk has room for rejects only, 2 = for no picture.
        """

    def archive_dropped(self, policy: str) -> None:
        """The archive let go of a picture or record, or took none (its thread or a unit's)."""

    def request_done(self, method: str, code: str, seconds: float) -> None:
        """A front door answered a request (doors thread)."""


class Observers(Observer):
    """Tells several subscribers, in order. Built from the hooks above, so none can be forgotten."""

    def __init__(self, *observers: Observer) -> None:
        for hook in (name for name in vars(Observer) if not name.startswith("_")):
            setattr(self, hook, _each([getattr(observer, hook) for observer in observers]))


def _each(hooks: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def tell(*args: object) -> None:
        for hook in hooks:
            hook(*args)

    return tell
