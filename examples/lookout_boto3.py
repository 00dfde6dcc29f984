"""boto3 against the API of Amazon Lookout for Vision that a box answers on its own.

    python examples/lookout_boto3.py             # against `make demo`: project, data set, lists
    python examples/lookout_boto3.py --train     # once: CreateModel, about half a minute
    python examples/lookout_boto3.py --endpoint http://127.0.0.1:8443 --pictures buckets/parts

A project with a data set is made of pictures in a bucket, which on a box is a folder. A version
that is trained is started, judges one good and one bad picture that it was not trained on, and is
stopped. The demo asks for no signature; elsewhere give boto3 the key of `edged credentials create`
in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. boto3 1.40.40 is the newest that knows this API.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import demo_box
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

PROJECT = "example"
GOOD, BAD = 24, 12
"""Pictures of a data set; the API wants 20 and 10 at least."""
PATIENCE = 300.0
ASK_SECONDS = 0.5
SUFFIXES = (".jpg", ".jpeg", ".png")


def client(endpoint: str) -> Any:
    """The client; signed when the environment has a key."""
    keyed = "AWS_ACCESS_KEY_ID" in os.environ
    config = Config(signature_version=None if keyed else UNSIGNED)
    region = os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
    return boto3.client("lookoutvision", endpoint_url=endpoint, region_name=region, config=config)


def until(ask: Callable[[], dict[str, Any]], done: tuple[str, ...]) -> dict[str, Any]:
    """Ask for a description until its status is one of `done`; ends the program when it fails."""
    give_up = time.monotonic() + PATIENCE
    said = ""
    while True:
        told: dict[str, Any] = next(v for k, v in ask().items() if k.endswith("Description"))
        if told["Status"] != said:
            said = told["Status"]
            print(f"    {said}", flush=True)
        if said in done:
            return told
        if "FAILED" in said or time.monotonic() > give_up:
            raise SystemExit(f"{said}: {told.get('StatusMessage')}")
        threading.Event().wait(ASK_SECONDS)


def pictures(folder: Path, kind: str) -> list[Path]:
    """The pictures below FOLDER/normal or FOLDER/anomaly, in order."""
    found = sorted(p for p in (folder / kind).rglob("*") if p.suffix.lower() in SUFFIXES)
    least = {"normal": GOOD, "anomaly": BAD}[kind] + 1
    if len(found) < least:
        raise SystemExit(f"{folder / kind} has {len(found)} pictures; {least} are the least.")
    return found


def manifest(folder: Path, bucket: str) -> bytes:
    """The data set as JSON lines; the last pictures of each kind stay out of it."""
    lines = []
    for kind, count in (("normal", GOOD), ("anomaly", BAD)):
        for path in pictures(folder, kind)[:count]:
            metadata = {
                "class-name": kind,
                "human-annotated": "yes",
                "type": "groundtruth/image-classification",
            }
            key = path.relative_to(folder).as_posix()
            entry = {"source-ref": f"s3://{bucket}/{key}", "anomaly": int(kind == "anomaly")}
            lines.append(json.dumps({**entry, "anomaly-metadata": metadata}))
    return "\n".join(lines).encode()


def have_project(aws: Any, folder: Path, bucket: str) -> None:
    """Make the project and its data set, or what an earlier run has not made of them."""
    names = [p["ProjectName"] for p in aws.list_projects()["Projects"]]
    print(f"projects: {', '.join(names) or 'none'}")
    if PROJECT not in names:
        aws.create_project(ProjectName=PROJECT)
    print(f"train data set of {PROJECT}:")
    train = {"ProjectName": PROJECT, "DatasetType": "train"}
    if not aws.describe_project(ProjectName=PROJECT)["ProjectDescription"]["Datasets"]:
        aws.create_dataset(**train)
    told = until(lambda: aws.describe_dataset(**train), ("CREATE_COMPLETE", "UPDATE_COMPLETE"))
    if not told["ImageStats"]["Total"]:
        aws.update_dataset_entries(**train, Changes=manifest(folder, bucket))
        told = until(lambda: aws.describe_dataset(**train), ("UPDATE_COMPLETE",))
    stats = told["ImageStats"]
    print(f"    {stats['Normal']} good, {stats['Anomaly']} bad parts")


def versions(aws: Any) -> list[dict[str, Any]]:
    """The versions, the newest last."""
    models: list[dict[str, Any]] = aws.list_models(ProjectName=PROJECT)["Models"]
    shown = ", ".join(f"{m['ModelVersion']} {m['Status']}" for m in models)
    print(f"versions of {PROJECT}: {shown or 'none'}")
    return models


def train(aws: Any, bucket: str) -> None:
    """CreateModel, and wait for it."""
    print("CreateModel:")
    output = {"S3Location": {"Bucket": bucket, "Prefix": "evaluation/"}}
    made = aws.create_model(ProjectName=PROJECT, OutputConfig=output)["ModelMetadata"]
    version = {"ProjectName": PROJECT, "ModelVersion": made["ModelVersion"]}
    told = until(lambda: aws.describe_model(**version), ("TRAINED",))
    print(f"    {told['Performance']}")


def detect(aws: Any, version: str, folder: Path) -> None:
    """Start the version, let it judge two pictures, and stop it."""
    model = {"ProjectName": PROJECT, "ModelVersion": version}
    print(f"StartModel, version {version}:")
    if aws.describe_model(**model)["ModelDescription"]["Status"] == "TRAINED":
        aws.start_model(**model, MinInferenceUnits=1)
    until(lambda: aws.describe_model(**model), ("HOSTED",))
    for kind in ("normal", "anomaly"):
        path = pictures(folder, kind)[-1]
        kind_of_picture = "image/png" if path.suffix == ".png" else "image/jpeg"
        with path.open("rb") as body:
            answer = aws.detect_anomalies(**model, Body=body, ContentType=kind_of_picture)
        result = answer["DetectAnomalyResult"]
        print(
            f"DetectAnomalies {path.relative_to(folder)}: IsAnomalous {result['IsAnomalous']}, "
            f"Confidence {result['Confidence']:.3f}"
        )
    print("StopModel:")
    aws.stop_model(**model)
    until(lambda: aws.describe_model(**model), ("TRAINED",))


def main() -> int:
    parser = demo_box.parser(__doc__)
    parser.add_argument("--endpoint", help="URL of the API; with it --config is not read")
    parser.add_argument("--pictures", type=Path, help="folder of the bucket: normal/, anomaly/")
    parser.add_argument("--bucket", help="its name (default: the folder's)")
    parser.add_argument("--train", action="store_true", help="train a version if there is none")
    asked = parser.parse_args()
    endpoint, folder = asked.endpoint, asked.pictures
    if endpoint is None:
        rest = demo_box.section(demo_box.read(asked.config), "rest")
        endpoint = f"http://{rest.get('listen', '127.0.0.1:8443')}"
        folder = folder or asked.config.parent / rest.get("buckets", "state/buckets") / "flange"
    if folder is None:
        parser.error("--endpoint needs --pictures beside it")
    bucket = asked.bucket or folder.name
    aws = client(endpoint)
    try:
        have_project(aws, folder, bucket)
        ready = [
            m for m in versions(aws) if m["Status"] in ("TRAINED", "HOSTED", "STARTING_HOSTING")
        ]
        if not ready and asked.train:
            train(aws, bucket)
            ready = versions(aws)
        if not ready:
            print("no version is trained: run this with --train")
            return 0
        detect(aws, ready[-1]["ModelVersion"], folder)
    except (ClientError, BotoCoreError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
