"""Operations that are edged's own, beside those of Lookout for Vision: data, as in api.py.

They are signed, authorized (`lookoutvision:NAME`), throttled and written down like all others; no
path of theirs can be one of the API's, whose paths begin with its version.
"""

from __future__ import annotations

from edged.rest.constraints import ListOf, String
from edged.rest.declared import DATASET_TYPE, PROJECT_NAME, Member, Operation

OWN_PREFIX = "/edged/v1"

OWN_OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "LabelInspection", "PUT", "/inspections/{inspectionId}/label", 200,
        {
            "InspectionId": Member(String(1, 64, r"[A-Za-z0-9_-]+"), "path", "inspectionId"),
            "Label": Member(String(choices=("normal", "anomaly"))),
            "DatasetType": Member(DATASET_TYPE),
            "ProjectName": Member(PROJECT_NAME),
            "Classes": Member(ListOf(String(1, 64, r"[A-Za-z0-9 _.:-]+"), 0, 20)),
        }, ("InspectionId", "Label"),
    ),
)  # fmt: skip
