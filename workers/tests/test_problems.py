"""What a worker says is wrong with its machine is shown in lists, in attention and as advice, and keeps no run back."""

import json
from typing import Any

import pytest

from notices.attention import find_attention
from pipedai.sql import database_now
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import Cast
from testing.world.runs import Runs
from workers.models import Worker

PROBLEM = {"code": "no_claude", "message": "There is no claude."}
FULL = {"code": "disk_full", "message": "Make room."}


@pytest.fixture
def calls(cast: Cast) -> WorkerCalls:
    return WorkerCalls(cast.worker)


def shown(cast: Cast) -> Any:
    path = f"/api/v1/environments/{cast.environment.id}/workers"
    return cast.client(cast.viewer).get(path).json()["items"][0]["problems"]


def test_they_are_there_until_the_worker_says_otherwise(cast: Cast, calls: WorkerCalls) -> None:
    assert calls.claim_next(claimId="a", problems=[PROBLEM, FULL]).status_code == 200
    assert shown(cast) == [PROBLEM, FULL]
    for same in ({}, {"problems": None}, {"problems": [PROBLEM, FULL]}):
        since = Worker.objects.get().problems_since
        assert calls.claim_next(claimId="a", **same).status_code == 200
        assert shown(cast) == [PROBLEM, FULL]
        assert Worker.objects.get().problems_since == since
    calls.claim_next(claimId="a", problems=[])
    assert (shown(cast), Worker.objects.get().problems_since) == ([], None)


def test_a_registration_tells_them_too(cast: Cast) -> None:
    def register(**told: Any) -> None:
        body = {"hostname": "host-1", "os": "linux", "version": "1.0.0", **told}
        headers = {"Authorization": f"Bearer {cast.mint('wrk')}"}
        answer = cast.client(cast.owner).post(
            "/api/v1/workers/register",
            json.dumps(body),
            content_type="application/json",
            headers=headers,
        )
        assert answer.status_code == 201, answer.json()

    for told, kept in (
        ({"problems": [PROBLEM]}, [PROBLEM]),
        ({}, [PROBLEM]),
        ({"problems": []}, []),
    ):
        register(**told)
        assert shown(cast) == kept


BAD: list[Any] = [5, None, {}, {"code": "A b", "message": "x"}, {"code": "x", "message": "a\nb"}]


def test_what_is_malformed_is_left_out_and_what_is_long_is_cut(
    cast: Cast, calls: WorkerCalls
) -> None:
    long = {"code": "x" * 64, "message": "m" * 300, "more": 1}
    assert calls.claim_next(claimId="a", problems=[*BAD, long, *[PROBLEM] * 9]).status_code == 200
    assert shown(cast) == [{"code": "x" * 64, "message": "m" * 200}, *[PROBLEM] * 4]
    assert calls.claim_next(claimId="a", problems="none").status_code == 200
    assert shown(cast) == []


def test_attention_has_an_item_and_a_disabled_worker_none(cast: Cast, calls: WorkerCalls) -> None:
    calls.claim_next(claimId="a", problems=[PROBLEM, FULL])
    ((item,), total) = find_attention(cast.environment.id)
    assert (item["kind"], item["reason"], total) == ("worker_problem", "no_claude", 1)
    assert item["summary"] == (
        "Something is wrong with machine host-1. There is no claude. Make room."
    )
    Worker.objects.update(disabled_at=database_now())
    assert find_attention(cast.environment.id) == ([], 0)


def test_they_are_advice_for_runs_that_have_not_ended_and_keep_none_back(
    cast: Cast, calls: WorkerCalls
) -> None:
    runs = Runs.of(cast)
    runs.now = database_now()
    calls.claim_next(claimId="a", problems=[PROBLEM])
    run_id = runs.queue()

    def explained() -> Any:
        return cast.client(cast.viewer).get(f"/api/v1/runs/{run_id}/explain").json()

    subject = {"type": "worker", "id": str(cast.worker.worker_id), "name": "host-1"}
    told = explained()
    assert (told["waitingFor"], told["advice"]) == ([], [{**PROBLEM, "subject": subject}])
    assert calls.claim_next(claimId="b", start=True).json()["run"]["id"] == str(run_id)
    assert explained()["advice"] == told["advice"]
    runs.complete(run_id)
    assert explained()["advice"] == []
