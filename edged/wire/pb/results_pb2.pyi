import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class InspectRequest(_message.Message):
    __slots__ = ("station", "part", "sequence")
    STATION_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    station: str
    part: str
    sequence: int
    def __init__(self, station: _Optional[str] = ..., part: _Optional[str] = ..., sequence: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("since", "cameras", "run")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    CAMERAS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    since: int
    cameras: _containers.RepeatedScalarFieldContainer[str]
    run: str
    def __init__(self, since: _Optional[int] = ..., cameras: _Optional[_Iterable[str]] = ..., run: _Optional[str] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("since", "limit", "stations", "run")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    STATIONS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    since: int
    limit: int
    stations: _containers.RepeatedScalarFieldContainer[str]
    run: str
    def __init__(self, since: _Optional[int] = ..., limit: _Optional[int] = ..., stations: _Optional[_Iterable[str]] = ..., run: _Optional[str] = ...) -> None: ...

class ListResponse(_message.Message):
    __slots__ = ("inspections", "next", "run")
    INSPECTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    inspections: _containers.RepeatedCompositeFieldContainer[Inspection]
    next: int
    run: str
    def __init__(self, inspections: _Optional[_Iterable[_Union[Inspection, _Mapping]]] = ..., next: _Optional[int] = ..., run: _Optional[str] = ...) -> None: ...

class PictureRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class PictureChunk(_message.Message):
    __slots__ = ("data", "media_type", "size")
    DATA_FIELD_NUMBER: _ClassVar[int]
    MEDIA_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    media_type: str
    size: int
    def __init__(self, data: _Optional[bytes] = ..., media_type: _Optional[str] = ..., size: _Optional[int] = ...) -> None: ...

class LabelRequest(_message.Message):
    __slots__ = ("id", "anomalous", "dataset", "project", "classes")
    ID_FIELD_NUMBER: _ClassVar[int]
    ANOMALOUS_FIELD_NUMBER: _ClassVar[int]
    DATASET_FIELD_NUMBER: _ClassVar[int]
    PROJECT_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    id: str
    anomalous: bool
    dataset: str
    project: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., anomalous: _Optional[bool] = ..., dataset: _Optional[str] = ..., project: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ...) -> None: ...

class LabelResponse(_message.Message):
    __slots__ = ("source_ref",)
    SOURCE_REF_FIELD_NUMBER: _ClassVar[int]
    source_ref: str
    def __init__(self, source_ref: _Optional[str] = ...) -> None: ...

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

class Trigger(_message.Message):
    __slots__ = ("part", "sequence", "kind")
    PART_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    part: str
    sequence: int
    kind: str
    def __init__(self, part: _Optional[str] = ..., sequence: _Optional[int] = ..., kind: _Optional[str] = ...) -> None: ...

class Inspection(_message.Message):
    __slots__ = ("position", "id", "camera", "sequence", "captured_at", "name", "part", "simulated", "model", "verdict", "no_verdict", "timing", "truth", "run", "station", "engine", "image_sha256", "trigger", "late_of", "ok", "code", "has_picture")
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
    STATION_FIELD_NUMBER: _ClassVar[int]
    ENGINE_FIELD_NUMBER: _ClassVar[int]
    IMAGE_SHA256_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    LATE_OF_FIELD_NUMBER: _ClassVar[int]
    OK_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    HAS_PICTURE_FIELD_NUMBER: _ClassVar[int]
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
    station: str
    engine: str
    image_sha256: str
    trigger: Trigger
    late_of: int
    ok: bool
    code: int
    has_picture: bool
    def __init__(self, position: _Optional[int] = ..., id: _Optional[str] = ..., camera: _Optional[str] = ..., sequence: _Optional[int] = ..., captured_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., name: _Optional[str] = ..., part: _Optional[str] = ..., simulated: _Optional[bool] = ..., model: _Optional[_Union[Model, _Mapping]] = ..., verdict: _Optional[_Union[Verdict, _Mapping]] = ..., no_verdict: _Optional[_Union[NoVerdict, _Mapping]] = ..., timing: _Optional[_Union[Timing, _Mapping]] = ..., truth: _Optional[_Union[Truth, _Mapping]] = ..., run: _Optional[str] = ..., station: _Optional[str] = ..., engine: _Optional[str] = ..., image_sha256: _Optional[str] = ..., trigger: _Optional[_Union[Trigger, _Mapping]] = ..., late_of: _Optional[int] = ..., ok: _Optional[bool] = ..., code: _Optional[int] = ..., has_picture: _Optional[bool] = ...) -> None: ...
