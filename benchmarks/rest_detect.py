"""What the REST door adds to a picture, and whether eight clients keep the engine busy.

    .venv/bin/python benchmarks/rest_detect.py MODEL PICTURES

Starts a daemon's parts in this process (host, chain, port) with the model folder, and asks by
boto3. The door's share is the round trip less decoding and the engine's own time, both measured
alone in the same run. Busy: pictures a second of eight clients over what the same units do without
a door.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config as BotoConfig

from edged import imaging
from edged.app import App
from edged.config import Config, RestConfig
from edged.store.catalog import Catalog, Scope
from edged.store.credentials import Credentials
from edged.store.database import Database
from edged.store.models import Models
from edged.workbench import Judge

PORT = 18_555
ROUNDS = 10
CLIENTS = 8
UNITS = 2
WARM = 8


def prepare(state: Path, model: Path) -> Any:
    """A catalog with one trained model, and boto3 for it."""
    database = Database(state / "catalog.sqlite")
    database.open()
    project = Catalog(database).add_project(Scope("123456789012", "us-east-1"), "p", time.time())
    if project is None:
        raise SystemExit("the catalog is not empty")
    facts = {"output": {"Bucket": "b", "Prefix": ""}}
    row = Models(database).add(project, "TRAINED", "", facts, time.time())
    database.close()
    (state / "models" / str(row.id)).mkdir(parents=True)
    (state / "models" / str(row.id) / "model").symlink_to(model.resolve())
    key = Credentials(state / "credentials.json").create(["*"], ["*"])

    def client() -> Any:
        return boto3.client(
            "lookoutvision", endpoint_url=f"http://127.0.0.1:{PORT}", region_name="us-east-1",
            aws_access_key_id=key.key_id, aws_secret_access_key=key.secret,
            config=BotoConfig(retries={"total_max_attempts": 9, "mode": "standard"}),
        )  # fmt: skip

    return client


def alone(model: Path, bodies: list[bytes]) -> tuple[list[float], list[float]]:
    """Seconds of decoding, and of judging, of each picture, without a door."""
    decoding, judging = [], []
    with Judge(model) as judge:
        for body in bodies * 2:
            began = time.perf_counter()
            image = imaging.Decoded.whole(imaging.decode(body, "picture"))
            between = time.perf_counter()
            judge(image)
            decoding.append(between - began)
            judging.append(time.perf_counter() - between)
    return decoding[len(bodies) :], judging[len(bodies) :]


def ask(aws: Any, body: bytes) -> float:
    """Seconds of one DetectAnomalies."""
    began = time.perf_counter()
    aws.detect_anomalies(ProjectName="p", ModelVersion="1", Body=body, ContentType="image/jpeg")
    return time.perf_counter() - began


def main() -> int:
    """Print one object."""
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    bodies = [path.read_bytes() for path in sorted(folder.iterdir())]
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch)
        client = prepare(state, model)
        rest = RestConfig(listen=f"127.0.0.1:{PORT}", calls_per_second=0, units=UNITS)
        app = App(Config(state_dir=state, rest=rest))
        daemon = threading.Thread(target=app.run, kwargs={"signals": False})
        daemon.start()
        aws = client()
        at = {"ProjectName": "p", "ModelVersion": "1"}
        aws.start_model(**at, MinInferenceUnits=UNITS)
        while aws.describe_model(**at)["ModelDescription"]["Status"] != "HOSTED":
            time.sleep(0.05)
        for body in bodies[:WARM]:
            ask(aws, body)
        trips = [ask(aws, body) for _ in range(ROUNDS) for body in bodies]
        decoding, judging = alone(model, bodies)
        everybody = [client() for _ in range(CLIENTS)]
        with ThreadPoolExecutor(CLIENTS) as pool:
            list(pool.map(ask, everybody, bodies[:CLIENTS]))
            work = [(everybody[n % CLIENTS], bodies[n % len(bodies)]) for n in range(400)]
            began = time.perf_counter()
            list(pool.map(lambda each: ask(*each), work))
            rate = len(work) / (time.perf_counter() - began)
        app.stop()
        daemon.join()
    rest_ms = statistics.median(trips) - statistics.median(decoding) - statistics.median(judging)
    print(
        json.dumps(
            {
                "round_trip_p50_ms": round(statistics.median(trips) * 1e3, 2),
                "decode_p50_ms": round(statistics.median(decoding) * 1e3, 2),
                "engine_p50_ms": round(statistics.median(judging) * 1e3, 2),
                "door_p50_ms": round(rest_ms * 1e3, 2),
                "eight_clients_per_second": round(rate, 1),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
