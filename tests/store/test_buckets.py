"""What s3://bucket/key means: folders, and a real S3 server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from edged.core.errors import EdgedError, InvalidInput, NotFound
from edged.store.buckets import BucketError, Buckets, S3Service, split
from tests.support.s3_server import s3_server


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an S3 server."""
    with s3_server(tmp_path_factory.mktemp("moto")) as address:
        yield address


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def client(address: str) -> Any:
    return boto3.client("s3", endpoint_url=address, region_name="us-east-1")


@pytest.mark.usefixtures("keys")
def test_an_s3_service_is_read_written_and_has_versions(s3: str, tmp_path: Path) -> None:
    direct = client(s3)
    direct.create_bucket(Bucket="parts")
    direct.put_bucket_versioning(Bucket="parts", VersioningConfiguration={"Status": "Enabled"})
    first = direct.put_object(Bucket="parts", Key="a/m", Body=b"old")["VersionId"]
    direct.put_object(Bucket="parts", Key="a/m", Body=b"new")
    bucket = Buckets(tmp_path, S3Service(s3)).bucket("parts")
    assert bucket.read("a/m") == b"new"
    assert bucket.read("a/m", first) == b"old"
    bucket.write("out/e.json", b"{}")
    assert direct.get_object(Bucket="parts", Key="out/e.json")["Body"].read() == b"{}"
    kept: list[bytes] = []

    def keep(data: bytes) -> Path:
        kept.append(data)
        return tmp_path / "copy"

    assert bucket.fetch("a/m", keep) == tmp_path / "copy"
    assert kept == [b"new"]
    with pytest.raises(NotFound, match=r"s3://parts/absent: the S3 service has no such thing"):
        bucket.read("absent")
    with pytest.raises(InvalidInput, match="more than the 2 bytes"):
        bucket.read("a/m", most=2)
    with pytest.raises(EdgedError, match="s3://parts/a/m"):
        bucket.read("a/m", "no-version")


@pytest.mark.usefixtures("keys")
def test_a_folder_comes_before_the_service_and_an_unknown_bucket_is_not_found(
    s3: str, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "k").write_bytes(b"folder")
    buckets = Buckets(tmp_path, S3Service(s3))
    assert buckets.bucket("here").read("k") == b"folder"
    with pytest.raises(NotFound, match="the S3 service has none of that name"):
        buckets.bucket("nowhere").read("k")
    with pytest.raises(NotFound, match="there is no folder"):
        Buckets(tmp_path).bucket("nowhere")


@pytest.mark.usefixtures("keys")
def test_a_service_that_does_not_answer_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and deaf
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(BucketError, match="the S3 service fails"):
            Buckets(tmp_path, S3Service(address)).bucket("parts").read("k")


@pytest.mark.parametrize("key", ["../k", "a/../../k", "/etc/passwd", "a/", "", "link/k", "a\0b"])
def test_no_key_leads_out_of_a_folder(tmp_path: Path, key: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "k").write_bytes(b"secret")
    (tmp_path / "b" / "link").symlink_to(tmp_path)
    bucket = Buckets(tmp_path).bucket("b")
    for deed in (lambda: bucket.read(key), lambda: bucket.write(key, b"x")):
        with pytest.raises(InvalidInput):
            deed()
    assert (tmp_path / "k").read_bytes() == b"secret"


def test_a_folder_writes_whole_objects_and_keeps_no_versions(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    bucket = Buckets(tmp_path).bucket("b")
    bucket.write("x/y/z.json", b"1")
    bucket.write("x/y/z.json", b"22")
    assert bucket.read("x/y/z.json") == b"22"
    assert [p.name for p in (tmp_path / "b" / "x" / "y").iterdir()] == ["z.json"]
    with pytest.raises(InvalidInput, match="keeps no versions"):
        bucket.read("x/y/z.json", "v1")
    for absent in ("x", "x/y/none", "x/y/z.json/deeper"):
        with pytest.raises(NotFound):
            bucket.read(absent)


def test_a_reference_is_split_or_refused() -> None:
    assert split("s3://b/a/k.jpg") == ("b", "a/k.jpg")
    for wrong in ("b/k", "s3://b", "s3://b/", "s3:///k", "http://b/k"):
        with pytest.raises(InvalidInput, match="is no reference"):
            split(wrong)


def test_a_link_among_the_buckets_is_a_bucket_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "pictures"
    elsewhere.mkdir()
    (elsewhere / "a.jpg").write_bytes(b"a")
    (tmp_path / "buckets").mkdir()
    (tmp_path / "buckets" / "parts").symlink_to(elsewhere)
    bucket = Buckets(tmp_path / "buckets").bucket("parts")
    assert bucket.read("a.jpg") == b"a"
    bucket.write("out/b", b"b")
    assert (elsewhere / "out" / "b").read_bytes() == b"b"
