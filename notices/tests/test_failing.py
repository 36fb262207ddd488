"""When a trigger is failing, and when it has recovered."""

import pytest

from audit.models import AuditEntry
from notices.models import Incident
from testing.probes.statement_count import counted
from testing.world.cast import TEST_ACTOR
from testing.world.runs import Runs, allow
from triggers.models import TriggerHealth
from triggers.services import TRIGGERS


@pytest.fixture
def runs(cast):
    """Makes runs of a trigger that counts as failing after one failure."""
    return Runs.of(cast)


def health(runs):
    """Returns the health of the trigger, and whether an incident says that it fails; the two must always agree."""
    url = f"/api/v1/triggers/{runs.trigger_id}"
    shown = runs.cast.client(runs.cast.viewer).get(url).json()["health"]
    is_open = Incident.objects.filter(
        subject_id=runs.trigger_id, kind="trigger_failing", closed_at__isnull=True
    ).exists()
    assert is_open == (shown == "failing")
    return shown


def changed(runs, **values):
    TRIGGERS.update(runs.trigger_id, values=values, actor=TEST_ACTOR)


def told(runs):
    """Returns what the audit log says of the trigger's incidents, the first first."""
    rows = AuditEntry.objects.filter(
        target_type="incident", metadata__subjectId=str(runs.trigger_id)
    ).order_by("id")
    return [
        "recovered" if row.metadata.get("recovered") else row.action.removeprefix("incident.")
        for row in rows
    ]


def test_a_new_trigger_has_nothing_to_tell(runs):
    assert health(runs) == "idle"


def test_a_success_is_ok_and_opens_nothing(runs):
    runs.ended()
    assert health(runs) == "ok"
    assert told(runs) == []


def test_a_failure_opens_one_incident_which_a_success_closes(runs):
    run_id = runs.ended("failed")
    assert health(runs) == "failing"
    incident = Incident.objects.get(subject_id=runs.trigger_id)
    assert incident.run_id == run_id
    assert incident.subject_name == "Nightly report"
    assert incident.message == "The last run failed or timed out."
    runs.wait(hours=1)
    runs.ended("timed_out")
    assert health(runs) == "failing"
    runs.wait(hours=1)
    runs.ended()
    assert health(runs) == "ok"
    assert told(runs) == ["opened", "recovered"]


def test_as_many_failures_in_a_row_as_the_trigger_says(cast):
    runs = Runs.of(cast, alert_after_failures=3)
    for outcome, expected in (
        ("failed", "ok"), ("failed", "ok"), ("succeeded", "ok"),
        ("failed", "ok"), ("timed_out", "ok"), ("failed", "failing"),
    ):  # fmt: skip
        runs.wait(minutes=1)
        runs.ended(outcome)
        assert health(runs) == expected
    assert Incident.objects.get().message == "The last 3 runs failed or timed out."


def test_a_trigger_that_never_alarms_is_never_failing(cast):
    runs = Runs.of(cast, alert_after_failures=None)
    runs.ended("failed")
    assert health(runs) == "ok"


def test_a_failure_that_a_retry_follows_is_no_outcome(runs):
    first = runs.ended("failed", faultClass="infra")
    assert health(runs) == "idle"
    runs.complete(runs.claimed_retry_of(first))
    assert health(runs) == "ok"
    assert told(runs) == []


def test_the_last_retry_that_fails_is_an_outcome(cast):
    runs = Runs.of(cast, max_retries=1)
    first = runs.ended("failed", faultClass="infra")
    runs.complete(runs.claimed_retry_of(first), "failed", faultClass="infra")
    assert health(runs) == "failing"


def test_a_canceled_run_is_no_outcome(runs):
    runs.cancel(runs.queue())
    assert health(runs) == "idle"
    runs.ended("failed")
    runs.wait(minutes=1)
    runs.cancel(runs.queue())
    assert health(runs) == "failing"


def test_a_lost_run_alarms_and_its_late_success_recovers(cast):
    runs = Runs.of(cast, max_retries=0)
    run_id = runs.lost()
    assert health(runs) == "failing"
    runs.wait(seconds=5)
    runs.complete(run_id)
    assert health(runs) == "ok"
    assert told(runs) == ["opened", "recovered"]


def test_a_late_failure_is_not_counted_twice(cast):
    runs = Runs.of(cast, max_retries=0, alert_after_failures=2)
    run_id = runs.lost()
    runs.wait(seconds=5)
    runs.complete(run_id, "failed")
    assert health(runs) == "ok"
    runs.wait(seconds=5)
    runs.ended("failed")
    assert health(runs) == "failing"


def test_a_late_result_that_cancels_takes_the_failure_back(cast):
    runs = Runs.of(cast, max_retries=0)
    runs.ended()
    runs.wait(minutes=1)
    run_id = runs.running()
    runs.cancel(run_id)
    runs.overdue(run_id)
    assert health(runs) == "failing"
    runs.complete(run_id, "canceled")
    assert health(runs) == "ok"
    assert told(runs) == ["opened", "recovered"]


def test_disabling_closes_without_a_word_and_enabling_begins_anew(runs):
    runs.ended("failed")
    changed(runs, enabled=False)
    assert health(runs) == "idle"
    changed(runs, enabled=True)
    assert health(runs) == "idle"
    assert told(runs) == ["opened", "closed"]


def test_a_change_of_the_number_of_failures_counts_at_once(runs):
    runs.ended("failed")
    changed(runs, alert_after_failures=2)
    assert health(runs) == "ok"
    changed(runs, alert_after_failures=1)
    assert health(runs) == "failing"
    changed(runs, alert_after_failures=None)
    assert health(runs) == "ok"
    assert told(runs) == ["opened", "closed", "opened", "closed"]


def test_deleting_the_trigger_closes_its_incidents(runs):
    runs.ended("failed")
    TRIGGERS.delete(runs.trigger_id, actor=TEST_ACTOR)
    assert told(runs) == ["opened", "closed"]
    assert not Incident.objects.filter(closed_at__isnull=True).exists()


def test_a_first_outcome_may_be_a_late_failure_that_cancels_the_retry(runs):
    run_id = runs.lost()
    assert health(runs) == "idle"
    runs.wait(seconds=1)
    runs.complete(run_id, "failed")
    assert health(runs) == "failing"


def test_a_change_of_a_trigger_that_failed_before_it_was_watched(runs):
    runs.ended("failed")
    TriggerHealth.objects.all().delete()
    Incident.objects.all().delete()
    assert health(runs) == "idle"
    changed(runs, alert_after_failures=2)
    assert health(runs) == "ok"
    changed(runs, alert_after_failures=1)
    assert health(runs) == "failing"


def test_another_success_costs_one_statement_that_writes_nothing(runs):
    runs.ended()
    run_id = runs.running()
    runs.wait(seconds=1)
    with counted() as statements:
        runs.complete(run_id)
    (only,) = [
        sql
        for sql in statements.sql
        if any(table in sql for table in ("trigger_health", "incident", "channel", "notice"))
    ]
    assert only.lstrip().startswith("SELECT")


def pause(runs, paused, **values):
    url = f"/api/v1/environments/{runs.cast.environment.id}"
    answer = runs.cast.client(runs.cast.admin).patch(url, {"paused": paused, **values})
    assert answer.status_code == 200


def test_a_failure_while_the_environment_is_paused_is_told_when_the_pause_ends(runs):
    run_id = runs.running()
    pause(runs, True)
    runs.complete(run_id, "failed")
    assert (health(runs), told(runs)) == ("paused", [])
    changed(runs, alert_after_failures=1, success_deadline_seconds=3600)
    assert (health(runs), told(runs)) == ("paused", [])
    pause(runs, False)
    assert (health(runs), told(runs)) == ("failing", ["opened"])
    assert Incident.objects.get(subject_id=runs.trigger_id).run_id == run_id


def test_a_trigger_that_failed_before_the_pause_goes_on_failing_until_a_run_succeeds(runs):
    held = runs.running()
    allow(runs.cast.worker.worker_id, 2)
    runs.ended("failed")
    pause(runs, True)
    changed(runs, success_deadline_seconds=3600)
    assert (health(runs), told(runs)) == ("failing", ["opened"])
    runs.complete(held)
    assert (health(runs), told(runs)) == ("paused", ["opened", "recovered"])
    pause(runs, False)
    assert health(runs) == "ok"


def test_a_run_that_no_worker_started_in_time_is_a_final_outcome(cast):
    runs = Runs.of(cast, start_deadline_seconds=60, max_retries=3)
    runs.queue()
    runs.wait(minutes=1)
    assert runs.expire_queued() == 1
    assert (health(runs), told(runs)) == ("failing", ["opened"])
