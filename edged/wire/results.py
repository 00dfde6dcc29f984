"""An Inspection as others read it.

    detect_anomaly_result   what Lookout for Vision's DetectAnomalies answers
    full                    the record for MES and historian: that result in an envelope
    flat                    what a PLC can parse: one flat ASCII object of at most 240 bytes
    packed                  the same for a PLC that rather copies bytes than parses: 64 of them

`flat` keeps to what every PLC client was found to take: keys of at most 8 letters in a fixed
order, no nesting, no null, no white space, no escapes, no exponents. `ok` is 1 only for a part
that a real camera saw and that was judged, in time, and found good; whoever reads nothing else is
still safe.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from datetime import timezone
from typing import Any

from edged.core.names import ByteOrder
from edged.core.types import Inspection, NoVerdict, Reason, Trigger, Verdict

FLAT_BYTES = 240
COMPLETED, PROCESSING, ABORTED, FAILED = 1, 2, 3, 4  # ResultState of OPC 40100-1
PACKED = "BBHIBBBBIqff32s"
"""version 1, ok, code, seq, st, eval, sim, 0, t_ms, ts, score, thr, part."""
SIGN = {"little": "<", "big": ">"}
OK, NOT_OK, NOT_DECIDABLE = 1, 2, 3  # ResultEvaluationEnum of OPC 40001-101
_EVALUATION = {OK: "OK", NOT_OK: "NotOK", NOT_DECIDABLE: "NotDecidable"}


def dumps(value: dict[str, Any]) -> bytes:
    """Compact ASCII JSON; raises ValueError rather than write NaN."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def detect_anomaly_result(verdict: Verdict) -> dict[str, Any]:
    """The value of `DetectAnomalyResult`, as API 2020-11-20 answers for a classification model."""
    result: dict[str, Any] = {
        "Source": {"Type": "direct"},
        "IsAnomalous": verdict.is_anomalous,
        "Confidence": verdict.confidence,
    }
    if verdict.anomalies:
        result["Anomalies"] = [
            {"Name": a.name, "PixelAnomaly": {"TotalPercentageArea": a.area, "Color": a.color}}
            for a in verdict.anomalies
        ]
    return result


def evaluation(inspection: Inspection) -> int:
    """OK, NOT_OK or NOT_DECIDABLE."""
    if isinstance(inspection.outcome, NoVerdict):
        return NOT_DECIDABLE
    return NOT_OK if inspection.outcome.is_anomalous else OK


def full(inspection: Inspection, image: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The record as a nested object; `station` and `seq` together are its key.

    image: what the archive knows of the picture: `sha256` of its pixels, `height`, `width`.
    """
    frame, outcome = inspection.frame, inspection.outcome
    record: dict[str, Any] = {
        "v": 1,
        "id": inspection.id,
        "station": frame.station,
        "camera": frame.camera or frame.station,
        "seq": frame.sequence,
        "captured_at": frame.captured_at.astimezone(timezone.utc).isoformat(),
        "simulated": frame.simulated,
        "st": COMPLETED if isinstance(outcome, Verdict) else FAILED,
        "eval": _EVALUATION[evaluation(inspection)],
        "ok": inspection.ok,
        "code": inspection.code,
    }
    if frame.name is not None:
        record["name"] = frame.name
    if inspection.late_of:
        record["late_of"] = inspection.late_of
    if (request := _request_of(inspection)) is not None:
        record["part"] = request.part
    if (trigger := frame.trigger) is not None:
        record["trigger"] = {"kind": trigger.kind, "part": trigger.part, "seq": trigger.sequence}
    if inspection.engine:
        record["engine"] = inspection.engine
    if image is not None:
        record["image"] = dict(image)
    if inspection.model is not None:
        model = inspection.model
        record["model"] = {"name": model.name, "version": model.version, "sha256": model.sha256}
    if isinstance(outcome, Verdict):
        record["score"] = outcome.score
        record["threshold"] = outcome.threshold
        record["DetectAnomalyResult"] = detect_anomaly_result(outcome)
    else:
        record["reason"] = outcome.reason.word
        record["detail"] = outcome.detail
    record["timing"] = {
        "queue_seconds": inspection.timing.queue_seconds,
        "infer_seconds": inspection.timing.infer_seconds,
        "total_seconds": inspection.timing.total_seconds,
    }
    if frame.truth is not None:
        record["truth"] = {"anomalous": frame.truth.is_anomalous, "defect": frame.truth.defect}
    return record


def result_number(inspection: Inspection) -> int:
    """What a PLC knows the part by: the trigger's sequence, or the record's without one."""
    trigger = _request_of(inspection)
    return trigger.sequence if trigger is not None else inspection.frame.sequence


def flat(inspection: Inspection) -> bytes:
    """The PLC's form, at most FLAT_BYTES bytes.

    v form version; seq of the trigger, and part; without one seq as in `full`; ok; st
    ResultState; eval; score and thr in ten-thousandths; code 0 or the number of the reason why
    ok cannot be 1; t_ms capture to decision; ts capture in milliseconds since 1970; sim 1 when
    simulated; rec with a trigger: seq as in `full`.
    """
    frame, outcome = inspection.frame, inspection.outcome
    trigger = _request_of(inspection)
    record: dict[str, Any] = {"v": 1, "seq": result_number(inspection)}
    if trigger is not None:
        record["part"] = trigger.part
    record["ok"] = int(inspection.ok)
    record["st"] = result_state(inspection)
    record["eval"] = evaluation(inspection)
    record["score"] = round(outcome.score * 10000) if isinstance(outcome, Verdict) else 0
    record["thr"] = round(outcome.threshold * 10000) if isinstance(outcome, Verdict) else 0
    record["code"] = inspection.code
    record["t_ms"] = _milliseconds(inspection)
    record["ts"] = int(frame.captured_at.timestamp() * 1000)
    record["sim"] = int(frame.simulated)
    if trigger is not None:
        record["rec"] = frame.sequence
    return dumps(record)


def packed(inspection: Inspection, byte_order: ByteOrder) -> bytes:
    """The same as 64 bytes without gaps.

    B version 1, B ok, H code, I seq, B st, B eval, B sim, B 0, I t_ms, q ts, f score, f thr,
    32s part, filled up with zeros. seq and t_ms are modulo 2^32.
    """
    frame, outcome = inspection.frame, inspection.outcome
    trigger = _request_of(inspection)
    judged = outcome if isinstance(outcome, Verdict) else None
    return struct.pack(
        SIGN[byte_order] + PACKED,
        1,
        inspection.ok,
        inspection.code,
        result_number(inspection) % 2**32,
        result_state(inspection),
        evaluation(inspection),
        frame.simulated,
        0,
        _milliseconds(inspection) % 2**32,
        int(frame.captured_at.timestamp() * 1000),
        judged.score if judged else 0.0,
        judged.threshold if judged else 0.0,
        trigger.part.encode() if trigger is not None else b"",
    )


def withhold(result: bytes, reason: Reason, byte_order: ByteOrder | None) -> bytes:
    """A result whose verdict must not be acted on, as was found after it was made: none, and why.

    byte_order: of what `packed` made; None = of `flat`.
    """
    if byte_order is None:
        none = {"ok": 0, "st": FAILED, "eval": NOT_DECIDABLE, "code": reason.code}
        return dumps(json.loads(result) | none)
    form = SIGN[byte_order] + PACKED
    version, _, _, seq, _, _, *rest = struct.unpack(form, result)
    return struct.pack(form, version, 0, reason.code, seq, FAILED, NOT_DECIDABLE, *rest)


def _request_of(inspection: Inspection) -> Trigger | None:
    """The trigger that somebody else gave; a station's own has no number that anybody knows."""
    trigger = inspection.frame.trigger
    return trigger if trigger is not None and trigger.kind in ("mqtt", "grpc") else None


def result_state(inspection: Inspection) -> int:
    """ResultState of OPC 40100-1: COMPLETED or FAILED."""
    return COMPLETED if isinstance(inspection.outcome, Verdict) else FAILED


def _milliseconds(inspection: Inspection) -> int:
    return round(inspection.timing.total_seconds * 1000)
