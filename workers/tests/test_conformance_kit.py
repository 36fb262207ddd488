"""The worker's conformance kit accepts and refuses exactly the same requests as this API."""

from typing import Any

import pytest

from pipedai_worker.conformance import wire
from triggers.states import TERMINAL
from workers.protocol.poll_views import MAX_WAIT_SECONDS
from workers.protocol.serializers import ClaimBody, CompleteBody

# Values of every kind that a client in any language may send.
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 5, 5.0, 5.5, 1e300, 2**31, 2**63, 2**70),
    *("", "5", "-5", "5.5", "1e5", "NaN", "abc", "x" * 64, "x" * 65, "x" * 10_000),
    *([], {}, ["a"], "infra", "none", "Infra", "succeeded", "Succeeded", " succeeded "),
]


@pytest.mark.parametrize("field", list(CompleteBody().fields))
def test_an_outcome_is_refused_by_the_kit_when_the_api_refuses_it(field: str) -> None:
    for value in VALUES:
        body = {"status": "succeeded", field: value}
        taken = CompleteBody(data=body).is_valid()
        assert (wire.problem("complete", {}, body) is None) is taken, value


def test_a_claim_is_refused_by_the_kit_when_the_api_refuses_it() -> None:
    for value in VALUES:
        taken = ClaimBody(data={"claimId": value}).is_valid()
        assert (wire.problem("claim", {}, {"claimId": value}) is None) is taken, value


def test_the_kit_knows_the_same_endings_and_the_same_longest_wait() -> None:
    assert {status.value for status in TERMINAL} == wire.TERMINAL
    assert wire.LONGEST_WAIT_SECONDS == MAX_WAIT_SECONDS
