"""Projects, data sets and tags through the port, as boto3 asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from edged.config import Quotas
from tests.support.rest_server import Rest, rest_server
from tests.support.shared_data import shared_data


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[Rest]:
    with rest_server(tmp_path / "state") as running:
        yield running


def line(number: int, kind: str | None = None, bucket: str = "parts") -> str:
    entry: dict[str, Any] = {"source-ref": f"s3://{bucket}/IMG_{number}.jpg"}
    if kind:
        entry["auto-label"] = 7
        entry["auto-label-metadata"] = {"class-name": kind, "human-annotated": "yes"}
    return json.dumps(entry)


def put(rest: Rest, key: str, lines: list[str]) -> dict[str, Any]:
    """A manifest in the bucket; the DatasetSource that names it."""
    rest.service.buckets.bucket("parts").write(key, "\n".join(lines).encode())
    return {"GroundTruthManifest": {"S3Object": {"Bucket": "parts", "Key": key}}}


def refused(call: Any, **members: Any) -> tuple[str, int, dict[str, Any]]:
    """Name, code and members of the error that a call gets."""
    with pytest.raises(ClientError) as error:
        call(**members)
    answer = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer


def test_a_project_is_made_told_listed_and_gone(rest: Rest) -> None:
    client = rest.client()
    made = client.create_project(ProjectName="p1")["ProjectMetadata"]
    assert made["ProjectArn"] == "arn:aws:lookoutvision:us-east-1:123456789012:project/p1"
    code, status, answer = refused(client.create_project, ProjectName="p1")
    assert (code, status) == ("ConflictException", 409)
    assert (answer["ResourceType"], answer["ResourceId"]) == ("PROJECT", "p1")
    told = client.describe_project(ProjectName="p1")["ProjectDescription"]
    assert told["Datasets"] == [] and told["CreationTimestamp"] == made["CreationTimestamp"]
    for number in range(5):
        client.create_project(ProjectName=f"q{number}")
    pages = client.get_paginator("list_projects").paginate(PaginationConfig={"PageSize": 2})
    names = [p["ProjectName"] for page in pages for p in page["Projects"]]
    assert names == ["p1", "q0", "q1", "q2", "q3", "q4"]
    assert client.delete_project(ProjectName="p1")["ProjectArn"] == made["ProjectArn"]
    code, status, answer = refused(client.describe_project, ProjectName="p1")
    assert (code, status, answer["ResourceType"]) == ("ResourceNotFoundException", 404, "PROJECT")


def test_regions_and_accounts_see_nothing_of_each_other(rest: Rest) -> None:
    rest.client().create_project(ProjectName="p")
    other = rest.credentials.create(["*"], ["*"], account="210987654321")
    for client in (rest.client(region="eu-west-1"), rest.client(other)):
        assert client.list_projects()["Projects"] == []
        client.create_project(ProjectName="p")


def test_the_tutorial_s_manifest_is_imported_from_a_bucket(rest: Rest) -> None:
    text = shared_data("cookies/getting-started/dataset-files/manifests/template.manifest")
    lines = [
        each.replace('"training-images/', '"s3://parts/x/').replace('"mask-images/', '"s3://parts/')
        for each in text.read_text().splitlines()
    ]
    client = rest.client()
    client.create_project(ProjectName="cookies")
    made = client.create_dataset(
        ProjectName="cookies", DatasetType="train", DatasetSource=put(rest, "train.manifest", lines)
    )
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert made["DatasetMetadata"]["Status"] == "CREATE_IN_PROGRESS"
    assert refused(client.delete_dataset, ProjectName="cookies", DatasetType="train")[1] == 409
    rest.settle()
    told = client.describe_dataset(ProjectName="cookies", DatasetType="train")["DatasetDescription"]
    assert told["Status"] == "CREATE_COMPLETE", told
    assert told["ImageStats"] == {"Total": 63, "Labeled": 63, "Normal": 31, "Anomaly": 32}


def test_entries_are_filtered_paged_and_given_back_as_lines(rest: Rest) -> None:
    client, at = rest.client(), {"ProjectName": "p", "DatasetType": "train"}
    client.create_project(ProjectName="p")
    kinds = ["normal", "Anomaly", None, "scratched"]
    lines = [line(number, kinds[number % 4]) for number in range(40)]
    client.create_dataset(**at, DatasetSource=put(rest, "m", lines))
    rest.settle()

    def found(**more: Any) -> list[Any]:
        pages = client.get_paginator("list_dataset_entries").paginate(
            **at, **more, PaginationConfig={"PageSize": 7}
        )
        return [json.loads(each) for page in pages for each in page["DatasetEntries"]]

    everything = found()
    assert [e["source-ref"] for e in everything] == [f"s3://parts/IMG_{n}.jpg" for n in range(40)]
    assert [e.get("auto-label") for e in everything[:4]] == [0, 1, None, 7]
    assert len(found(Labeled=True)) == len(found(Labeled=False)) == 20
    assert len(found(AnomalyClass="anomaly")) == 10
    assert len(found(SourceRefContains="IMG_1")) == 11
    assert len(found(AfterCreationDate="2020-01-01")) == 40
    assert found(BeforeCreationDate="2020-01-01") == []


def test_an_update_adds_and_replaces_all_or_nothing(rest: Rest) -> None:
    client, at = rest.client(), {"ProjectName": "p", "DatasetType": "test"}
    client.create_project(ProjectName="p")
    client.create_dataset(**at)

    def update(*lines: str) -> str:
        answer = client.update_dataset_entries(**at, Changes="\n".join(lines).encode())
        assert answer["Status"] == "UPDATE_IN_PROGRESS"
        assert refused(client.update_dataset_entries, **at, Changes=b"{}")[1] == 409
        rest.settle()
        told = client.describe_dataset(**at)["DatasetDescription"]
        return f"{told['Status']} {told['ImageStats']['Total']} {told['StatusMessage']}"

    assert update(line(1, "normal"), line(2)).startswith("UPDATE_COMPLETE 2")
    assert update(line(2, "anomaly"), line(3)).startswith("UPDATE_COMPLETE 3")
    failed = update(line(4), "{not json}")
    assert failed.startswith("UPDATE_FAILED_ROLLBACK_COMPLETE 3 Changes:2: is not JSON")
    assert "all pictures and masks of a dataset must be in one bucket" in update(
        line(5, bucket="elsewhere")
    )
    entries = client.list_dataset_entries(**at)["DatasetEntries"]
    classes = [json.loads(e).get("auto-label-metadata", {}).get("class-name") for e in entries]
    assert classes == ["normal", "anomaly", None]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["[]"], "m:1: is not a JSON object"),
        ([line(1), '{"a": 1}'], "m:2: has no source-ref"),
        ([line(1), line(1)], "stands in line 1 already"),
        (['{"source-ref": "a.jpg"}'], "is no reference"),
        ([""], "has no line"),
    ],
)
def test_a_manifest_that_is_wrong_fails_with_its_line(
    rest: Rest, lines: list[str], words: str
) -> None:
    client, at = rest.client(), {"ProjectName": "p", "DatasetType": "train"}
    client.create_project(ProjectName="p")
    client.create_dataset(**at, DatasetSource=put(rest, "m", lines))
    rest.settle()
    told = client.describe_dataset(**at)["DatasetDescription"]
    assert told["Status"] == "CREATE_FAILED" and words in told["StatusMessage"]
    assert refused(client.update_dataset_entries, **at, Changes=b"{}")[1] == 409
    client.delete_dataset(**at)
    client.create_dataset(**at)


def test_a_manifest_that_is_not_there_or_has_versions_fails(rest: Rest) -> None:
    client, at = rest.client(), {"ProjectName": "p", "DatasetType": "train"}
    client.create_project(ProjectName="p")
    for source, words in (
        ({"Bucket": "parts", "Key": "absent"}, "s3://parts/absent: no such object"),
        ({"Bucket": "nowhere", "Key": "k"}, "Bucket nowhere: there is no folder"),
        ({"Bucket": "parts", "Key": "k", "VersionId": "1"}, "keeps no versions"),
        ({"Bucket": "parts", "Key": "a/../../secret"}, "is no key of an object"),
    ):
        client.create_dataset(**at, DatasetSource={"GroundTruthManifest": {"S3Object": source}})
        rest.settle()
        told = client.describe_dataset(**at)["DatasetDescription"]
        assert told["Status"] == "CREATE_FAILED" and words in told["StatusMessage"]
        client.delete_dataset(**at)


def test_what_was_accepted_is_done_after_a_restart(tmp_path: Path) -> None:
    at = {"ProjectName": "p", "DatasetType": "train"}
    with rest_server(tmp_path / "state") as first:
        client = first.client()
        client.create_project(ProjectName="p")
        client.create_dataset(**at, DatasetSource=put(first, "m", [line(1, "normal")]))
    with rest_server(tmp_path / "state") as second:
        client = second.client()
        status = client.describe_dataset(**at)["DatasetDescription"]["Status"]
        assert status == "CREATE_IN_PROGRESS"
        second.settle()
        told = client.describe_dataset(**at)["DatasetDescription"]
        assert (told["Status"], told["ImageStats"]["Total"]) == ("CREATE_COMPLETE", 1)


def test_a_client_token_makes_two_calls_one_also_after_a_restart(tmp_path: Path) -> None:
    with rest_server(tmp_path / "state") as first:
        made = first.client().create_project(ProjectName="p", ClientToken="t-1")
    with rest_server(tmp_path / "state") as second:
        client = second.client()
        again = client.create_project(ProjectName="p", ClientToken="t-1")
        assert again["ProjectMetadata"] == made["ProjectMetadata"]
        assert refused(client.create_project, ProjectName="q", ClientToken="t-1")[:2] == (
            "ConflictException",
            409,
        )
        assert len(client.list_projects()["Projects"]) == 1


def test_tags_are_kept_changed_and_limited(tmp_path: Path) -> None:
    with rest_server(tmp_path / "state", Quotas(projects=1, tags=3)) as rest:
        client = rest.client()
        arn = client.create_project(ProjectName="p")["ProjectMetadata"]["ProjectArn"]
        client.tag_resource(ResourceArn=arn, Tags=[{"Key": "a b", "Value": "1"}])
        client.tag_resource(
            ResourceArn=arn, Tags=[{"Key": "a b", "Value": "2"}, {"Key": "c", "Value": ""}]
        )
        assert client.list_tags_for_resource(ResourceArn=arn)["Tags"] == [
            {"Key": "a b", "Value": "2"},
            {"Key": "c", "Value": ""},
        ]
        many = [{"Key": f"k{n}", "Value": "v"} for n in range(2)]
        code, status, answer = refused(client.tag_resource, ResourceArn=arn, Tags=many)
        assert (code, status, answer["QuotaCode"]) == ("ServiceQuotaExceededException", 402, "TAGS")
        client.untag_resource(ResourceArn=arn, TagKeys=["a b", "unknown"])
        assert [t["Key"] for t in client.list_tags_for_resource(ResourceArn=arn)["Tags"]] == ["c"]
        absent = arn.replace("project/p", "model/p/1")
        assert refused(client.list_tags_for_resource, ResourceArn=absent)[1] == 404
        assert refused(client.list_tags_for_resource, ResourceArn="arn:aws:s3:::b")[1] == 400
        assert refused(client.create_project, ProjectName="q")[:2] == (
            "ServiceQuotaExceededException",
            402,
        )


def test_who_may_not_is_told_so_and_written_down(rest: Rest) -> None:
    reader = rest.credentials.create(["lookoutvision:List*"], ["us-*"])
    client = rest.client(reader)
    assert client.list_projects()["Projects"] == []
    assert refused(client.create_project, ProjectName="p")[:2] == ("AccessDeniedException", 403)
    elsewhere = rest.client(reader, "eu-west-1")
    assert refused(elsewhere.list_projects)[0] == "AccessDeniedException"
    told = rest.done[-2]
    assert (told.who, told.operation, told.code) == (reader.key_id, "CreateProject", 403)
    assert told.error == "AccessDeniedException" and told.peer.startswith("127.0.0.1:")


def test_too_many_calls_are_throttled_with_a_time_to_wait(tmp_path: Path) -> None:
    with rest_server(tmp_path / "state", rate=0.001) as rest:
        client = rest.client()
        client.list_projects()
        code, status, answer = refused(client.list_projects)
        assert (code, status) == ("ThrottlingException", 429)
        assert answer["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "1"
        client.create_project(ProjectName="p")  # of its own
