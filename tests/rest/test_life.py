"""A whole life through a running daemon, as boto3 drives it: from a manifest to a verdict."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from edged.cli.main import main
from edged.config import Config, Quotas, RestConfig
from edged.daemon.app import App
from edged.store.credentials import Credentials
from edged.wire import imaging
from edged.wire.spec import read_spec
from tests.support.parts import parts_bucket
from tests.support.rest_client import aws_client
from tests.support.s3_server import s3_server

PATIENCE = 90.0


@contextmanager
def daemon(state: Path, s3: str | None = None, quotas: Quotas | None = None) -> Iterator[Any]:
    """A daemon with the API on a free port; boto3 pointed at it."""
    port = _free_port()
    rest = RestConfig(
        listen=f"127.0.0.1:{port}", calls_per_second=0, units=4, s3=s3 is not None, s3_endpoint=s3
    )
    app = App(Config(state_dir=state, rest=rest, quotas=quotas or Quotas()))
    thread = threading.Thread(target=app.run, kwargs={"signals": False})
    thread.start()
    try:
        yield client(state, port)
    finally:
        app.stop()
        thread.join(PATIENCE)
        assert not thread.is_alive() and not app.failed


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def client(state: Path, port: int, region: str = "us-east-1") -> Any:
    """boto3; it tries again while the daemon is on its way up."""
    state.mkdir(exist_ok=True)
    keys = Credentials(state / "credentials.json")
    key = (keys.all() or [keys.create(["*"], ["*"])])[0]
    return aws_client(port, key, region=region, attempts=8)


def until(ask: Any, wanted: str) -> dict[str, Any]:
    """Poll a description, as clients do, until its status is no longer on its way."""
    end = time.monotonic() + PATIENCE
    while True:
        told: dict[str, Any] = next(v for k, v in ask().items() if k.endswith("Description"))
        if told["Status"] == wanted:
            return told
        on_its_way = told["Status"].endswith("IN_PROGRESS") or told["Status"] in (
            "CREATED", "RUNNING", "TRAINING", "STARTING_HOSTING", "STOPPING_HOSTING",
        )  # fmt: skip
        assert on_its_way and time.monotonic() < end, told
        threading.Event().wait(0.05)


def fill(state: Path) -> tuple[Path, str]:
    """A bucket of rendered parts and a manifest of them; the manifest's key."""
    return parts_bucket(state, 34, 22)


def imported(aws: Any, key: str) -> None:
    """The project `flange` with that manifest as its train data set."""
    at = {"ProjectName": "flange"}
    aws.create_project(**at)
    source = {"GroundTruthManifest": {"S3Object": {"Bucket": "parts", "Key": key}}}
    aws.create_dataset(**at, DatasetType="train", DatasetSource=source)
    until(lambda: aws.describe_dataset(**at, DatasetType="train"), "CREATE_COMPLETE")


def code(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as error:
        call(**members)
    return str(error.value.response["Error"]["Code"])


def package(aws: Any, bucket: Path, tmp_path: Path, state: Path) -> None:
    """A packaging job, and its bundle installed as on another box."""
    wanted: dict[str, Any] = {
        "S3OutputLocation": {"Bucket": "parts", "Prefix": "bundles/"},
        "ComponentName": "flange",
        "TargetPlatform": {"Os": "LINUX", "Arch": "ARM64", "Accelerator": "NVIDIA"},
    }
    ask = {"ProjectName": "flange", "ModelVersion": "1"}
    bare = {"Greengrass": wanted}
    assert code(aws.start_model_packaging_job, **ask, Configuration=bare) == "ValidationException"
    options = {"gpu-code": "sm_87", "trt-ver": "8.5.2", "cuda-ver": "11.4"}
    wanted["CompilerOptions"] = json.dumps(options)
    job = aws.start_model_packaging_job(**ask, Configuration=bare)["JobName"]
    at = {"ProjectName": "flange", "JobName": job}
    told = until(lambda: aws.describe_model_packaging_job(**at), "SUCCEEDED")
    made = told["ModelPackagingOutputDetails"]["Greengrass"]
    assert (made["ComponentName"], made["ComponentVersion"]) == ("flange", "1.0.0")
    listed = aws.list_model_packaging_jobs(ProjectName="flange")["ModelPackagingJobs"]
    assert [each["JobName"] for each in listed] == [job]
    assert code(aws.start_model_packaging_job, **ask, Configuration=bare) == "ConflictException"
    bundle = bucket / "bundles" / "flange-1.0.0.edged.zip"
    config = tmp_path / "edged.toml"
    config.write_text(f'state_dir = "{state}"\n')
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert main(["signing-key", "--config", str(config)]) == 0
    words = ["import", str(bundle), "--output", str(tmp_path / "there")]
    assert main([*words, "--key", "c29tZWJvZHkgZWxzZQ=="]) == 2
    assert not (tmp_path / "there").exists()
    assert main([*words, "--key", said.getvalue().strip()]) == 0
    assert read_spec(tmp_path / "there").image_size == (240, 320)
    damaged = tmp_path / "damaged.zip"
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(bytes(data))
    assert main(["import", str(damaged), "--output", str(tmp_path / "no"), "--any-key"]) == 2
    assert not (tmp_path / "no").exists()


def test_a_whole_life_and_a_restart_in_its_middle(tmp_path: Path) -> None:
    state = tmp_path / "state"
    bucket, key = fill(state)
    at, model = {"ProjectName": "flange"}, {"ProjectName": "flange", "ModelVersion": "1"}
    with daemon(state) as aws:
        imported(aws, key)
        output = {"S3Location": {"Bucket": "parts", "Prefix": "out/m_"}}
        made = aws.create_model(**at, OutputConfig=output, Tags=[{"Key": "line", "Value": "3"}])
        assert made["ModelMetadata"]["Status"] == "TRAINING"
        assert made["ModelMetadata"]["StatusMessage"] == "The model is being trained."
        for call in (aws.start_model, aws.delete_model):
            more = {"MinInferenceUnits": 1} if call == aws.start_model else {}
            assert code(call, **model, **more) == "ConflictException"
    with daemon(state) as aws:  # it was cut off in training, and goes on
        told = until(lambda: aws.describe_model(**model), "TRAINED")
        assert told["StatusMessage"] == "Training completed successfully."
        assert set(told["Performance"]) == {"F1Score", "Recall", "Precision"}
        result = json.loads((bucket / "out" / "m_EvaluationResult-flange-1.json").read_text())
        assert result["EvaluationDetails"]["NumberOfTrainingImages"] == 28
        assert result["EvaluationDetails"]["NumberOfTestingImages"] == 6
        lines = (bucket / "out" / "m_EvaluationManifest-flange-1.json").read_text().splitlines()
        assert len(lines) == 6 and json.loads(lines[0])["source-ref"].startswith("s3://parts/")
        picture = (bucket / "0.png").read_bytes()
        detect = {**model, "Body": picture, "ContentType": "image/png"}
        assert code(aws.detect_anomalies, **detect) == "ConflictException"
        refused = {"MinInferenceUnits": 9}
        assert code(aws.start_model, **model, **refused) == "ServiceQuotaExceededException"
        started = aws.start_model(**model, MinInferenceUnits=1, MaxInferenceUnits=2)
        assert started["Status"] == "STARTING_HOSTING"
        told = until(lambda: aws.describe_model(**model), "HOSTED")
        assert (told["MinInferenceUnits"], told["MaxInferenceUnits"]) == (1, 2)
    with daemon(state) as aws:  # hosted again
        until(lambda: aws.describe_model(**model), "HOSTED")
        verdicts = []
        for number in (0, 1, 30, 31):
            body = (bucket / f"{number}.png").read_bytes()
            answer = aws.detect_anomalies(**{**detect, "Body": body, "ModelVersion": "latest"})
            verdicts.append(answer["DetectAnomalyResult"]["IsAnomalous"])
            assert answer["DetectAnomalyResult"]["Source"] == {"Type": "direct"}
        assert verdicts == [False, False, True, True]
        for wrong in (
            {"ContentType": "image/gif"},
            {"Body": b"no picture"},
            {"Body": imaging.encoded_png(imaging.read(bucket / "0.png")[:100])},
        ):
            assert code(aws.detect_anomalies, **{**detect, **wrong}) == "ValidationException"
        package(aws, bucket, tmp_path, state)
        assert code(aws.delete_model, **model) == "ConflictException"
        assert aws.stop_model(**model)["Status"] == "STOPPING_HOSTING"
        until(lambda: aws.describe_model(**model), "TRAINED")
        assert aws.delete_model(**model)["ModelArn"].endswith(":model/flange/1")
        assert aws.list_models(**at)["Models"] == []
        assert code(aws.describe_model, **model) == "ResourceNotFoundException"
        aws.delete_dataset(**at, DatasetType="train")
        aws.delete_project(**at)
    lines = (state / "audit.log").read_text().splitlines()
    assert {json.loads(line)["operation"] for line in lines} >= {"StartModel", "DeleteProject"}


def test_a_model_is_trained_from_a_bucket_of_an_s3_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    bucket, key = fill(tmp_path / "elsewhere")
    with s3_server(tmp_path) as address:
        s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        s3.create_bucket(Bucket="parts")
        for path in bucket.iterdir():
            s3.upload_file(str(path), "parts", path.name)
        at = {"ProjectName": "flange"}
        with daemon(tmp_path / "state", address) as aws:
            imported(aws, key)
            aws.create_model(**at, OutputConfig={"S3Location": {"Bucket": "parts"}})
            told = until(lambda: aws.describe_model(**at, ModelVersion="latest"), "TRAINED")
        where = told["EvaluationResult"]
        assert where == {"Bucket": "parts", "Key": "EvaluationResult-flange-1.json"}
        result = json.loads(s3.get_object(**where)["Body"].read())
        metrics = result["AggregatedEvaluationResults"]["Metrics"]
        assert metrics["F1Score"] == told["Performance"]["F1Score"]
        lines = s3.get_object(**told["EvaluationManifest"])["Body"].read().decode().splitlines()
        assert len(lines) == result["EvaluationDetails"]["NumberOfTestingImages"] == 6
    assert not list((tmp_path / "state" / "models").rglob("images/*"))  # copies do not stay


def test_a_training_that_takes_too_long_fails_and_says_so(tmp_path: Path) -> None:
    state = tmp_path / "state"
    _, key = fill(state)
    at = {"ProjectName": "flange"}
    with daemon(state, quotas=Quotas(training_hours=1e-4)) as aws:
        imported(aws, key)
        aws.create_model(**at, OutputConfig={"S3Location": {"Bucket": "parts"}})
        told = until(lambda: aws.describe_model(**at, ModelVersion="1"), "TRAINING_FAILED")
    assert told["StatusMessage"].startswith("The training took more than the 0.0001 hours")
