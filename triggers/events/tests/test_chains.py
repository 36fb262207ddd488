"""A final end of a run starts the triggers that listen to its trigger, once each, whatever is killed."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from django.db import connection, transaction

from pipedai.loop import registered_jobs
from pipedai.sql import database_now
from pipedai.timeouts import JOB, overriding
from testing.probes.plans import explained, prefer_indexes
from testing.probes.statement_count import counted
from testing.processes.forks import kill_before_commit
from testing.processes.racing import at_once
from testing.processes.worker_process import until
from testing.world.cases import cases
from testing.world.cast import make_cast, register
from testing.world.events import listen
from testing.world.runs import Runs
from testing.world.undone import undone
from triggers.events.deciding import decide, decide_ends
from triggers.models import Event, EventDecision, Run, RunText, Trigger

OUTPUT = {"found": 3}


@pytest.fixture
def listening(runs: Runs) -> UUID:
    """A trigger that listens to every end of `runs`."""
    return add_listening(runs)


def add_listening(runs: Runs, outcome: str = "any", to: UUID | None = None) -> UUID:
    trigger_id: UUID = runs.cast.add_trigger()
    listen(trigger_id, upstream_id=to or runs.trigger_id, outcome=outcome)
    return trigger_id


def begun(trigger_id: UUID) -> list[Run]:
    return list(Run.objects.filter(trigger_id=trigger_id).order_by("id"))


def test_a_success_starts_the_next_with_its_output(runs: Runs, listening: UUID) -> None:
    run_id = runs.ended(output=OUTPUT)
    event = Event.objects.get()
    assert (event.run_id, event.decided_at) == (run_id, None)
    assert decide_ends() == 1
    assert decide_ends() == 0
    (run,) = begun(listening)
    assert (run.source, run.event_id, run.chain_depth) == ("chain", event.id, 1)
    assert RunText.objects.get(run_id=run.id).payload == {
        "event": {
            "id": str(event.id),
            "source": {"type": "trigger", "id": str(runs.trigger_id), "name": "Nightly report"},
            "type": "succeeded",
            "receivedAt": "2026-05-04T12:00:00.000Z",
            "runId": str(run_id),
        },
        "output": OUTPUT,
    }
    assert EventDecision.objects.get().run_id == run.id


def test_a_run_without_output_has_none_for_the_next(runs: Runs, listening: UUID) -> None:
    runs.ended()
    decide_ends()
    assert RunText.objects.get(run_id=begun(listening)[0].id).payload["output"] is None


@cases(
    ("status", "heard_by"),
    [
        ("succeeded", {"succeeded", "any"}),
        ("failed", {"failed", "any"}),
        ("timed_out", {"failed", "any"}),
    ],
    undone=True,
)
def test_each_hears_the_outcomes_that_it_wants(runs: Runs, status: str, heard_by: set[str]) -> None:
    triggers = {outcome: add_listening(runs, outcome) for outcome in ("succeeded", "failed", "any")}
    runs.ended(status)
    decide_ends()
    assert {outcome for outcome, id_ in triggers.items() if begun(id_)} == heard_by
    filtered = EventDecision.objects.filter(decision="filtered")
    clauses: list[Any] = list(filtered.values_list("clause", flat=True))
    for clause in clauses:
        assert (clause["op"], clause["saw"]) == ("outcome", f'"{status}"')


def test_an_end_that_is_retried_or_canceled_starts_nothing(runs: Runs, listening: UUID) -> None:
    first = runs.ended("failed", faultClass="infra")
    runs.cancel(runs.queue())
    assert not Event.objects.exists()
    retry = runs.claimed_retry_of(first)
    runs.complete(retry)
    assert Event.objects.get().run_id == retry
    decide_ends()
    assert len(begun(listening)) == 1


def test_a_run_that_waits_for_a_decision_has_not_ended(runs: Runs, listening: UUID) -> None:
    run_id = runs.waiting()
    cast = runs.cast
    Run.objects.filter(id=run_id).update(
        requested_by=cast.operator.id, also_requested_by=[cast.admin.id, cast.owner.id]
    )
    assert decide_ends() == 0
    runs.wait(minutes=10)
    runs.expire_queued()
    assert decide_ends() == 1
    (run,) = begun(listening)
    assert run.requested_by == cast.operator.id
    assert run.also_requested_by == [cast.admin.id, cast.owner.id]


def test_ends_by_the_server_count_too(runs: Runs, listening: UUID) -> None:
    runs.overdue()
    assert decide_ends() == 1
    payload = RunText.objects.get(run_id=begun(listening)[0].id).payload
    assert payload["event"]["type"] == "timed_out"


@cases("decided", [True, False], undone=True)
def test_a_late_result_fires_nothing_further(runs: Runs, listening: UUID, decided: bool) -> None:
    run_id = runs.overdue()
    if decided:
        decide_ends()
    runs.complete(run_id, "succeeded", output=OUTPUT)
    decide_ends()
    assert Event.objects.get().run_id == run_id
    (run,) = begun(listening)
    expected = "timed_out" if decided else "succeeded"
    assert RunText.objects.get(run_id=run.id).payload["event"]["type"] == expected


def test_a_late_result_that_cancels_the_retry_is_the_first_final_end(
    runs: Runs, listening: UUID
) -> None:
    run_id = runs.lost()
    assert not Event.objects.exists()
    runs.complete(run_id, "succeeded")
    assert Event.objects.get().run_id == run_id
    decide_ends()
    assert len(begun(listening)) == 1


def test_a_late_result_whose_retry_stands_is_no_final_end(runs: Runs, listening: UUID) -> None:
    runs.complete(runs.lost(), "failed", faultClass="infra")
    assert not Event.objects.exists()


def test_chains_end_at_depth_eight(runs: Runs) -> None:
    chain = [runs.trigger_id]
    for _ in range(9):
        chain.append(add_listening(runs, to=chain[-1]))
    run_id = runs.queue()
    for depth, trigger_id in enumerate(chain[1:9], start=1):
        runs.claim(run_id)
        runs.complete(run_id)
        decide_ends()
        (run,) = begun(trigger_id)
        assert run.chain_depth == depth
        run_id, runs.now = run.id, database_now()
    runs.claim(run_id)
    runs.complete(run_id)
    decide_ends()
    assert begun(chain[9]) == []
    last = EventDecision.objects.get(trigger_id=chain[9])
    assert (last.decision, last.code) == ("refused", "chain_too_deep")


def test_a_retry_and_a_rerun_are_as_deep_as_their_run(runs: Runs, listening: UUID) -> None:
    runs.ended()
    decide_ends()
    (run,) = begun(listening)
    runs.now = database_now()
    runs.claim(run.id)
    runs.complete(run.id, "failed", faultClass="infra")
    client = runs.cast.client(runs.cast.operator)
    assert client.post(f"/api/v1/runs/{run.id}/rerun", {}).status_code == 201
    found = {(each.source, each.chain_depth, each.event_id) for each in begun(listening)}
    assert found == {(source, 1, run.event_id) for source in ("chain", "retry", "manual")}


# --- Once


def test_two_schedulers_start_one_run(committed_runs: Runs) -> None:
    triggers = [add_listening(committed_runs) for _ in range(2)]
    for _ in range(6):
        committed_runs.ended()
    at_once(decide_ends, decide_ends, decide_ends)
    until(lambda: decide_ends() == 0 and not Event.objects.filter(decided_at=None).exists())
    for trigger_id in triggers:
        runs = begun(trigger_id)
        assert len(runs) == len({run.event_id for run in runs}) == 6


@pytest.mark.parametrize("number", [1, 2], ids=["one listener", "several"])
def test_no_environment_waits_for_a_change_of_anothers_trigger(
    committed_runs: Runs, number: int
) -> None:
    cast = committed_runs.cast
    locked = [add_listening(committed_runs) for _ in range(number)]
    for _ in range(3):
        committed_runs.ended()
    worker = register(cast.mint_elsewhere("wrk"), "host-9")
    others = Runs.of(replace(cast, environment=cast.strange_environment, worker=worker))
    free = add_listening(others)
    others.ended()
    with transaction.atomic():
        Trigger.objects.select_for_update(no_key=True).get(id=locked[0])
        assert at_once(overriding(JOB)(decide_ends)) == [1]
        assert len(begun(free)) == 1
    assert decide_ends() == 3
    assert len(begun(locked[0])) == 3


def test_the_event_outlives_a_scheduler_that_is_killed(committed_runs: Runs) -> None:
    listening = add_listening(committed_runs)
    run_id = committed_runs.running()
    kill_before_commit(lambda: committed_runs.complete(run_id))
    assert not Event.objects.exists()
    until(lambda: Run.objects.get(id=run_id).status == "running")
    until(lambda: committed_runs.complete(run_id))
    kill_before_commit(decide_ends)
    assert begun(listening) == []
    until(lambda: decide_ends() == 1)
    assert len(begun(listening)) == 1


def test_a_poison_event_stops_none_of_the_others(runs: Runs, listening: UUID, monkeypatch) -> None:
    poison, sound = runs.ended(), runs.ended()

    def failing(event: Event, **more: Any) -> Any:
        if event.run_id == poison:
            raise ValueError("a bug")
        return decide(event, **more)

    monkeypatch.setattr("triggers.events.deciding.decide", failing)
    with pytest.raises(ValueError, match="a bug"):
        decide_ends()
    assert Event.objects.get(decided_at=None).run_id == poison
    assert EventDecision.objects.get().event.run_id == sound


def test_the_scheduler_looks_several_times_a_second() -> None:
    (job,) = (job for job in registered_jobs() if job.name == "decide-ends")
    assert (job.work, job.every_seconds) == (decide_ends, 0.25)


def test_no_workspace_waits_for_the_ends_of_another(runs: Runs, listening: UUID) -> None:
    for _ in range(3):
        runs.ended()
    cast = runs.cast
    worker = register(cast.mint_elsewhere("wrk"), "host-9")
    foreign = replace(cast, environment=cast.strange_environment, worker=worker)
    others = Runs.of(foreign)
    add_listening(others)
    others.ended()
    assert decide_ends(limit=2) == 2
    left = Event.objects.filter(decided_at=None).values_list("environment_id", flat=True)
    assert list(left) == [cast.environment.id] * 2


# --- What it costs


def test_a_trigger_that_nobody_listens_to_pays_no_statement(runs: Runs) -> None:
    def statements() -> int:
        run_id = runs.running()
        with counted() as made:
            runs.complete(run_id)
        return len(made)

    runs.ended()  # The first end of a trigger makes its row of health.
    unheard = statements()
    add_listening(runs)
    assert statements() == unheard + 1
    assert Event.objects.count() == 1


def test_of_many_workspaces_only_the_oldest_end_of_each_environment_is_read(
    runs: Runs, listening: UUID, subtests: pytest.Subtests
) -> None:
    casts = [runs.cast, make_cast()]
    for cast in tuple(casts):
        worker = register(cast.mint_elsewhere("wrk"), "host-9")
        casts.append(replace(cast, environment=cast.strange_environment, worker=worker))
    first = set()
    for number, cast in enumerate(casts):
        ending = Runs.of(cast)
        add_listening(ending)
        ending.wait(seconds=number)
        first.add(ending.ended())
        for _ in range(5):
            ending.wait(seconds=1)
            ending.ended()
    assert Event.objects.filter(decided_at=None).count() == 24
    prefer_indexes()
    decided = Event.objects.exclude(decided_at=None).values_list("run_id", flat=True)
    for kept in (False, True):
        with subtests.test(kept=kept), undone():
            with explained(kept=kept) as plans:
                assert decide_ends(limit=4) == 4
            assert set(decided.all()) == first
            # One to find each environment, and one of each; of each environment six are there.
            assert plans.rows_read("event") <= 2 * 4


def test_undecided_ends_are_found_by_their_index(runs: Runs, listening: UUID) -> None:
    runs.ended()
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN SELECT environment_id FROM event WHERE decided_at IS NULL"
            " ORDER BY environment_id LIMIT 1"
        )
        assert "event_undecided" in str(cursor.fetchall())
