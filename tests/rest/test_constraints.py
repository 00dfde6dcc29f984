"""Every operation x every constraint of the final service model -> ValidationException."""

from __future__ import annotations

import pytest

from edged.core.errors import InvalidInput
from edged.rest import operations
from edged.rest.protocol import failure, parameters, route
from tests.support.service_model import OPERATIONS, SHAPES, Fault, example, faults, request

TABLE = [fault for operation in sorted(OPERATIONS) for fault in faults(operation)]


def test_the_surface_is_the_service_model_s() -> None:
    ours = {each.name: each for each in operations.OPERATIONS}
    assert ours.keys() == OPERATIONS.keys()
    for name, spec in OPERATIONS.items():
        http, shape = spec["http"], SHAPES[spec["input"]["shape"]]
        assert (ours[name].method, operations.PREFIX + ours[name].path) == (
            http["method"],
            http["requestUri"],
        )
        assert ours[name].code == http.get("responseCode", 200)
        assert ours[name].members.keys() == shape["members"].keys()
        assert set(ours[name].required) == set(shape.get("required", ()))


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_a_request_with_every_member_is_taken(operation: str) -> None:
    members = example(OPERATIONS[operation]["input"]["shape"])
    sent = request(operation, members)
    found, path = route(sent.method, sent.path)
    assert found.name == operation
    assert parameters(found, path, sent).keys() == members.keys()


@pytest.mark.parametrize(
    "fault", TABLE, ids=[f"{f.operation}-{f.member}-{f.constraint}" for f in TABLE]
)
def test_a_broken_constraint_is_a_validation_exception_that_names_the_member(
    fault: Fault,
) -> None:
    sent = request(fault.operation, fault.members)
    operation, path = route(sent.method, sent.path)
    assert operation.name == fault.operation
    with pytest.raises(InvalidInput) as refused:
        parameters(operation, path, sent)
    assert fault.member.split(".")[0].lower() in str(refused.value).lower()
    answer = failure(refused.value)
    assert answer.code == 400
    assert answer.headers["x-amzn-ErrorType"] == "ValidationException"


def test_the_table_has_rows_for_every_operation() -> None:
    assert len(TABLE) >= 290
    assert {fault.operation for fault in TABLE} == OPERATIONS.keys()
