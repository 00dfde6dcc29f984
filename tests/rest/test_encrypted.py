"""A model under a KmsKeyId: nothing of it lies open on the disk, from training to serving."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from edged.cli.main import main
from edged.store.keyring import Keyring
from edged.store.sealing import MAGIC
from edged.wire.spec import read_spec
from tests.rest.test_life import PATIENCE, code, daemon, fill, imported, until
from tests.support.broker import wait_until
from tests.support.s3_server import s3_server

ARN = "arn:aws:kms:us-east-1:123456789012:key/line-3"
AT, MODEL = {"ProjectName": "flange"}, {"ProjectName": "flange", "ModelVersion": "1"}


def stored(state: Path) -> list[Path]:
    """Every file that is kept of models; all must be sealed."""
    found = [path for path in (state / "models").rglob("*") if path.is_file()]
    for path in found:
        assert path.read_bytes().startswith(MAGIC), path
    return found


def test_an_encrypted_model_is_trained_served_and_packaged_and_never_lies_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    state = tmp_path / "state"
    bucket, key = fill(tmp_path / "elsewhere")
    picture = (bucket / "0.png").read_bytes()
    with s3_server(tmp_path) as address:
        s3 = boto3.client("s3", endpoint_url=address, region_name="us-east-1")
        s3.create_bucket(Bucket="parts")
        for path in bucket.iterdir():
            s3.upload_file(str(path), "parts", path.name)
        with daemon(state, address) as aws:
            imported(aws, key)
            wanted = {**AT, "KmsKeyId": ARN, "OutputConfig": {"S3Location": {"Bucket": "parts"}}}
            assert code(aws.create_model, **wanted) == "ValidationException"  # no such key
            Keyring(state / "keyring.json").create("line-3")
            aws.create_model(**wanted)
            # All pictures are copied; then the daemon ends in the midst of the training.
            assert wait_until(lambda: len(list(state.glob("models/1/images/*"))) == 34, PATIENCE)
        assert len(stored(state)) >= 34 + 1
        with daemon(state, address) as aws:
            told = until(lambda: aws.describe_model(**MODEL), "TRAINED")
            assert told["KmsKeyId"] == ARN
            names = {path.name for path in stored(state)}
            assert {"model.onnx", "spec.json", "train.manifest"} <= names and "0.png" not in names
            aws.start_model(**MODEL, MinInferenceUnits=1)
            until(lambda: aws.describe_model(**MODEL), "HOSTED")
            asked = {**MODEL, "Body": picture, "ContentType": "image/png"}
            assert not aws.detect_anomalies(**asked)["DetectAnomalyResult"]["IsAnomalous"]
            stored(state)
            aws.start_model_packaging_job(
                **MODEL,
                JobName="j",
                Configuration={
                    "Greengrass": {
                        "S3OutputLocation": {"Bucket": "parts"},
                        "ComponentName": "flange",
                        "TargetPlatform": {"Os": "LINUX", "Arch": "X86_64"},
                    }
                },
            )
            at = {**AT, "JobName": "j"}
            until(lambda: aws.describe_model_packaging_job(**at), "SUCCEEDED")
            stored(state)
        s3.download_file("parts", "flange-1.0.0.edged.zip", str(tmp_path / "bundle"))
        words = ["import", str(tmp_path / "bundle"), "--output", str(tmp_path / "there")]
        assert main([*words, "--any-key"]) == 0
        assert read_spec(tmp_path / "there").image_size == (240, 320)
        without_its_key(state, picture)


def without_its_key(state: Path, picture: bytes) -> None:
    """A box whose keyring is lost says so, and serves again when it is back."""
    ring, kept = state / "keyring.json", state / "kept.json"
    ring.rename(kept)
    with daemon(state) as aws:
        told = until(lambda: aws.describe_model(**MODEL), "HOSTING_FAILED")
        assert f"the keyring has no key {ARN} any more" in told["StatusMessage"]
        kept.rename(ring)
        aws.start_model(**MODEL, MinInferenceUnits=1)
        until(lambda: aws.describe_model(**MODEL), "HOSTED")
        stored(state)
        aws.stop_model(**MODEL)
        until(lambda: aws.describe_model(**MODEL), "TRAINED")
