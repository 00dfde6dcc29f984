"""CreateModel holds what data sets say against the quotas, and says what is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from edged.config import Quotas
from tests.support.rest_server import Rest, rest_server

SMALL = Quotas(
    projects=9, single_normal=2, single_anomaly=2, train_normal=2, test_normal=1, test_anomaly=1,
    labels=2, labels_per_mask=2, single_per_label=2, two_per_label=1,
    segmentation_train_images=8, segmentation_test_images=2,
)  # fmt: skip
AT = {"ProjectName": "p"}


def line(number: int, *labels: str, masked: bool = True, normal: bool = False) -> str:
    """An anomalous picture whose mask has these labels, or a normal one."""
    kind = {"class-name": "normal" if normal else "anomaly", "human-annotated": "yes",
            "type": "groundtruth/image-classification"}  # fmt: skip
    entry: dict[str, Any] = {
        "source-ref": f"s3://parts/{number}.png",
        "l": 0,
        "l-metadata": kind,
    }
    if masked and not normal:
        colors = [(name, f"#00000{place}") for place, name in enumerate(labels, 1)]
        known = {str(i): {"class-name": n, "hex-color": c} for i, (n, c) in enumerate(colors, 1)}
        known["0"] = {"class-name": "BACKGROUND", "hex-color": "#ffffff"}
        entry["m-ref"] = f"s3://parts/{number}-mask.png"
        entry["m-ref-metadata"] = {"internal-color-map": known, "type": "groundtruth/semantic"}
    return json.dumps(entry)


def normal(*numbers: int) -> list[str]:
    return [line(number, normal=True) for number in numbers]


def refusal(rest: Rest, train: list[str], test: list[str] | None = None) -> str:
    """What CreateModel says to these data sets; empty when it accepts."""
    aws = rest.client()
    aws.create_project(**AT)
    for kind, lines in (("train", train), ("test", test)):
        if lines is not None:
            (rest.service.state.path / "buckets" / "parts" / "m").write_text("\n".join(lines))
            source = {"GroundTruthManifest": {"S3Object": {"Bucket": "parts", "Key": "m"}}}
            aws.create_dataset(**AT, DatasetType=kind, DatasetSource=source)
            rest.settle()
    try:
        aws.create_model(**AT, OutputConfig={"S3Location": {"Bucket": "parts"}})
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ValidationException"
        return str(error.response["Error"]["Message"])
    return ""


TRAIN = [*normal(1, 2), line(3, "crack"), line(4, "crack")]
CASES: dict[str, tuple[list[str], list[str] | None, str]] = {
    "enough": (TRAIN, None, ""),
    "too few normal": (TRAIN[1:], None, "has 1 images labeled normal; at least 2 are needed"),
    "too few anomalous": (TRAIN[:-1], None, "has 1 images labeled anomaly; at least 2"),
    "a rare label": (
        [*TRAIN, line(5, "dent")], None,
        "The train dataset of p has 1 images with the anomaly label dent and no other; at least 2",
    ),
    "a label beside another counts for none": (
        [*TRAIN, line(5, "dent"), line(6, "dent", "crack")], None, "has 1 images with the anomaly",
    ),
    "no mask, no labels": (
        [*normal(1, 2), line(3, masked=False), line(4, masked=False)], None, ""
    ),
    "too many labels": (
        [*TRAIN, *(line(n, f"l{n % 3}") for n in range(5, 11))], None, "has 4 anomaly labels; 2",
    ),
    "too many in one mask": (
        [*TRAIN, line(5, "a", "b", "c")], None, "s3://parts/5-mask.png has 3 anomaly labels",
    ),
    "too many to segment": (
        [*TRAIN, *normal(*range(5, 10))], None, "has 9 labeled images; a segmentation model may",
    ),
    "two data sets": (TRAIN, [*normal(11), line(12, "crack")], ""),
    "a test data set without masks": (TRAIN, [*normal(11), line(12, masked=False)], ""),
    "a label that was never learned": (
        TRAIN, [*normal(11), line(12, "dent")],
        "The train dataset of p has 0 images with the anomaly label dent",
    ),
    "a test data set without anomalies": (TRAIN, normal(11, 12), "has 0 images labeled anomaly"),
    "too many to test a segmentation": (
        TRAIN, [*normal(11, 12), line(13, "crack")], "The test dataset of p has 3 labeled images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_data_sets_keep_to_the_quotas(tmp_path: Path, case: str) -> None:
    train, test, words = CASES[case]
    with rest_server(tmp_path, SMALL) as rest:
        said = refusal(rest, train, test)
    assert words in said and bool(words) is bool(said), said
