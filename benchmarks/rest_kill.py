"""Kills the daemon at random points of a scripted life of the API, and looks at what is left.

A client works on: projects, data sets, updates, trainings, hosting, deleting. At a random moment
the daemon gets SIGKILL; after the restart every status must be one that the API allows, all that is
on its way must settle, and whatever was acknowledged must be there (or gone). Prints what it saw.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from benchmarks.support.command import add_number, question
from benchmarks.support.processes import edged_run
from edged.store.credentials import Credentials
from tests.support.broker import answers, free_port, wait_until
from tests.support.parts import MANIFEST, parts_bucket
from tests.support.rest_client import aws_client

START_SECONDS = 60.0
SETTLE_SECONDS = 120.0
STATUSES = {
    "CREATE_COMPLETE", "CREATE_FAILED", "UPDATE_COMPLETE", "UPDATE_FAILED_ROLLBACK_COMPLETE",
    "TRAINED", "TRAINING_FAILED", "HOSTED", "HOSTING_FAILED",
}  # fmt: skip
ON_ITS_WAY = {"CREATE_IN_PROGRESS", "UPDATE_IN_PROGRESS", "TRAINING", "STARTING_HOSTING",
              "STOPPING_HOSTING"}  # fmt: skip


class Box:
    """A daemon in a process, started again as often as it is killed."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.state.mkdir()
        self.port = free_port()
        self.config = folder / "edged.toml"
        self.config.write_text(
            f'state_dir = "{self.state}"\n[rest]\nlisten = "127.0.0.1:{self.port}"\n'
            "calls_per_second = 0\n[quotas]\nprojects = 100000\ntrainings = 4\n"
        )
        self.key = Credentials(self.state / "credentials.json").create(["*"], ["*"])
        self.log = (folder / "log").open("ab")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon and wait for its port."""
        self.process = process = edged_run(self.config, stderr=self.log)
        if not wait_until(lambda: process.poll() is not None or answers(self.port), START_SECONDS):
            raise SystemExit("the daemon did not start")
        if process.poll() is not None:
            raise SystemExit(f"the daemon ended with {process.returncode}")

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def client(self) -> Any:
        """boto3, every call once."""
        return aws_client(self.port, self.key, read_timeout=30)


def life(aws: Any, chance: random.Random, known: dict[str, Any], stop: threading.Event) -> None:
    """Work until the daemon goes away; `known` holds what was acknowledged."""
    try:
        while not stop.is_set():
            name = f"p{known['next']}"
            known["next"] += 1
            known["doubtful"] = name
            aws.create_project(ProjectName=name)
            known["projects"].add(name)
            known["doubtful"] = ""
            source = {"GroundTruthManifest": {"S3Object": {"Bucket": "parts", "Key": MANIFEST}}}
            aws.create_dataset(ProjectName=name, DatasetType="train", DatasetSource=source)
            known["datasets"][name] = 32
            for number in range(chance.randrange(4)):
                wait(lambda n=name: aws.describe_dataset(ProjectName=n, DatasetType="train"))
                line = json.dumps({"source-ref": f"s3://parts/more-{number}.png"}).encode()
                known["updating"] = name
                aws.update_dataset_entries(ProjectName=name, DatasetType="train", Changes=line)
                known["datasets"][name] += 1
                known["updating"] = ""
            wait(lambda n=name: aws.describe_dataset(ProjectName=n, DatasetType="train"))
            if chance.random() < 0.5 and len(known["models"]) < known["most_models"]:
                output = {"S3Location": {"Bucket": "parts", "Prefix": "out/"}}
                made = aws.create_model(ProjectName=name, OutputConfig=output)
                known["models"][name] = made["ModelMetadata"]["ModelVersion"]
                known["most_models"] += 1
            for trained in list(known["models"]):
                at = {"ProjectName": trained, "ModelVersion": "1"}
                status = aws.describe_model(**at)["ModelDescription"]["Status"]
                if status == "TRAINED" and trained not in known["started"]:
                    known["touched"] = trained
                    aws.start_model(**at, MinInferenceUnits=1)
                    known["started"].add(trained)
                    known["touched"] = ""
                elif status == "HOSTED" and chance.random() < 0.5:
                    known["touched"] = trained
                    aws.stop_model(**at)
                    known["started"].discard(trained)
                    known["touched"] = ""
    except (BotoCoreError, ClientError) as error:
        known["ended"] = type(error).__name__ + str(error)[:120]


def wait(ask: Any) -> str:
    """Poll until it has settled; the status."""
    end = time.monotonic() + SETTLE_SECONDS
    while time.monotonic() < end:
        told = next(v for k, v in ask().items() if k.endswith("Description"))
        if told["Status"] not in ON_ITS_WAY:
            return str(told["Status"])
        time.sleep(0.01)
    raise SystemExit(f"does not settle: {told}")


def check(aws: Any, known: dict[str, Any], seen: Counter[str]) -> list[str]:
    """What is wrong after a restart."""
    wrong: list[str] = []
    pages = aws.get_paginator("list_projects").paginate()
    there = {p["ProjectName"] for page in pages for p in page["Projects"]}
    if known["projects"] - there:
        wrong.append(f"projects lost: {known['projects'] - there}")
    extra = there - known["projects"]
    if extra - {known["doubtful"]}:
        wrong.append(f"projects from nowhere: {extra}")
    known["projects"] |= extra
    for name in list(known["datasets"])[-4:]:
        at = {"ProjectName": name, "DatasetType": "train"}
        status = wait(lambda a=at: aws.describe_dataset(**a))
        seen[status] += 1
        total = aws.describe_dataset(**at)["DatasetDescription"]["ImageStats"]["Total"]
        possible = {known["datasets"][name], known["datasets"][name] + (name == known["updating"])}
        if status not in STATUSES or total not in possible:
            wrong.append(f"{name}: {status} with {total}, not {possible}")
        known["datasets"][name] = total
    for name in known["models"]:
        at = {"ProjectName": name, "ModelVersion": "1"}
        status = wait(lambda a=at: aws.describe_model(**a))
        seen[status] += 1
        if name == known["touched"]:
            (known["started"].add if status == "HOSTED" else known["started"].discard)(name)
        wanted = "HOSTED" if name in known["started"] else "TRAINED"
        if status != wanted:
            wrong.append(f"model {name}: {status}, not {wanted}")
    known["updating"] = known["doubtful"] = known["touched"] = ""
    return wrong


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_number(made, "kills", 50, "how many")
    return made


def main() -> int:
    """Kill, restart, look; as often as asked."""
    kills = parser().parse_args().kills
    chance = random.Random(7)
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    known: dict[str, Any] = {
        "projects": set(), "datasets": {}, "models": {}, "started": set(), "next": 0,
        "doubtful": "", "updating": "", "touched": "", "most_models": 1, "ended": "",
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        box = Box(Path(scratch))
        parts_bucket(box.state, 32, 21, (96, 96))
        for number in range(kills):
            box.start()
            aws = box.client()
            wrong += [f"kill {number}: {each}" for each in check(aws, known, seen)]
            known["most_models"] = 1 + number // 8
            stop = threading.Event()
            worker = threading.Thread(target=life, args=(aws, chance, known, stop))
            worker.start()
            time.sleep(chance.uniform(0.05, 3.0))
            box.kill()
            stop.set()
            worker.join()
        box.start()
        wrong += check(box.client(), known, seen)
        box.kill()
    facts = {"kills": kills, "projects": len(known["projects"]), "models": len(known["models"])}
    print(json.dumps({**facts, "statuses": dict(seen), "wrong": wrong}, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
