"""Clients that users have, against a running daemon, with both kinds of buckets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from edged.store.credentials import Credentials
from tests.rest.test_life import daemon, fill
from tests.support.s3_server import s3_server
from tests.support.shared_data import shared_data

SCRIPT = Path(__file__).parents[1] / "support" / "lookoutvision_life.py"
COOKIES = "cookies/getting-started"
CLIENT_SECONDS = 150


def life(state: Path, port: int, pictures: Path, s3: str) -> dict[str, Any]:
    """What the package saw."""
    key = Credentials(state / "credentials.json").all()[0]
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL_LOOKOUTVISION": f"http://127.0.0.1:{port}",
        "AWS_ENDPOINT_URL_S3": s3,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": key.key_id,
        "AWS_SECRET_ACCESS_KEY": key.secret,
        "MPLBACKEND": "Agg",
    }
    words = [sys.executable, str(SCRIPT), "p1", "parts", "train.manifest", str(pictures)]
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=CLIENT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["dataset"]["train"]["Status"] == "CREATE_COMPLETE"
    assert told["trained"]["status"] == "Success!" and told["hosted"]["status"] == "HOSTED"
    assert told["hosted"]["model"]["MinInferenceUnits"] == 2
    assert told["tags"] == [{"Key": "line", "Value": "3"}] and told["packaged"] == "SUCCEEDED"
    assert told["left"] == []
    return told


@contextmanager
def bucket_of(kind: str, tmp_path: Path, filled: Path) -> Iterator[tuple[Any, str, Any]]:
    """A daemon whose bucket `parts` is a folder or lies in an S3 service; what reads its keys."""
    state = tmp_path / "state"
    if kind == "folder":
        shutil.copytree(filled, state / "buckets" / "parts")
        with daemon(state) as aws:
            yield aws, "http://127.0.0.1:9", lambda key: (state / "buckets/parts" / key).read_text()
        return
    with s3_server(tmp_path) as address:
        s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        s3.create_bucket(Bucket="parts")
        for path in sorted(p for p in filled.rglob("*") if p.is_file()):
            s3.upload_file(str(path), "parts", path.relative_to(filled).as_posix())
        with daemon(state, address) as aws:
            yield (
                aws,
                address,
                lambda key: s3.get_object(Bucket="parts", Key=key)["Body"].read().decode(),
            )


@pytest.fixture
def s3_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.usefixtures("s3_key")
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_the_lookoutvision_package_goes_through_a_whole_life(tmp_path: Path, kind: str) -> None:
    filled, _ = fill(tmp_path / "elsewhere")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in (0, 1, 2, 30, 31, 32):
        shutil.copy(filled / f"{number}.png", pictures / f"{number:02}.png")
    with bucket_of(kind, tmp_path, filled) as (aws, s3, read):
        told = life(tmp_path / "state", int(aws.meta.endpoint_url.rpartition(":")[2]), pictures, s3)
        result = json.loads(read("out_EvaluationResult-p1-1.json"))
    assert [v["IsAnomalous"] for v in told["verdicts"].values()] == [False] * 3 + [True] * 3
    assert result["EvaluationDetails"]["NumberOfTestingImages"] == 6


@pytest.mark.usefixtures("s3_key")
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_the_package_judges_the_tutorial_s_22_cookies(tmp_path: Path, kind: str) -> None:
    source = shared_data(COOKIES)
    filled = tmp_path / "filled"
    shutil.copytree(source / "dataset-files", filled)
    lines = (filled / "manifests" / "template.manifest").read_text().splitlines()
    for where in ("training-images/", "mask-images/"):
        lines = [line.replace(f'"{where}', f'"s3://parts/{where}') for line in lines]
    (filled / "train.manifest").write_text("\n".join(lines))
    with bucket_of(kind, tmp_path, filled) as (aws, s3, _):
        port = int(aws.meta.endpoint_url.rpartition(":")[2])
        told = life(tmp_path / "state", port, source / "test-images", s3)
    assert len(told["verdicts"]) == 22
    for name, verdict in told["verdicts"].items():
        assert verdict["IsAnomalous"] is ("anomaly" in name), name
        assert verdict["Anomalies"][0]["Name"] == "background" and verdict["AnomalyMask"]
