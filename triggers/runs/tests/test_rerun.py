"""POST /runs/:id/rerun"""

import pytest
from django.db import transaction

from audit.models import AuditEntry
from pipedai.api.errors import NotFound
from pipedai.ids import new_id
from pipedai.retention import Order
from testing.probes.shapes import NOT_FOUND
from testing.processes.racing import ROUNDS, Started, accepted, at_once
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR
from testing.world.runs import Runs
from testing.world.shown_rows import shown_run
from triggers.models import IdempotencyKey, Run, Trigger
from triggers.pruning import prune_runs
from triggers.runs.queueing import rerun_run
from triggers.states import Source


@pytest.fixture
def runs(cast):
    return Runs(cast, cast.trigger_id)


def rerun(client, run_id, **headers):
    return client.post(f"/api/v1/runs/{run_id}/rerun", {}, headers=headers)


def test_it_queues_a_run_with_the_payload_of_the_run(cast, runs):
    run_id = runs.ended("failed", payload={"b": 1, "a": [None]})
    answer = rerun(cast.client(cast.operator), run_id)
    assert answer.status_code == 201
    expected = shown_run(
        cast,
        rerunOfRunId=str(run_id),
        previousRunId=answer.json()["previousRunId"],
        payload={"b": 1, "a": [None]},
    )
    assert answer.json() == expected
    assert list(answer.json()["payload"]) == ["b", "a"]
    shown = cast.client(cast.viewer).get(f"/api/v1/runs/{answer.json()['id']}").json()
    assert shown == answer.json()
    entry = AuditEntry.objects.filter(action="run.created").latest("id")
    assert entry.target_id == Run.objects.latest("id").id
    assert entry.metadata["rerunOf"] == str(run_id)


def test_it_takes_the_trigger_as_it_is_now(cast, runs):
    run_id = runs.ended()
    other = cast.register("host-2").worker_id
    changes = {"prompt": "Anew.", "model": "claude-opus", "workerId": str(other)}
    cast.client(cast.owner).patch(f"/api/v1/triggers/{cast.trigger_id}", changes)
    shown = rerun(cast.key_client(), run_id).json()
    assert (shown["prompt"], shown["model"], shown["workerId"]) == tuple(changes.values())
    assert (shown["source"], shown["attempt"], shown["retryOfRunId"]) == ("api", 1, None)


def test_a_rerun_and_a_retry_may_be_run_again(cast, runs):
    client = cast.client(cast.operator)
    run_id = runs.ended("failed", faultClass="infra", payload=[1])
    retry = Run.objects.get(retry_of=run_id)
    runs.cancel(retry.id)
    second = rerun(client, retry.id).json()
    assert (second["rerunOfRunId"], second["payload"]) == (str(retry.id), [1])
    runs.cancel(second["id"])
    assert rerun(client, second["id"]).json()["rerunOfRunId"] == second["id"]


def test_a_retry_of_a_rerun_names_only_the_run_that_it_repeats(cast, runs):
    run_id = rerun(cast.client(cast.operator), runs.ended()).json()["id"]
    runs.wait(days=9999)
    runs.claim(run_id)
    runs.complete(run_id, "failed", faultClass="infra")
    retry = Run.objects.get(retry_of=run_id)
    assert (retry.rerun_of_id, retry.source) == (None, "retry")


@cases("state", ["queued", "claimed", "running"], undone=True)
def test_an_unfinished_run_is_refused_with_its_state(cast, runs, state):
    run_id = runs.queue() if state == "queued" else getattr(runs, state)()
    answer = rerun(cast.client(cast.operator), run_id)
    assert answer.status_code == 409
    assert answer.json() == {
        "error": f"The run is {state}: only a run that has ended can be run again.",
        "code": "run_state",
        "status": state,
    }
    assert Run.objects.count() == 1


def test_a_trigger_that_can_not_run_refuses_as_for_run(cast, runs, ceilings):
    run_id = runs.ended()
    client = cast.client(cast.operator)
    rows = Trigger.objects.filter(id=cast.trigger_id)
    for change, code in (
        ({"enabled": False}, "trigger_disabled"),
        ({"enabled": True, "worker": None}, "trigger_without_worker"),
    ):
        rows.update(**change)
        answer = rerun(client, run_id)
        assert (answer.status_code, answer.json()["code"]) == (409, code)
    rows.update(deleted_at="2026-01-01T00:00:00Z")
    assert (rerun(client, run_id).status_code, rerun(client, run_id).json()) == (404, NOT_FOUND)
    rows.update(deleted_at=None, worker=cast.worker.worker_id)
    ceilings["queuedRuns"] = 0
    assert rerun(client, run_id).json()["ceiling"] == "queuedRuns"


def test_a_field_in_its_body_is_refused(cast, runs):
    url = f"/api/v1/runs/{runs.ended()}/rerun"
    assert cast.key_client().post(url, {"payload": 1}).status_code == 400
    assert cast.key_client().generic("POST", url).status_code == 201


class TestWithAnIdempotencyKey:
    def test_a_repeat_gets_the_first_rerun_whatever_has_happened_since(self, cast, runs):
        run_id, client = runs.ended(payload=1), cast.key_client()
        first = rerun(client, run_id, idempotency_key="k")
        Trigger.objects.update(deleted_at="2026-01-01T00:00:00Z", enabled=False)
        again = rerun(client, run_id, idempotency_key="k")
        assert (first.status_code, again.status_code) == (201, 200)
        assert again["Idempotent-Replayed"] == "true"
        assert again.json() == first.json()
        assert Run.objects.count() == 2

    def test_a_key_of_another_rerun_or_of_a_run_is_refused(self, cast, runs):
        client, one, two = cast.key_client(), runs.ended(), runs.ended()
        url = f"/api/v1/triggers/{cast.trigger_id}/run"
        assert rerun(client, one, idempotency_key="k").status_code == 201
        refused = rerun(client, two, idempotency_key="k")
        assert (refused.status_code, refused.json()["code"]) == (409, "idempotency_key_reused")
        assert client.post(url, {}, headers={"idempotency-key": "k"}).status_code == 409
        assert rerun(cast.client(cast.operator), one, idempotency_key="k").status_code == 201
        assert rerun(client, one, idempotency_key="é").status_code == 400


@cases("payload", [None, {}, "", [None], "x" * (64 * 1024 - 2)], undone=True)
def test_any_payload_is_run_again_unchanged(cast, runs, payload):
    run_id = runs.ended(payload=payload)
    assert rerun(cast.key_client(), run_id).json()["payload"] == payload


def _rerunning(run_id, caller_id):
    return lambda: rerun_run(
        run_id=run_id, caller_id=caller_id, key="k", source=Source.MANUAL, actor=TEST_ACTOR
    )


@pytest.mark.parametrize("_", ROUNDS)
def test_racing_reruns_with_one_key_make_one_run(committed_cast, _):
    runs = Runs.of(committed_cast)
    run_id = runs.ended(payload=[1])
    answers = accepted(at_once(*[_rerunning(run_id, new_id())] * 4))
    assert len({queued.run["id"] for queued in answers}) == 1
    assert sorted(queued.replayed for queued in answers) == [False, True, True, True]
    assert Run.objects.filter(rerun_of=run_id).count() == 1


def test_a_run_that_is_pruned_meanwhile_is_not_found(committed_cast):
    runs = Runs.of(committed_cast, webhook_url=None)
    run_id = runs.ended()
    call = _rerunning(run_id, new_id())

    with transaction.atomic():
        assert sum(batch.removed for batch in prune_runs(Order(runs.wait(days=1), 10))) == 1
        late = Started(call)
        late.wait_until_blocked()
    assert isinstance(late.answer(), NotFound)
    assert not Run.objects.exists()
    assert not IdempotencyKey.objects.exists()


def test_pruning_a_run_leaves_its_reruns_without_the_name(cast, runs):
    run_id = runs.ended()
    copy = rerun(cast.client(cast.operator), run_id).json()["id"]
    assert sum(batch.removed for batch in prune_runs(Order(runs.wait(days=1), 10))) == 1
    assert Run.objects.values_list("rerun_of_id", flat=True).get(id=copy) is None
