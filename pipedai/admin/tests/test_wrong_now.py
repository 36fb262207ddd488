"""The start page begins with what is wrong now, across all tenants. Each figure leads to the rows that it counts."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models.functions import Now

from notices.models import Channel, Incident
from notices.states import Kind, SubjectType
from pipedai.admin.site import list_of
from pipedai.admin.tests.test_pages import ids_in
from pipedai.ids import new_id
from pipedai.sql import execute
from testing.probes.plan_nodes import nodes
from testing.probes.plans import explained, prefer_indexes
from testing.probes.statement_count import counted
from testing.world.channels import add_channel
from testing.world.copies import add_copies
from testing.world.runs import NOON, Runs
from triggers.models import Delivery, Run, SchedulerHeartbeat


def add_incident(environment, kind: Kind, subject: SubjectType, **values) -> str:
    incident = Incident.objects.create(
        environment=environment, kind=kind, subject_type=subject, subject_id=new_id(), **values
    )
    return str(incident.id)


@pytest.fixture
def wrong(cast):
    """Makes what is wrong and what was, and returns the ids of the rows that each figure counts."""
    now = datetime.now(UTC)
    here, elsewhere = cast.environment, cast.strange_environment
    failing = add_incident(here, Kind.TRIGGER_FAILING, SubjectType.TRIGGER)
    late = add_incident(elsewhere, Kind.TRIGGER_LATE, SubjectType.TRIGGER)
    reached = add_incident(here, Kind.BUDGET_REACHED, SubjectType.BUDGET)
    add_incident(here, Kind.TRIGGER_LATE, SubjectType.TRIGGER, closed_at=now + timedelta(minutes=1))
    runs = Runs.of(cast)
    runs.now = now
    failures = {str(runs.ended("failed")), str(runs.ended("timed_out"))}
    runs.ended("succeeded")
    runs.wait(days=-1)
    runs.ended("failed")
    channels = [add_channel(cast, name=name) for name in ("dead", "well", "disabled", "deleted")]
    broken = Channel.objects.exclude(id=channels[1].id)
    broken.update(failing_since=now, last_error="answered 500")
    Channel.objects.filter(id=channels[2].id).update(enabled=False)
    Channel.objects.filter(id=channels[3].id).update(deleted_at=now)
    runs.now = now
    old = runs.queue()
    Run.objects.filter(id=old).update(queued_at=now - timedelta(hours=2))
    runs.queue()
    delivery = Delivery.objects.create(
        environment=here, trigger_id=runs.trigger_id, message_id="late", url="https://hooks.example/", body="{}",
        host="hooks.example", next_attempt_at=now - timedelta(hours=1),
    )  # fmt: skip
    SchedulerHeartbeat.objects.all().delete()
    return {
        "Schedulers alive": set(),
        "Runs queued for an hour": {str(old)},
        "Deliveries overdue": {str(delivery.id)},
        "Open incidents": {failing, late, reached},
        "Late triggers": {late},
        "Failures today (UTC)": failures,
        "Budgets reached": {reached},
        "Failing channels": {str(channels[0].id)},
    }


def figures(desk):
    return desk.get("/admin/").context["figures"]


def test_each_figure_counts_the_rows_of_the_list_to_which_it_leads(desk, wrong):
    shown = figures(desk)
    assert [each.label for each in shown] == list(wrong)
    for each in shown:
        assert set(ids_in(desk.get(each.href))) == wrong[each.label], each
        assert (each.value, each.is_alarm) == (str(len(wrong[each.label])), True)
    page = desk.get("/admin/").content.decode()
    assert 0 < page.index("Open incidents") < page.index("Find a customer")


def test_nothing_wrong_is_no_alarm(desk):
    SchedulerHeartbeat.objects.create(host="here", pid=1, started_at=Now(), beat_at=Now())
    schedulers, *others = figures(desk)
    assert (schedulers.value, schedulers.is_alarm) == ("1", False)
    assert {(each.value, each.is_alarm) for each in others} == {("0", False)}


def test_the_figures_read_only_what_is_wrong_of_a_large_ledger(desk, cast, wrong):
    runs = Runs.of(cast)
    runs.now = datetime.now(UTC)
    add_copies(Run, runs.ended("succeeded"), 3000)
    prefer_indexes()
    with counted() as statements, explained("SELECT COUNT(*) FROM (") as plans:
        figures(desk)
    assert len([sql for sql in statements.sql if sql.startswith("SELECT COUNT(*) FROM (")]) == 8
    assert not plans.read_whole
    # One row more is read: a run that is queued, but not for an hour.
    assert plans.rows_of_all_scans <= sum(map(len, wrong.values())) + 1


def test_a_list_of_one_environment_can_not_read_the_failures_of_all(cast):
    runs = f"/api/v1/environments/{cast.environment.id}/runs?status=failed&endedFrom={NOON:%FT%TZ}"
    execute("DROP INDEX run_ended_figures, run_ended_cost, run_listed, run_of_source", {})
    prefer_indexes()
    with explained("SELECT") as plans:
        assert cast.client(cast.viewer).get(runs).status_code == 200
    used = {node.get("Index Name") for plan in plans.plans for node in nodes(plan)}
    assert "run_failed" not in used


def test_lists_of_what_is_wrong_do_not_fail_for_words_that_they_lack(desk, wrong):
    for model in (Incident, Channel):
        assert ids_in(desk.get(list_of(model), {"state": "nonsense"})) == []
