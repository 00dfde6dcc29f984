import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class WatchRequest(_message.Message):
    __slots__ = ("since", "cameras", "run")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    since: int
    cameras: _containers.RepeatedScalarFieldContainer[str]
    run: str
    def __init__(self, since: _Optional[int] = ..., cameras: _Optional[_Iterable[str]] = ..., run: _Optional[str] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "version", "sha256")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: str
    sha256: str
    def __init__(self, name: _Optional[str] = ..., version: _Optional[str] = ..., sha256: _Optional[str] = ...) -> None: ...

class Anomaly(_message.Message):
    __slots__ = ("name", "area", "color")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    COLOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    area: float
    color: str
    def __init__(self, name: _Optional[str] = ..., area: _Optional[float] = ..., color: _Optional[str] = ...) -> None: ...

class Verdict(_message.Message):
    __slots__ = ("is_anomalous", "confidence", "score", "threshold", "anomalies")
    IS_ANOMALOUS_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    ANOMALIES_FIELD_NUMBER: _ClassVar[int]
    is_anomalous: bool
    confidence: float
    score: float
    threshold: float
    anomalies: _containers.RepeatedCompositeFieldContainer[Anomaly]
    def __init__(self, is_anomalous: _Optional[bool] = ..., confidence: _Optional[float] = ..., score: _Optional[float] = ..., threshold: _Optional[float] = ..., anomalies: _Optional[_Iterable[_Union[Anomaly, _Mapping]]] = ...) -> None: ...

class NoVerdict(_message.Message):
    __slots__ = ("reason", "code", "detail")
    REASON_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    reason: str
    code: int
    detail: str
    def __init__(self, reason: _Optional[str] = ..., code: _Optional[int] = ..., detail: _Optional[str] = ...) -> None: ...

class Truth(_message.Message):
    __slots__ = ("is_anomalous", "defect")
    IS_ANOMALOUS_FIELD_NUMBER: _ClassVar[int]
    DEFECT_FIELD_NUMBER: _ClassVar[int]
    is_anomalous: bool
    defect: str
    def __init__(self, is_anomalous: _Optional[bool] = ..., defect: _Optional[str] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue_seconds", "infer_seconds", "total_seconds")
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    INFER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SECONDS_FIELD_NUMBER: _ClassVar[int]
    queue_seconds: float
    infer_seconds: float
    total_seconds: float
    def __init__(self, queue_seconds: _Optional[float] = ..., infer_seconds: _Optional[float] = ..., total_seconds: _Optional[float] = ...) -> None: ...

class Inspection(_message.Message):
    __slots__ = ("position", "id", "camera", "sequence", "captured_at", "name", "part", "simulated", "model", "verdict", "no_verdict", "timing", "truth", "run")
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    CAMERA_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CAPTURED_AT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SIMULATED_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    NO_VERDICT_FIELD_NUMBER: _ClassVar[int]
    TIMING_FIELD_NUMBER: _ClassVar[int]
    TRUTH_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    position: int
    id: str
    camera: str
    sequence: int
    captured_at: _timestamp_pb2.Timestamp
    name: str
    part: str
    simulated: bool
    model: Model
    verdict: Verdict
    no_verdict: NoVerdict
    timing: Timing
    truth: Truth
    run: str
    def __init__(self, position: _Optional[int] = ..., id: _Optional[str] = ..., camera: _Optional[str] = ..., sequence: _Optional[int] = ..., captured_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., name: _Optional[str] = ..., part: _Optional[str] = ..., simulated: _Optional[bool] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., no_verdict: _Optional[_Union[NoVerdict, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., truth: _Optional[_Union[Truth, _Mapping]] = ..., run: _Optional[str] = ...) -> None: ...
