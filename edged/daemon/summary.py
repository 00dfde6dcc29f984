"""What the daemon did in its life, for the summary at its end, and which cameras deliver."""

from __future__ import annotations

import threading
from typing import Any

from edged.core.observer import Observer
from edged.core.types import Inspection

KINDS = ("ok", "ng", "no_verdict", "skipped")


class RunSummary(Observer):
    """What the daemon did in its life, for the summary at its end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.cameras: dict[str, dict[str, int]] = {}
        self.delivering: frozenset[str] = frozenset()

    def inspected(self, inspection: Inspection) -> None:
        """Count one part of its station."""
        if inspection.late_of:
            return
        verdict = inspection.verdict
        outcome = "no_verdict" if verdict is None else "ng" if verdict.is_anomalous else "ok"
        self._count(inspection.frame.station, outcome)

    def frame_skipped(self, camera: str, name: str, why: str) -> None:
        """Count a picture that was none."""
        self._count(camera, "skipped")

    def camera_state(self, camera: str, up: bool, detail: str) -> None:
        """Remember which cameras deliver."""
        with self._lock:
            self.delivering = self.delivering | {camera} if up else self.delivering - {camera}

    def _count(self, camera: str, what: str) -> None:
        with self._lock:
            counts = self.cameras.setdefault(camera, dict.fromkeys(KINDS, 0))
            counts[what] += 1

    def totals(self) -> dict[str, Any]:
        """One object: `inspections` in all, and counts by camera."""
        with self._lock:
            cameras = {name: dict(counts) for name, counts in sorted(self.cameras.items())}
        total = sum(c["ok"] + c["ng"] + c["no_verdict"] for c in cameras.values())
        return {"inspections": total, "cameras": cameras}
