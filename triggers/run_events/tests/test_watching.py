"""A run that somebody watches sends its events as they come, whatever its trigger records of others."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from pipedai.sql import database_now
from testing.processes.worker_calls import WorkerCalls
from testing.world.cast import bearer
from triggers.models import Run, Trigger
from workspaces.models import ApiKey


@pytest.fixture
def runs(runs):
    Trigger.objects.filter(id=runs.trigger_id).update(record_events="failures")
    runs.now = database_now()
    return runs


@pytest.fixture
def calls(cast):
    return WorkerCalls(cast.worker)


def watch(cast, run, who="operator"):
    return cast.client(getattr(cast, who)).post(f"/api/v1/runs/{run}/watch").status_code


def mode(calls, run):
    return calls.heartbeat(run).json()["recordEvents"]


def test_a_watched_run_sends_its_events_from_the_next_heartbeat_on(cast, runs, calls):
    run = runs.running()
    assert mode(calls, run) == "failures"
    assert calls.events(run, 1).json()["code"] == "events_off"
    assert [watch(cast, run), watch(cast, run)] == [204, 204]
    assert mode(calls, run) == "always"
    assert calls.events(run, 1, 2).json() == {"nextSeq": 3}
    assert calls.events(run, 3).json() == {"nextSeq": 4}
    runs.complete(run)
    assert calls.events(run, 4).json() == {"nextSeq": 5}
    assert mode(calls, runs.running()) == "failures"


def test_a_queued_run_keeps_it_and_so_does_its_retry_and_an_ended_one_is_left_alone(
    cast, runs, calls
):
    run, ended = runs.queue(), runs.ended()
    assert [watch(cast, run), watch(cast, ended)] == [204, 204]
    assert calls.poll().json()["runs"][0]["recordEvents"] == "always"
    runs.claim(run)
    runs.start(run)
    runs.complete(run, "failed", faultClass="infra")
    assert Run.objects.get(retry_of=run).watched
    assert not Run.objects.get(id=ended).watched


def test_with_never_nothing_is_sent_and_only_operators_watch(cast, runs, calls):
    run = runs.running()
    assert watch(cast, run, "viewer") == 403
    assert watch(cast, run, "stranger") == 404
    Trigger.objects.filter(id=runs.trigger_id).update(record_events="never")
    assert watch(cast, run) == 204
    assert mode(calls, run) == "never"
    assert calls.events(run, 1).json()["code"] == "events_off"


@pytest.mark.parametrize("path", ["triggers/{trigger}/run", "runs/{ended}/rerun"])
def test_a_run_that_a_person_starts_is_watched_and_one_of_a_program_is_not(cast, runs, path):
    ended = runs.ended()
    path = f"/api/v1/{path.format(trigger=runs.trigger_id, ended=ended)}"

    def started(client):
        answer = client.post(path, {}, content_type="application/json")
        return Run.objects.get(id=answer.json()["id"]).watched

    assert started(cast.client(cast.operator))
    key = bearer(cast.mint("pwk", role="operator"))
    assert not started(key)
    ApiKey.objects.filter(kind="pwk").update(is_login=True, expires_at=Now() + timedelta(days=1))
    assert started(key)
