"""Whose request it is: signatures as real clients make them, and every way to get one wrong."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from edged.core.errors import InvalidInput, ModelError, NotFound
from edged.rest import sigv4
from edged.rest.protocol import Request, failure
from edged.rest.sigv4 import Refused, authenticate, authorize
from edged.store.credentials import Credential, Credentials
from tests.support.rest_client import now, signed

ARN = "/2020-11-20/tags/arn%3Aaws%3Alookoutvision%3Aus-east-1%3A123456789012%3Amodel%2Fp%2F1"


@pytest.fixture
def keys(tmp_path: Path) -> Credentials:
    return Credentials(tmp_path / "credentials.json")


@pytest.fixture
def key(keys: Credentials) -> Credential:
    return keys.create(["*"], ["*"], account="210987654321")


def parts(key: Credential) -> tuple[str, str, str | None]:
    return key.key_id, key.secret, key.token


def code(request: Request, keys: Credentials, later: timedelta = timedelta(0)) -> tuple[str, int]:
    with pytest.raises(Refused) as refused:
        authenticate(request, keys.find, now() + later)
    answer = failure(refused.value)
    return answer.headers["x-amzn-ErrorType"], answer.code


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/2020-11-20/projects", b""),
        ("GET", "/2020-11-20/projects?maxResults=5&nextToken=YQ%3D%3D", b""),
        ("POST", "/2020-11-20/projects", b'{"ProjectName": "p"}'),
        ("DELETE", ARN + "?tagKeys=b%20c&tagKeys=a", b""),
        ("POST", "/2020-11-20/projects/p/models/1/detect", bytes(range(256))),
    ],
)
def test_what_botocore_signs_is_taken(
    keys: Credentials, key: Credential, method: str, target: str, body: bytes
) -> None:
    forms = [signed(method, target, parts(key), body, region="eu-west-1")]
    if not body:  # botocore's signer of queries moves a body into them
        forms.append(signed(method, target, parts(key), region="eu-west-1", in_query=True))
    for request in forms:
        check(request, keys, key)


def check(request: Request, keys: Credentials, key: Credential) -> None:
    caller, found = authenticate(request, keys.find, now())
    assert (caller.key_id, caller.account, caller.region) == (
        key.key_id,
        "210987654321",
        "eu-west-1",
    )
    assert found == key


def test_an_unsigned_payload_is_taken_and_a_wrong_hash_is_not(
    keys: Credentials, key: Credential
) -> None:
    header = {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"}
    request = signed("POST", "/2020-11-20/projects", parts(key), b"{}", header)
    assert authenticate(replace(request, body=b"other"), keys.find, now())
    request = signed("POST", "/2020-11-20/projects", parts(key), b"{}")
    assert code(replace(request, body=b"other"), keys) == ("InvalidSignatureException", 403)


def test_a_session_needs_its_token_and_ends(keys: Credentials) -> None:
    session = keys.create(["*"], ["*"], lifetime=timedelta(hours=1))
    request = signed("GET", "/2020-11-20/projects", parts(session))
    assert authenticate(request, keys.find, now())
    bare = signed("GET", "/2020-11-20/projects", (session.key_id, session.secret, None))
    assert code(bare, keys) == ("InvalidClientTokenId", 403)
    presigned = signed("GET", "/2020-11-20/projects", parts(session), in_query=True)
    assert authenticate(presigned, keys.find, now())
    keys.revoke(session.key_id)
    assert code(request, keys) == ("InvalidClientTokenId", 403)
    short = keys.create(["*"], ["*"], lifetime=timedelta(seconds=60))
    request = signed("GET", "/2020-11-20/projects", parts(short))
    assert code(request, keys, timedelta(seconds=61)) == ("ExpiredTokenException", 403)


def test_fifteen_minutes_of_skew_either_way(keys: Credentials, key: Credential) -> None:
    request = signed("GET", "/2020-11-20/projects", parts(key))
    for minutes in (-14, 14):
        assert authenticate(request, keys.find, now() + timedelta(minutes=minutes))
    for minutes in (-16, 16):
        assert code(request, keys, timedelta(minutes=minutes)) == ("RequestExpired", 400)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda h: h.pop("authorization"), "MissingAuthenticationToken"),
        (lambda h: h.update(authorization="Basic abc"), "IncompleteSignature"),
        (lambda h: h.update(authorization="AWS4-HMAC-SHA256 Credential=a"), "IncompleteSignature"),
        (lambda h: h.pop("x-amz-date"), "IncompleteSignature"),
        (lambda h: h.update({"x-amz-date": "yesterday"}), "IncompleteSignature"),
        (lambda h: h.update({"x-amz-date": "20200101T000000Z"}), "IncompleteSignature"),
        (lambda h: h.update(host="elsewhere"), "InvalidSignatureException"),
        (lambda h: h.pop("host"), "InvalidSignatureException"),
    ],
)
def test_what_is_wrong_with_a_signature_has_aws_s_name(
    keys: Credentials, key: Credential, change: object, name: str
) -> None:
    request = signed("GET", "/2020-11-20/projects", parts(key))
    headers = dict(request.headers)
    change(headers)  # type: ignore[operator]
    assert code(replace(request, headers=tuple(headers.items())), keys)[0] == name


def test_another_key_secret_service_method_or_path_is_refused(
    keys: Credentials, key: Credential
) -> None:
    path = "/2020-11-20/projects/p"
    unknown = signed("GET", path, ("AKIAUNKNOWN", key.secret, None))
    assert code(unknown, keys) == ("InvalidClientTokenId", 403)
    wrong = signed("GET", path, (key.key_id, "wrong", None))
    assert code(wrong, keys) == ("InvalidSignatureException", 403)
    other = signed("GET", path, parts(key), service="s3")
    assert code(other, keys)[0] == "IncompleteSignature"
    good = signed("GET", path, parts(key))
    assert code(replace(good, method="DELETE"), keys)[0] == "InvalidSignatureException"
    assert code(replace(good, path=path + "2"), keys)[0] == "InvalidSignatureException"
    assert code(replace(good, query="a=b"), keys)[0] == "InvalidSignatureException"


def test_a_key_may_do_what_its_patterns_say() -> None:
    key = Credential("a", "s", "1" * 12, ("lookoutvision:Detect*",), ("eu-*",), "")
    authorize(key, "DetectAnomalies", "eu-west-1")
    for operation, region in (("CreateProject", "eu-west-1"), ("DetectAnomalies", "us-east-1")):
        with pytest.raises(sigv4.AccessDenied) as refused:
            authorize(key, operation, region)
        assert failure(refused.value).code == 403


def test_keys_lie_in_a_file_that_nobody_else_may_read(tmp_path: Path) -> None:
    path = tmp_path / "credentials.json"
    keys = Credentials(path)
    made = keys.create(["lookoutvision:*"], ["us-east-1"], note="line 3")
    assert path.stat().st_mode & 0o777 == 0o600
    assert Credentials(path).all() == [made]
    path.chmod(0o644)
    with pytest.raises(ModelError, match="others may read the secrets"):
        Credentials(path).find(made.key_id)
    path.chmod(0o600)
    path.write_text("{}")
    with pytest.raises(ModelError, match="is damaged"):
        Credentials(path).find(made.key_id)


def test_a_running_reader_takes_new_and_revoked_keys(tmp_path: Path) -> None:
    reader, writer = Credentials(tmp_path / "c.json"), Credentials(tmp_path / "c.json")
    assert reader.find("AKIA") is None
    made = writer.create(["*"], ["*"])
    assert reader.find(made.key_id) == made
    writer.revoke(made.key_id)
    assert reader.find(made.key_id) is None
    with pytest.raises(NotFound):
        writer.revoke(made.key_id)


@pytest.mark.parametrize(
    ("actions", "account"), [(["s3:*"], "1" * 12), (["*"], "12"), ([], "1" * 12)]
)
def test_a_key_that_makes_no_sense_is_refused(
    keys: Credentials, actions: list[str], account: str
) -> None:
    with pytest.raises(InvalidInput):
        keys.create(actions, ["*"], account=account)
