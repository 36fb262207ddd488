"""GET /environments/:envId/attention"""

from datetime import timedelta

import pytest
from django.db import transaction

from accounts.models import User
from audit.models import AuditEntry
from notices.attention import KINDS, MAX_ITEMS, find_attention
from notices.incidents import Finding, acknowledge_incident, announce, change_incidents
from notices.lateness import find_late_triggers
from notices.models import Channel, Incident
from notices.silence import find_offline_pools, find_offline_workers
from notices.states import NEEDS, IncidentNeed, Kind
from pipedai.ids import new_id
from pipedai.sql import database_now
from testing.probes.plans import explained, prefer_indexes
from testing.probes.shapes import A_TIME
from testing.probes.statement_count import counted
from testing.world.cast import TEST_ACTOR
from testing.world.channels import add_channel
from testing.world.connections import add_oauth_connection
from testing.world.copied_rows import copy_ended_run, copy_row
from testing.world.incidents import open_incident
from testing.world.pools import add_pool
from testing.world.runs import Runs
from triggers.models import Run, Tick, Trigger
from triggers.schedules.firing import fire_due_ticks
from triggers.services import TRIGGERS
from workers.models import Worker
from workspaces.connections.models import Connection
from workspaces.members import remove_member
from workspaces.models import Environment


@pytest.fixture
def runs(cast):
    """Returns runs of a trigger of the cast's worker, which is online."""
    made = Runs.of(cast, webhook_url=None)
    made.call(cast.worker.worker_id)
    return made


def items(runs):
    found, total = find_attention(runs.cast.environment.id, now=runs.now)
    assert len(found) == total
    return found


def told(runs):
    """Returns the kind, the reason and the subject's id of each item."""
    return [(item["kind"], item["reason"], item["subject"]["id"]) for item in items(runs)]


def change(runs, **values):
    TRIGGERS.update(runs.trigger_id, values=values, actor=TEST_ACTOR)


def test_a_failing_trigger_is_told_with_why_who_was_told_and_what_to_do(cast):
    channel = add_channel(cast, "email", name="On call")
    runs = Runs(cast, cast.trigger_id, now=database_now())
    run_id = runs.ended("failed", faultClass="client", errorMessage="No such tool." + "x" * 400)
    answer = cast.client(cast.viewer).get(f"/api/v1/environments/{cast.environment.id}/attention")
    incident = Incident.objects.get()
    assert (answer.status_code, answer.json()["total"]) == (200, 1)
    (item,) = answer.json()["items"]
    assert item.pop("remedy")["text"].startswith("Read the run's error, correct")
    who = {
        "channelId": str(channel.id),
        "channelName": "On call",
        "kind": "email",
        "email": cast.admin.email,
        "event": "trigger_failing",
        "status": "pending",
        "createdAt": A_TIME,
        "deliveredAt": None,
    }
    assert item == {
        "kind": "trigger_failing",
        "since": A_TIME,
        "subject": {"type": "trigger", "id": str(cast.trigger_id), "name": "Nightly report"},
        "summary": "Trigger Nightly report is failing. The last run failed or timed out.",
        "reason": "client_fault",
        "error": "No such tool." + "x" * 287,
        "runId": str(run_id),
        "incidentId": str(incident.id),
        "acknowledgedAt": None,
        "toldTo": [who],
    }
    listed = cast.client(cast.viewer).get(f"/api/v1/environments/{cast.environment.id}/incidents")
    assert listed.json()["items"][0]["toldTo"] == [who]


def test_of_each_receiver_the_last_notice_is_told(cast):
    add_channel(cast, "slack", name="Team")
    add_channel(cast, "email", name="On call")
    incident_id = open_incident(cast)
    row = {"id": incident_id, "environment_id": cast.environment.id, "kind": "trigger_failing"}
    with transaction.atomic():
        announce({"recovered": [row]})
    (item,) = find_attention(cast.environment.id)[0]
    assert sorted((who["channel_name"], who["event"]) for who in item["told"]) == [
        ("On call", "trigger_failing.recovered"),
        ("Team", "trigger_failing.recovered"),
    ]


def undecided(runs):
    runs.waiting()
    runs.wait(minutes=10)
    runs.expire_queued()


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (lambda runs: runs.ended("failed", faultClass="infra"), "infra_fault"),
        (lambda runs: runs.lost(), "lease"),
        (lambda runs: runs.overdue(), "deadline"),
        (undecided, "approval_expired"),
    ],
    ids=["infra", "lease", "deadline", "approval"],
)
def test_a_failure_is_told_by_what_ended_it(runs, end, reason):
    change(runs, max_retries=0)
    end(runs)
    runs.call(runs.cast.worker.worker_id)
    assert told(runs) == [("trigger_failing", reason, runs.trigger_id)]


def test_a_run_that_was_pruned_is_missed_by_nobody(runs):
    runs.ended("failed", faultClass="client")
    Incident.objects.update(run_id=new_id())
    assert told(runs) == [("trigger_failing", None, runs.trigger_id)]


class TestAFailureWithoutAnIncident:
    @pytest.fixture
    def failed(self, runs):
        change(runs, alert_after_failures=3)
        runs.ended("failed", faultClass="client", errorMessage="No such tool.")
        return runs

    def test_is_told(self, failed):
        (item,) = items(failed)
        assert (item["kind"], item["reason"], item["error"], item["incident_id"], item["told"]) == (
            "run_failed", "client_fault", "No such tool.", None, [],
        )  # fmt: skip
        assert "after 3 failures in a row" in item["summary"]

    def test_is_told_once_if_it_is_repeated_until_there_is_an_incident(self, failed):
        failed.ended("timed_out")
        assert [kind for kind, *_ in told(failed)] == ["run_failed"]
        failed.ended("failed")
        assert [kind for kind, *_ in told(failed)] == ["trigger_failing"]

    @pytest.mark.parametrize(
        "then",
        [
            lambda runs: runs.ended(),
            lambda runs: runs.wait(days=1),
            lambda runs: change(runs, enabled=False),
        ],
        ids=["a run succeeds", "a day passes", "the trigger is disabled"],
    )
    def test_is_told_until(self, failed, then):
        failed.wait(seconds=1)
        then(failed)
        failed.call(failed.cast.worker.worker_id)
        assert told(failed) == []

    def test_is_not_told_while_a_retry_follows(self, runs):
        change(runs, alert_after_failures=None)
        runs.ended("failed", faultClass="infra")
        assert told(runs) == []


class TestAMachineThatSomethingWaitsFor:
    @pytest.fixture
    def waiting(self, runs):
        """Returns the runs of a worker that fell silent and has a due run."""
        runs.queue()
        runs.wait(minutes=4)
        return runs

    @pytest.fixture
    def of_pool(self, runs):
        """Returns the runs of a pool whose only worker fell silent, with a due run that it may take."""
        runs.pool_id = add_pool(runs.cast, runs.cast.worker.worker_id, name="linux")
        change(runs, worker_id=None, pool_id=runs.pool_id)
        runs.queue()
        runs.wait(minutes=4)
        return runs

    def test_a_worker_is_told_with_how_much_waits(self, waiting):
        (item,) = items(waiting)
        assert (item["kind"], item["reason"]) == ("worker_offline", "worker_offline")
        assert item["subject"]["id"] == waiting.cast.worker.worker_id
        assert item["summary"].endswith("offline since 12:00 UTC. 1 due run waits for it.")
        assert item["remedy"]["text"].startswith("Start the worker program on ")

    def test_a_worker_without_a_token_has_to_register(self, waiting):
        Worker.objects.update(token_digest=None)
        assert [reason for _, reason, _ in told(waiting)] == ["worker_revoked"]

    def test_a_pool_is_told(self, of_pool):
        (item,) = items(of_pool)
        assert (item["kind"], item["reason"]) == ("pool_offline", "pool_offline")
        assert item["subject"] == {"type": "pool", "id": of_pool.pool_id, "name": "linux"}
        assert item["summary"] == "Pool linux has no machine online. 1 due run waits for it."

    def test_a_pool_without_workers_is_told(self, runs):
        pool_id = add_pool(runs.cast)
        change(runs, worker_id=None, pool_id=pool_id)
        runs.queue()
        assert told(runs) == [("pool_offline", "pool_empty", pool_id)]

    def test_an_incident_takes_the_place(self, waiting, of_pool):
        waiting.wait(minutes=20)
        later = database_now() + timedelta(minutes=20)
        find_offline_workers(now=later)
        find_offline_pools(now=later)
        found = items(waiting)
        assert len(found) == Incident.objects.count() > 0
        assert all(item["incident_id"] for item in found)

    @pytest.mark.parametrize(
        "then",
        [
            lambda runs: runs.call(runs.cast.worker.worker_id),
            lambda runs: Worker.objects.update(disabled_at=runs.now),
            lambda runs: Environment.objects.update(paused_at=runs.now),
            lambda runs: Run.objects.update(available_at=runs.now + timedelta(hours=1)),
            lambda runs: Run.objects.update(start_deadline_at=runs.now),
            lambda runs: runs.cancel(Run.objects.get(status="queued").id),
        ],
        ids=["it calls", "it is disabled", "a pause", "not due", "too late", "canceled"],
    )
    @pytest.mark.parametrize("machine", ["waiting", "of_pool"])
    def test_is_not_told_after(self, request, machine, then):
        waiting = request.getfixturevalue(machine)
        assert len(items(waiting)) == 1
        then(waiting)
        assert items(waiting) == []

    def test_a_worker_is_not_told_if_its_pool_may_take_the_run(self, waiting):
        other = waiting.cast.register("other").worker_id
        pool_id = add_pool(waiting.cast, other)
        change(waiting, pool_id=pool_id, prefer_seconds=60)
        waiting.call(other)
        assert told(waiting) == []

    def test_a_pool_is_not_told_if_the_runs_own_worker_is_online(self, of_pool):
        own = of_pool.cast.register("own").worker_id
        change(of_pool, worker_id=own)
        of_pool.wait(hours=1)
        of_pool.call(own)
        assert told(of_pool) == []
        Worker.objects.filter(id=own).update(disabled_at=of_pool.now)
        assert told(of_pool) == [("pool_offline", "pool_offline", of_pool.pool_id)]


class TestALateTrigger:
    @pytest.fixture
    def due(self, runs):
        """Returns the runs of a trigger that is due now and has to succeed within an hour."""
        change(runs, schedule="0 12 * * *", success_deadline_seconds=3600)
        runs.now = database_now().replace(hour=12, minute=0, second=0, microsecond=0) + timedelta(
            days=2
        )
        Trigger.objects.filter(id=runs.trigger_id).update(next_run_at=runs.now)
        return runs

    def test_is_told_a_minute_after_no_scheduler_came(self, due):
        due.wait(minutes=1)
        assert told(due) == []
        due.wait(seconds=1)
        assert told(due) == [("trigger_late", "pending", due.trigger_id)]
        assert items(due)[0]["incident_id"] is None

    @pytest.mark.parametrize("decision", ["fired", "skipped_no_worker", "pending"])
    def test_is_told_by_what_was_decided(self, due, decision):
        if decision == "skipped_no_worker":
            change(due, worker_id=None)
            Trigger.objects.filter(id=due.trigger_id).update(next_run_at=due.now)
        if decision != "pending":
            fire_due_ticks(now=due.now)
            assert Tick.objects.get(trigger_id=due.trigger_id).decision == decision
        due.wait(hours=2)
        due.call(due.cast.worker.worker_id)
        find_late_triggers(now=due.now)
        found = [item for item in items(due) if item["kind"] == "trigger_late"]
        assert [(item["reason"], item["subject"]["id"]) for item in found] == [
            (decision, due.trigger_id)
        ]
        assert found[0]["incident_id"] is not None
        skipped = "It made no run, because the trigger had neither a machine nor a pool."
        assert (skipped in found[0]["summary"]) is (decision == "skipped_no_worker")


def test_a_channel_that_reaches_nobody_is_told(runs):
    channel = add_channel(runs.cast, name="Team")
    rows = Channel.objects.filter(id=channel.id)
    rows.update(failing_since=runs.now, last_error="answered 410")
    (item,) = items(runs)
    assert (item["kind"], item["error"], item["since"]) == (
        "channel_dead", "answered 410", runs.now,
    )  # fmt: skip
    assert item["subject"] == {"type": "channel", "id": channel.id, "name": "Team"}
    rows.update(enabled=False)
    assert items(runs) == []


def test_a_call_that_waits_for_a_decision_is_told_until_somebody_decides(runs):
    run_id = runs.waiting()
    approval_id = runs.approval_of(run_id)["id"]
    (item,) = items(runs)
    assert (item["kind"], item["run_id"], item["since"]) == ("approval", run_id, runs.now)
    assert item["subject"] == {"type": "approval", "id": approval_id, "name": "Nightly report"}
    assert "wants to call send_mail, and waits until 2026-05-04 12:10 UTC" in item["summary"]
    runs.decide(run_id, approve=False)
    assert items(runs) == []


def add_incidents(cast, kind, count=1):
    found = [Finding(cast.environment.id, new_id(), "It", "It broke.") for _ in range(count)]
    with transaction.atomic():
        change_incidents(kind, begun=found)
    return [each.subject_id for each in found]


def test_what_is_acknowledged_comes_last_then_kinds_count_and_then_the_newest(runs):
    cast = runs.cast
    (seen,) = add_incidents(cast, Kind.POOL_OFFLINE)
    acknowledge_incident(incident_id=Incident.objects.get(subject_id=seen).id, actor=TEST_ACTOR)
    kinds = {kind.value: add_incidents(cast, kind)[0] for kind in reversed(Kind)}
    (newest,) = add_incidents(cast, Kind.TRIGGER_FAILING)
    order = [kinds[kind] for kind in KINDS if kind in kinds]
    order.insert(order.index(kinds["trigger_failing"]), newest)
    assert [id_ for *_, id_ in told(runs)] == [*order, seen]


def test_the_most_urgent_are_shown_and_all_are_counted(runs):
    change(runs, alert_after_failures=None)
    runs.ended("failed", faultClass="client")
    add_incidents(runs.cast, Kind.TRIGGER_FAILING, MAX_ITEMS + 50)
    (late,) = add_incidents(runs.cast, Kind.TRIGGER_LATE)
    found, total = find_attention(runs.cast.environment.id, now=runs.now)
    assert (len(found), total) == (MAX_ITEMS, MAX_ITEMS + 52)
    assert found[0]["subject"]["id"] == late


def test_nothing_of_another_environment_is_told(runs):
    runs.ended("failed")
    runs.queue()
    add_channel(runs.cast)
    Channel.objects.update(failing_since=runs.now, last_error="x")
    runs.wait(hours=1)
    assert len(items(runs)) == 3
    found = find_attention(runs.cast.strange_environment.id, now=runs.now)
    assert found == ([], 0)


def test_it_costs_the_same_for_fifty_items_of_each_source_as_for_one(runs):
    cast, now = runs.cast, runs.now
    add_channel(cast)
    Channel.objects.update(failing_since=now, last_error="x")
    change(runs, alert_after_failures=None)
    runs.ended("failed", faultClass="client")
    runs.queue()
    late = cast.add_trigger(worker_id=None, schedule="0 12 * * *")
    Trigger.objects.filter(id=late).update(next_run_at=now)
    add_incidents(cast, Kind.TRIGGER_FAILING)
    runs.wait(hours=1)
    with counted() as few:
        assert len(items(runs)) == 5
    add_incidents(cast, Kind.TRIGGER_FAILING, 49)
    copy_row(Channel, Channel.objects.get().id, 49)
    copy_row(Trigger, late, 49)
    copy_row(Trigger, runs.trigger_id, 49)
    Worker.objects.filter(id=cast.worker.worker_id).update(last_seen_at=None)
    with counted() as many:
        assert len(items(runs)) > 100
    assert len(few) == len(many)


def test_a_long_ledger_and_a_long_queue_are_not_read(runs):
    run_id = runs.ended(costUsd="1")
    copy_ended_run(run_id, 3000)
    queued = runs.queue()
    copy_row(Run, queued, 3000)
    runs.wait(minutes=4)
    prefer_indexes()
    with explained(("\nSELECT", "SELECT")) as plans:
        assert told(runs) == [("worker_offline", "worker_offline", runs.cast.worker.worker_id)]
    assert "run" not in plans.read_whole
    assert plans.rows_read("run") < 250


def test_a_connection_of_somebody_who_has_left_is_told_and_audited(cast):
    connection = add_oauth_connection(cast, name="Tracker")
    assert find_attention(cast.environment.id) == ([], 0)
    User.objects.filter(id=cast.admin.id).update(is_active=False)
    assert find_attention(cast.environment.id)[1] == 1
    User.objects.filter(id=cast.admin.id).update(is_active=True)
    remove_member(environment_id=cast.environment.id, user_id=cast.admin.id, actor=TEST_ACTOR)
    ((item,), total) = find_attention(cast.environment.id)
    assert (item["kind"], item["subject"]["id"], total) == (
        "connection_user_left",
        connection.id,
        1,
    )
    assert item["summary"].startswith("Connection Tracker uses the login of somebody who")
    assert item["remedy"]["text"].startswith("Let a member connect it again")
    entry = AuditEntry.objects.get(action="connection.user-left")
    assert (entry.target_id, entry.metadata) == (
        connection.id,
        {"name": "Tracker", "userId": str(cast.admin.id)},
    )


def test_a_connection_that_gets_no_token_is_told_once_its_runs_wait(cast):
    connection = add_oauth_connection(cast)
    row = Connection.objects.filter(id=connection.id)
    row.update(status="failing", error="The server answered 503.", failures=3)
    assert find_attention(cast.environment.id) == ([], 0), "its token is still good"
    row.update(fresh_until=connection.created_at)
    ((item,), _) = find_attention(cast.environment.id)
    assert (item["kind"], item["subject"]["id"]) == ("connection_failing", connection.id)
    assert (item["since"], item["error"]) == (connection.created_at, "The server answered 503.")


def test_every_kind_of_incident_has_its_place_and_its_sentences():
    told = {kind for kind, need in NEEDS.items() if isinstance(need, IncidentNeed)}
    assert told == set(Kind.values)
