"""What the REST door adds to a picture, and whether eight clients keep the engine busy.

Starts a daemon that knows the model folder, and asks from this process: by boto3, and by requests
that were signed before, which cost a client next to nothing. The door's share is the round trip
less decoding and the engine's own time, both measured alone in the same run. Engine busy: the
share of the time of eight clients in which a unit has a picture in its engine, by the daemon's own
metrics. Rate: their pictures a second over what the same units do without a door and with decoding;
it is bounded by the clients, which share the machine with the daemon.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.support.command import add_model, add_number, add_pictures, question
from benchmarks.support.figures import show
from benchmarks.support.processes import edged_run, metrics
from edged.core.lifecycle import ModelStatus
from edged.store.catalog import Catalog, Scope
from edged.store.credentials import Credential, Credentials
from edged.store.database import Database
from edged.store.models import Models
from edged.tools.judge import Judge
from edged.wire import imaging
from tests.support.rest_client import aws_client, signed

PORT, METRICS = 18_555, 18_556
BUSY = "edged_stage_seconds_sum"
ROUNDS = 10
CLIENTS = 8
WARM = 8
PICTURES_EACH = 60


def prepare(state: Path, model: Path) -> Credential:
    """A catalog with one trained model; the key to it."""
    database = Database(state / "catalog.sqlite")
    database.open()
    project = Catalog(database).add_project(Scope("123456789012", "us-east-1"), "p", time.time())
    if project is None:
        raise SystemExit("the catalog is not empty")
    facts = {"output": {"Bucket": "b", "Prefix": ""}}
    row = Models(database).add(project, ModelStatus.TRAINED, "", facts, time.time())
    database.close()
    (state / "models" / str(row.id)).mkdir(parents=True)
    (state / "models" / str(row.id) / "model").symlink_to(model.resolve())
    return Credentials(state / "credentials.json").create(["*"], ["*"])


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


def ready(key: Credential, bodies: list[bytes]) -> Callable[[int], float]:
    """Asks with requests that were signed once, on one connection; seconds of each."""
    target = "/2020-11-20/projects/p/models/1/detect"
    who, kind = (key.key_id, key.secret, None), {"Content-Type": "image/jpeg"}
    here = f"127.0.0.1:{PORT}"
    headers = [dict(signed("POST", target, who, x, kind, host=here).headers) for x in bodies]
    connection = http.client.HTTPConnection("127.0.0.1", PORT)

    def ask_ready(number: int) -> float:
        began = time.perf_counter()
        at = number % len(bodies)
        connection.request("POST", target, bodies[at], headers[at])
        answer = connection.getresponse()
        answer.read()
        taken = time.perf_counter() - began
        if answer.status != 200:
            raise SystemExit(f"DetectAnomalies answered {answer.status}")
        return taken

    return ask_ready


def inferring() -> float:
    """Seconds that all units have spent on pictures since the daemon began."""
    lines = metrics(METRICS).splitlines()
    found = [x for x in lines if x.startswith(BUSY) and 'stage="infer"' in x]
    return sum(float(line.rpartition(" ")[2]) for line in found)


def together(asks: list[Callable[[int], float]]) -> tuple[float, float]:
    """Pictures and unit-seconds a second of clients that ask at once, each on a connection."""

    def work(client: Callable[[int], float]) -> None:
        for number in range(PICTURES_EACH):
            client(number)

    with ThreadPoolExecutor(len(asks)) as pool:
        before, began = inferring(), time.perf_counter()
        list(pool.map(work, asks))
        taken = time.perf_counter() - began
        return len(asks) * PICTURES_EACH / taken, (inferring() - before) / taken


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_model(made)
    add_pictures(made, "a folder of nothing but JPEG files of the model's size")
    add_number(made, "units", 2, "how many the model is started with")
    return made


def main() -> int:
    """Print one object."""
    given = parser().parse_args()
    model, units = given.model, given.units
    bodies = [path.read_bytes() for path in sorted(given.pictures.iterdir())]
    with tempfile.TemporaryDirectory() as scratch:
        state = Path(scratch)
        key = prepare(state, model)
        config = state / "edged.toml"
        config.write_text(
            f'state_dir = "{state}"\n[rest]\nlisten = "127.0.0.1:{PORT}"\n'
            f"calls_per_second = 0\nunits = {units}\n"
            f'[metrics]\nlisten = "127.0.0.1:{METRICS}"\n'
        )
        daemon = edged_run(config, stderr=subprocess.DEVNULL)
        aws = aws_client(PORT, key, attempts=9)
        at = {"ProjectName": "p", "ModelVersion": "1"}
        aws.start_model(**at, MinInferenceUnits=units)
        while aws.describe_model(**at)["ModelDescription"]["Status"] != "HOSTED":
            time.sleep(0.05)
        for body in bodies[:WARM]:
            ask(aws, body)
        trips = [ask(aws, body) for _ in range(ROUNDS) for body in bodies]
        ask_ready = ready(key, bodies)
        bare = [ask_ready(number) for number in range(ROUNDS * len(bodies))]
        decoding, judging = alone(model, bodies)
        asks = [ready(key, bodies) for _ in range(CLIENTS)]
        rate, busy = together(asks)
        daemon.terminate()
        daemon.wait()
    decode, engine = statistics.median(decoding), statistics.median(judging)
    trip, least = statistics.median(trips), statistics.median(bare)
    facts = {
        "decode_p50_ms": decode,
        "engine_p50_ms": engine,
        "boto3_p50_ms": trip,
        "boto3_door_p50_ms": trip - decode - engine,
        "signed_before_p50_ms": least,
        "door_p50_ms": least - decode - engine,
    }
    shown = {name: round(seconds * 1e3, 2) for name, seconds in facts.items()}
    more = {
        "eight_clients_per_second": round(rate, 1),
        "engine_busy": round(busy / units, 3),
        "rate_over_bare": round(rate * (decode + engine) / units, 3),
    }
    show({**shown, **more})
    return 0


if __name__ == "__main__":
    sys.exit(main())
