"""An Inspection as JSON, in three forms.

    detect_anomaly_result   what Lookout for Vision's DetectAnomalies answers
    full                    the record for MES and historian: that result in an envelope
    flat                    what a PLC can parse: one flat ASCII object of at most 240 bytes

`flat` keeps to what every PLC client was found to take: keys of at most 8 letters in a fixed
order, no nesting, no null, no white space, no escapes, no exponents. `ok` is 1 only for a part
that was judged and found good; whoever reads nothing else is still safe.
"""

from __future__ import annotations

import json
from datetime import timezone
from typing import Any

from edged.core.types import Inspection, NoVerdict, Verdict

FLAT_BYTES = 240
COMPLETED, FAILED = 1, 4  # ResultState of OPC 40100-1
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


def full(inspection: Inspection) -> dict[str, Any]:
    """The record as a nested object; `camera` and `seq` together are its key."""
    frame, outcome = inspection.frame, inspection.outcome
    record: dict[str, Any] = {
        "v": 1,
        "id": inspection.id,
        "camera": frame.source,
        "seq": frame.sequence,
        "captured_at": frame.captured_at.astimezone(timezone.utc).isoformat(),
        "simulated": frame.simulated,
        "st": COMPLETED if isinstance(outcome, Verdict) else FAILED,
        "eval": _EVALUATION[evaluation(inspection)],
    }
    if frame.name is not None:
        record["name"] = frame.name
    if frame.trigger is not None:
        record["part"] = frame.trigger.part
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


def number(record: bytes) -> int:
    """The `seq` of a record that `full` made."""
    return int(json.loads(record)["seq"])


def flat(inspection: Inspection) -> bytes:
    """The PLC's form, at most FLAT_BYTES bytes.

    v form version; seq as in `full`; part only with a trigger; ok; st ResultState; eval;
    score and thr in ten-thousandths; code 0 or the number of the reason; t_ms capture to
    decision; ts capture in milliseconds since 1970; sim 1 when simulated.
    """
    frame, outcome = inspection.frame, inspection.outcome
    record: dict[str, Any] = {"v": 1, "seq": frame.sequence}
    if frame.trigger is not None:
        record["part"] = frame.trigger.part
    judged = isinstance(outcome, Verdict)
    record["ok"] = int(inspection.passed)
    record["st"] = COMPLETED if judged else FAILED
    record["eval"] = evaluation(inspection)
    record["score"] = round(outcome.score * 10000) if isinstance(outcome, Verdict) else 0
    record["thr"] = round(outcome.threshold * 10000) if isinstance(outcome, Verdict) else 0
    record["code"] = outcome.reason.code if isinstance(outcome, NoVerdict) else 0
    record["t_ms"] = round(inspection.timing.total_seconds * 1000)
    record["ts"] = int(frame.captured_at.timestamp() * 1000)
    record["sim"] = int(frame.simulated)
    return dumps(record)
