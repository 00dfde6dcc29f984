"""What the rooms ask of each other. At most four members each; each says when, on which thread.

A loader is a cheap recipe, the thing it opens an activated resource that belongs to one thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edged.core.lifecycle import ModelStatus
from edged.core.types import Ack, Image, Inspection, ModelSpec, Picture, Prediction, TriggerRequest


class Camera(Protocol):
    """A source of pictures. Constructed on main; opened, read and closed on its capture thread."""

    @property
    def paced(self) -> bool:
        """True if pictures are read as fast as they are consumed and none may be shed (replay).

        False for anything that runs at its own pace: there, the freshest frame wins.
        """

    def open(self, stop: threading.Event) -> None:
        """Get ready to deliver; every wait inside the camera ends early when `stop` is set.

        Raises CameraError if the device cannot be had now; capture tries again with back-off.
        """

    def read(self) -> Picture | None:
        """The next picture; None when there will be no more (or `stop` was set).

        Blocks until there is one, for a bounded time. Raises BadImage for an item that is no
        picture (capture skips, counts and names it) and CameraError when the device is lost
        (capture closes and reopens).
        """

    def close(self) -> None:
        """Let go of the device; safe to call twice and after a failed open."""


@dataclass(frozen=True, slots=True)
class Tuning:
    """How an engine is used on this machine: how many units, how large a batch.

    threads: of one unit, where the runtime has threads of its own.
    """

    units: int
    batch: int
    threads: int = 1


ALONE = Tuning(1, 1)
"""One unit, one picture at a time."""


class Engine(Protocol):
    """An activated engine of one inference unit. Opened, used and closed on that unit's thread."""

    @property
    def input(self) -> Image:
        """uint8 (B, H, W, 3) BGR: the context's own buffer. The unit writes rows 0..n-1."""

    def infer(self, count: int) -> Prediction:
        """Numbers for the first `count` rows, 1..B, in arrays that no later call touches.

        A result never depends on the other rows. Raises EngineError.
        """

    def close(self) -> None:
        """Free everything; safe to call twice."""


class EngineLoader(Protocol):
    """One model on one runtime, ready to open contexts. Made on the thread that starts a model."""

    @property
    def name(self) -> str:
        """Runtime, device and precision, as in `onnxruntime cpu fp32`."""

    @property
    def tuning(self) -> Tuning:
        """What serves best on this machine."""

    def open(self) -> Engine:
        """A context for one unit, on that unit's thread. Raises EngineError."""

    def close(self) -> None:
        """Free what the contexts share, after the last of them is closed."""


class Sink(Protocol):
    """A place where inspections go: broker, stream, archive."""

    @property
    def name(self) -> str:
        """Unique in the daemon; it labels metrics and threads."""

    def start(self) -> None:
        """Begin; called on main before the first `accept`. A far end that is down is no error."""

    def accept(self, inspection: Inspection) -> None:
        """Take one record. Called on unit threads, several at once; returns within milliseconds."""

    def close(self) -> None:
        """Called on main after the last `accept`: make everything accepted durable, then end.

        Delivers what the shared deadline leaves time for; what stays is delivered at next start.
        """


@dataclass(frozen=True, slots=True)
class HostedModel:
    """What a front door may know about one model."""

    name: str
    status: ModelStatus
    message: str
    spec: ModelSpec | None


class ModelHost(Protocol):
    """The data plane as the front doors see it. Any thread."""

    def start(self, name: str) -> ModelStatus:
        """Begin to host; returns STARTING_HOSTING at once. Raises NotFound, WrongState."""

    def stop(self, name: str) -> ModelStatus:
        """Stop hosting and wait for the work in progress. Raises NotFound, WrongState."""

    def models(self) -> Sequence[HostedModel]:
        """Every configured model, running or not, in the order of their names."""

    def detect(self, name: str, image: Image, deadline_ns: int = 0) -> Future[Inspection]:
        """Judge one picture: uint8 (H, W, 3) BGR. The future gives an Inspection with a Verdict.

        Raises, here or from the future, NotFound, WrongState, BadImage, Busy, DeadlineExceeded,
        ShuttingDown, EngineError.
        """


class Stations(Protocol):
    """The stations as whoever triggers them sees them. Any thread; nothing here blocks."""

    def trigger(self, station: str, request: TriggerRequest | None, received_ns: int) -> Ack:
        """Take a request, or miss it. `received_ns`: monotonic, when it came in.

        None: somebody triggered, but it cannot be read for which part.

        A new (part, sequence) gets exactly one inspection in the sinks, also when it is missed.
        Raises NotFound for a station that is not there or takes no triggers from outside.
        """

    def inspect(
        self, station: str, request: TriggerRequest, received_ns: int
    ) -> Future[Inspection]:
        """The same for somebody who waits: the future gives the one inspection of the request.

        It has a NoVerdict when the part was not judged. Raises NotFound; WrongState for a request
        that came before.
        """

    def delivered(self, station: str, sequence: int) -> None:
        """The PLC has processed the results up to this number. Raises NotFound."""

    def command(self, station: str, word: str, model: str = "") -> str:
        """`start`, `stop`, or `recipe` with a model; a sentence on what holds now.

        Raises NotFound, InvalidInput, WrongState.
        """


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One inspection in the journal.

    position: rises by one for each inspection of this box, also across restarts, never reused.
    record: as wire.results.full writes it. picture: whether its picture is still kept.
    """

    position: int
    record: Mapping[str, Any]
    picture: bool = False


class Journal(Protocol):
    """Every inspection of this box, on disk, with some of their pictures. Any thread; may block."""

    def since(
        self, position: int, limit: int, stations: Collection[str] = (), until: int | None = None
    ) -> list[JournalEntry]:
        """The next entries after `position` in order, up to `until`; no stations = all."""

    def find(self, id: str) -> JournalEntry:
        """One inspection. Raises NotFound."""

    def picture(self, id: str) -> tuple[bytes, str]:
        """Its encoded picture without loss, and the media type. Raises NotFound."""


@dataclass(frozen=True, slots=True)
class Label:
    """What a person says of an inspected part, for the next training.

    dataset: train or test. project: of the API; empty = the one that the station follows.
    classes: names of what is wrong, as a note. scope: (account, region) whose projects may be
    used; None = anybody's.
    """

    anomalous: bool
    dataset: str = "train"
    project: str = ""
    classes: tuple[str, ...] = ()
    scope: tuple[str, str] | None = None


class Labels(Protocol):
    """Makes archived pictures entries of the API's data sets. Any thread; blocks for the disk."""

    def label(self, id: str, label: Label) -> str:
        """Put the picture where the data set can keep it, and add or replace its entry.

        The source-ref of the entry, which the next CreateModel trains on. Raises NotFound,
        InvalidInput, WrongState, BadImage.
        """


class FeatureExtractor(Protocol):
    """A frozen network run for training; used by one thread."""

    def run(self, images: Image) -> list[npt.NDArray[np.float32]]:
        """Outputs in the graph's order for uint8 (N, H, W, 3) BGR."""

    def close(self) -> None:
        """Free everything."""


class FeatureExtractorLoader(Protocol):
    """How training, which knows no runtime, gets its network run."""

    def __call__(self, model: bytes) -> FeatureExtractor:
        """Load a serialised ONNX model. Raises EngineError."""


class Progress(Protocol):
    """Where long work says how far it is; called on the working thread."""

    def __call__(self, stage: str, done: int, total: int, **facts: Any) -> None:
        """`done` of `total` steps of `stage` are finished."""


class LiveJournal(Journal, Protocol):
    """A journal that is being written in this process."""

    def subscribe(self, callback: Callable[[Sequence[JournalEntry]], None]) -> Callable[[], None]:
        """Call back with new entries once they are durable, in order, on the journal's thread.

        The answer ends it.
        """
