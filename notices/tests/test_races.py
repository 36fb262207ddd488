"""When two things happen at the same moment on real connections, each incident is opened, closed and told once."""

from collections import Counter
from datetime import timedelta
from functools import partial

import pytest
from django.db import transaction

from audit.models import AuditEntry
from notices.health import judge_settings
from notices.incidents import acknowledge_incident, change_incidents, remind
from notices.lateness import find_late_triggers
from notices.models import Incident
from notices.silence import find_offline_workers
from notices.states import Kind
from pipedai.events import Actor
from pipedai.sql import database_now, execute
from testing.probes.statement_count import counted
from testing.processes.racing import ROUNDS, Started, accepted, at_once
from testing.world.incidents import open_incident
from testing.world.runs import Runs, allow
from triggers.models import Trigger, TriggerHealth
from workers.models import Worker


@pytest.fixture
def runs(committed_cast) -> Runs:
    allow(committed_cast.worker.worker_id, 20)
    return Runs.of(committed_cast, success_deadline_seconds=60, schedule="0 0 * * *")


@pytest.fixture(autouse=True)
def _now(runs):
    runs.now = database_now()


def told() -> Counter[str]:
    return Counter(
        AuditEntry.objects.filter(target_type="incident").values_list("action", flat=True)
    )


def health(runs: Runs) -> TriggerHealth:
    return TriggerHealth.objects.get(trigger_id=runs.trigger_id)


@pytest.mark.parametrize("round_", ROUNDS)
def test_two_schedulers_tell_each_thing_once(runs: Runs, round_: int) -> None:
    past = runs.now - timedelta(hours=1)
    Trigger.objects.filter(id=runs.trigger_id).update(
        next_run_at=past, created_at=past - timedelta(hours=1)
    )
    Worker.objects.update(last_seen_at=past)
    later = runs.now + timedelta(seconds=1)
    accepted(
        at_once(
            *[partial(find_late_triggers, now=later)] * 3,
            *[partial(find_offline_workers, now=later)] * 3,
        )
    )
    kinds = Counter(Incident.objects.values_list("kind", flat=True))
    assert kinds == {"trigger_late": 1, "worker_offline": 1}
    tomorrow = later + timedelta(days=1)
    reminded = accepted(at_once(*[partial(remind, now=tomorrow)] * 4))
    assert sum(reminded) == 2
    Worker.objects.update(last_seen_at=tomorrow, disabled_at=None)
    accepted(at_once(*[partial(find_offline_workers, now=tomorrow)] * 4))
    assert told() == {"incident.opened": 2, "incident.closed": 1}


@pytest.mark.parametrize("round_", ROUNDS)
def test_a_success_and_the_deadline_at_once_leave_nothing_late(runs: Runs, round_: int) -> None:
    """Whoever comes first: either nobody is told, or both the alarm and the recovery are, once."""
    past = runs.now - timedelta(minutes=2)
    Trigger.objects.filter(id=runs.trigger_id).update(
        next_run_at=past, created_at=past - timedelta(hours=1)
    )
    run_id = runs.running()
    later = runs.now + timedelta(seconds=1)
    accepted(
        at_once(
            partial(find_late_triggers, now=later),
            partial(runs.complete, run_id),
            partial(find_late_triggers, now=later),
        )
    )
    find_late_triggers(now=database_now() + timedelta(seconds=1))
    assert health(runs).late_since is None
    assert told() in ({}, {"incident.opened": 1, "incident.closed": 1})


def test_the_later_end_in_the_ledger_decides_whichever_commits_first(runs: Runs) -> None:
    failing, succeeding = runs.running(), runs.running()
    runs.wait(seconds=1)
    with transaction.atomic():
        runs.complete(failing, "failed")
        runs.wait(seconds=1)
        success = Started(partial(runs.complete, succeeding))
        success.wait_until_blocked()
    success.answer()
    assert not health(runs).is_failing
    assert told() == {"incident.opened": 1, "incident.closed": 1}


@pytest.mark.parametrize("round_", ROUNDS)
def test_many_ends_at_once_leave_the_verdict_of_the_ledger(runs: Runs, round_: int) -> None:
    ended = [runs.running() for _ in range(8)]
    statuses = ["failed", "succeeded"] * 4
    calls = [
        partial(runs.complete, run_id, status)
        for run_id, status in zip(ended, statuses, strict=True)
    ]
    accepted(at_once(*calls))
    # All of them ended at the same time by the test's clock; then a success counts as the last.
    assert not health(runs).is_failing
    assert Incident.objects.filter(kind="trigger_failing", closed_at__isnull=True).count() == 0


@pytest.mark.parametrize("round_", ROUNDS)
def test_first_failures_at_once_open_one_incident(runs: Runs, round_: int) -> None:
    ended = [runs.running() for _ in range(6)]
    accepted(at_once(*[partial(runs.complete, run_id, "failed") for run_id in ended]))
    assert told() == {"incident.opened": 1}


@pytest.mark.parametrize("round_", ROUNDS)
def test_acknowledging_while_it_closes_does_both(runs: Runs, round_: int) -> None:
    incident_id = open_incident(runs.cast, subject_id=runs.trigger_id)

    def close() -> None:
        with transaction.atomic():
            change_incidents(Kind.TRIGGER_FAILING, recovered=[runs.trigger_id])

    actor = Actor("user", runs.cast.owner.id)
    acknowledge = partial(acknowledge_incident, incident_id=incident_id, actor=actor)
    accepted(at_once(close, acknowledge, close, acknowledge))
    incident = Incident.objects.get()
    assert incident.closed_at is not None
    assert incident.acknowledged_by == runs.cast.owner.id
    assert told() == {"incident.opened": 1, "incident.closed": 1, "incident.acknowledged": 1}


def test_a_failure_counts_by_the_settings_that_it_waited_for(runs: Runs) -> None:
    runs.ended()
    run_id = runs.running()
    runs.wait(seconds=1)
    with transaction.atomic():
        Trigger.objects.filter(id=runs.trigger_id).update(alert_after_failures=2)
        judge_settings([runs.trigger_id])
        failure = Started(partial(runs.complete, run_id, "failed"))
        failure.wait_until_blocked()
    failure.answer()
    assert told() == {}
    assert health(runs).failures == 1


_MANY_TRIGGERS = """
INSERT INTO trigger (id, environment_id, worker_id, revision_id, name, description, mcp_url, timezone, enabled,
    max_retries, timeout_seconds, overlap_policy)
SELECT gen_random_uuid(), environment_id, worker_id, revision_id, 'many', '', mcp_url, 'UTC', true, 0, 1800, 'queue'
FROM trigger, generate_series(1, %(count)s) WHERE id = %(trigger_id)s
"""
_MANY_RUNS = """
INSERT INTO run (id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries,
    timeout_seconds, queued_at, available_at, claimed_at, lease_expires_at, deadline_at, slot)
SELECT gen_random_uuid(), environment_id, id, revision_id, worker_id, 'claimed', 'manual', 1, 0, 1800,
    %(now)s, %(now)s, %(now)s, %(now)s, %(now)s::timestamptz + interval '1 hour', row_number() OVER ()
FROM trigger WHERE name = 'many'
"""


def test_hundreds_of_triggers_that_fail_at_once_take_a_constant_number_of_statements(
    runs: Runs,
) -> None:
    execute(_MANY_TRIGGERS, {"count": 300, "trigger_id": runs.trigger_id})
    execute(_MANY_RUNS, {"now": runs.now})
    runs.wait(seconds=1)
    counts = []
    for _ in range(3):
        with counted() as statements:
            assert runs.expire() == 100
        counts.append(len(statements))
    assert len(set(counts)) == 1
    assert counts[0] < 20
    assert told() == {"incident.opened": 300}
    assert TriggerHealth.objects.filter(is_failing=True).count() == 300
