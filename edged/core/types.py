"""What travels through edged: Frame -> Job -> Prediction -> Verdict -> Inspection.

Numbers (Prediction) and judgement (Verdict) are two types because the engine owns the first and
edged owns the second. Everything here is immutable; arrays are read-only by agreement and frames
by flag, so any number of threads may hold them.

Clocks: every `*_ns` is `time.monotonic_ns()` of this machine (comparable between its processes,
immune to clock steps); `captured_at` is UTC wall time, for people and records.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from edged.core.names import TriggerKind

Image: TypeAlias = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), BGR, C-contiguous."""

Floats: TypeAlias = npt.NDArray[np.float32]


NO_IMAGE: Image = np.zeros((0, 0, 3), np.uint8)
"""Of a frame that no camera took: a trigger that came to nothing."""
NO_IMAGE.setflags(write=False)


@dataclass(frozen=True, slots=True)
class TriggerRequest:
    """What a trigger says: inspect one part.

    part: `[A-Za-z0-9._:-]{1,40}`. sequence: the sender's number, 0 to 4294967295.
    deadline: seconds from receipt; None = the station's.
    """

    part: str
    sequence: int
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """An request that a station received, or gave itself; `part` is empty then."""

    part: str
    sequence: int
    received_ns: int
    deadline_ns: int = 0
    """An answer after this moment is none; 0 = no deadline."""
    kind: TriggerKind = "mqtt"


@dataclass(frozen=True, slots=True)
class Truth:
    """What a simulated camera knows about its own picture."""

    is_anomalous: bool
    defect: str | None = None
    """Kind of defect, or None for a good part."""
    mask: npt.NDArray[np.bool_] | None = None
    """bool (H, W), True where the defect is; None for a good part."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What a camera's `read` returns; capture makes a Frame of it.

    image: uint8 (H, W, 3) BGR, C-contiguous; the camera gives it away and never writes it again.
    captured_ns, captured_at: taken by the camera as close to the exposure as it can.
    name, simulated, truth: as in Frame.
    """

    image: Image
    captured_ns: int
    captured_at: datetime
    name: str | None = None
    simulated: bool = False
    truth: Truth | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of one part.

    station: a camera without a section in `[[stations]]` is one of its own name.
    camera: the device that took it; empty = called like the station.
    image: uint8 (H, W, 3) BGR, C-contiguous, read-only; NO_IMAGE when none was taken.
    sequence: rises by one for each frame of this station, never reused, not even across restarts.
    name: what the camera calls the picture (a file's path), if it has a name.
    simulated: True when no real camera saw this; it travels into every record.
    """

    station: str
    sequence: int
    captured_ns: int
    captured_at: datetime
    image: Image
    trigger: Trigger | None = None
    name: str | None = None
    simulated: bool = False
    truth: Truth | None = None
    camera: str = ""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Numbers for a batch, as the engine computed them.

    scores: float32 (N,), calibrated to 0..1; a part is anomalous where score >= threshold.
    maps: float32 (N, 1, h, w) in absolute units (1.0 = the pixel limit), or None.
    classes: float32 (N, K, h, w), how surely each class of defect is seen; 0.5 or more = it is.
    """

    scores: Floats
    maps: Floats | None = None
    classes: Floats | None = None


@dataclass(frozen=True, slots=True)
class DefectClass:
    """A class of defect that a segmentation model tells apart; colour: upper-case #RRGGBB."""

    name: str
    color: str


@dataclass(frozen=True, slots=True)
class Anomaly:
    """One class of defect seen in an image; `area` is a fraction 0..1 of the image."""

    name: str
    area: float
    color: str
    """Upper-case #RRGGBB."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Judgement on one image.

    confidence: 0..1, of the decision that was taken (high for a clearly good part, too).
    score: 0..1, the calibrated anomaly score; threshold: what it was compared with.
    heatmap: float32 (h, w), 1.0 = the pixel limit; None when the model draws none.
    mask: uint8 (H, W) class index per pixel, 0 = background; None unless a segmentation model.
    """

    is_anomalous: bool
    confidence: float
    score: float
    threshold: float
    anomalies: tuple[Anomaly, ...] = ()
    heatmap: Floats | None = None
    mask: npt.NDArray[np.uint8] | None = None


class Reason(enum.Enum):
    """Why there is no verdict. The value is the word on the wire, `code` the PLC's number."""

    SUPERSEDED = ("superseded", 1)  # a newer frame of the same free-running camera took its place
    OVERLOAD = ("overload", 2)
    TIMEOUT = ("timeout", 3)
    ENGINE_FAILED = ("engine_failed", 4)
    MODEL_MISSING = ("model_missing", 5)
    IMAGE_SIZE = ("image_size", 6)
    SHUTDOWN = ("shutdown", 7)
    CAMERA_LOST = ("camera_lost", 8)
    STALE_FRAME = ("stale_frame", 9)  # the camera gave only pictures from before the trigger
    SIMULATED = ("simulated", 10)  # judged, but no real camera saw the part
    NO_RECORD = ("no_record", 11)  # its record cannot be kept
    HALTED = ("halted", 12)  # the station was told to stop
    BAD_TRIGGER = ("bad_trigger", 13)  # only in an ack: there is no part to answer for
    DUPLICATE = ("duplicate", 14)  # only in an ack: this (part, seq) has its result

    def __init__(self, word: str, code: int) -> None:
        self.word = word
        self.code = code


@dataclass(frozen=True, slots=True)
class NoVerdict:
    """The part was not judged. It must never be taken for an OK."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ModelRef:
    """Which model judged: its name, version and the sha256 of `model.onnx`."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What `spec.json` in a model folder says, as far as serving needs it.

    height, width: the graph's input, in pixels.
    image_size: (height, width) of the training images, or None when they were mixed.
    golden: file name in `golden/` -> the score the trainer saw for it.
    classes: of a segmentation model, in the order of its mask's indices from 1; else empty.
    seen_scores: of the training's pictures, each by scorers that had not seen it.
    """

    ref: ModelRef
    height: int
    width: int
    threshold: float
    image_size: tuple[int, int] | None = None
    golden: Mapping[str, float] = field(default_factory=dict)
    classes: tuple[DefectClass, ...] = ()
    seen_scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Timing:
    """Monotonic nanoseconds at each station of a frame's journey; 0 = never got there."""

    captured_ns: int
    queued_ns: int = 0
    taken_ns: int = 0
    inferred_ns: int = 0
    decided_ns: int = 0

    @property
    def queue_seconds(self) -> float:
        """Waiting for a free unit."""
        return max(0, self.taken_ns - self.queued_ns) / 1e9

    @property
    def infer_seconds(self) -> float:
        """Resize, copy and engine; of the whole batch this image was in."""
        return max(0, self.inferred_ns - self.taken_ns) / 1e9

    @property
    def total_seconds(self) -> float:
        """From capture to the decision."""
        return max(0, self.decided_ns - self.captured_ns) / 1e9


def new_id() -> str:
    """An id for one inspection, unique everywhere: 32 hexadecimal digits."""
    return os.urandom(16).hex()


@dataclass(frozen=True, slots=True)
class Inspection:
    """The record of one part: what was seen, by which model, and the outcome. Goes to sinks.

    engine: runtime, device and precision that judged; empty without a verdict.
    late_of: the sequence of the part that has been answered with `timeout`, when this is the
    verdict that came too late; such a record never goes to the PLC.
    """

    frame: Frame
    model: ModelRef | None
    outcome: Verdict | NoVerdict
    timing: Timing
    id: str = field(default_factory=new_id)
    engine: str = ""
    late_of: int = 0

    @property
    def verdict(self) -> Verdict | None:
        """The verdict, or None if the part was not judged."""
        return self.outcome if isinstance(self.outcome, Verdict) else None

    @property
    def passed(self) -> bool:
        """True only for a part that was judged and found good."""
        return isinstance(self.outcome, Verdict) and not self.outcome.is_anomalous

    @property
    def code(self) -> int:
        """0 for a verdict on a real part; else the number of the reason why it counts for none."""
        if isinstance(self.outcome, NoVerdict):
            return self.outcome.reason.code
        return Reason.SIMULATED.code if self.frame.simulated else 0

    @property
    def ok(self) -> bool:
        """What a PLC may act on: judged, in time, good, and seen by a real camera."""
        return self.passed and not self.code and not self.late_of


@dataclass(frozen=True, slots=True)
class Ack:
    """The answer to a trigger itself: taken, or missed and why. Taken: `reason` is None.

    DUPLICATE: this (part, sequence) came before; its one result stands.
    """

    reason: Reason | None = None
    detail: str = ""

    @property
    def accepted(self) -> bool:
        """Whether a result of this trigger is under way, or was sent before."""
        return self.reason is None or self.reason is Reason.DUPLICATE


Reply: TypeAlias = Callable[[Inspection], None]


@dataclass(frozen=True, slots=True)
class Job:
    """A frame on its way to a unit, and how its inspection finds the way back.

    sheddable: a newer frame of the same source may take its place (free-running cameras).
    deadline_ns: dropped before inference when this has passed; 0 = none.
    reply: called exactly once, on whichever thread ends the job; must not block or raise.
    """

    frame: Frame
    reply: Reply
    sheddable: bool = False
    deadline_ns: int = 0
    queued_ns: int = 0
