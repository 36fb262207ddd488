"""`seed_demo --scale` makes a plausible year of data, at once or in parts, and the same for the same seed."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db.models import Count, F, Q

from audit.models import AuditEntry
from pipedai.sql import fetch_all
from testing.world.users import UserFactory
from triggers.models import Delivery, DeliveryAttempt, Run, RunText, Tick, Trigger
from triggers.schedules import cron
from triggers.secrets import open_mcp_headers
from triggers.states import Source, Status
from workers.demo import ledger
from workers.demo.cast import find_or_make_cast
from workers.demo.ledger import Ledger
from workers.demo.size import SCHEDULES, Size, ticks_between
from workers.models import Worker
from workspaces.encryption.keys import WrappedKey
from workspaces.models import Environment, Workspace

pytestmark = pytest.mark.long

SIZE = Size(runs=600, environments=3, seed=7)


@pytest.fixture
def slices(monkeypatch):
    """Makes the command write many small slices."""
    monkeypatch.setattr(ledger, "_RUNS_OF_A_SLICE", 40)


def scale(*arguments):
    said = StringIO()
    call_command(
        "seed_demo", "--scale", "--runs", "600", "--environments", "3", *arguments, stdout=said
    )
    return said.getvalue()


def runs_of(workspace):
    return Run.objects.filter(environment__workspace=workspace)


def test_it_makes_a_year_that_could_have_happened(own_database, settings, tmp_path, slices):
    settings.DATA_DIR = tmp_path
    scale()
    _its_runs_could_have_happened()
    _each_months_audit_rows_lie_in_its_partition()
    _once_it_is_complete_it_makes_nothing()


def _its_runs_could_have_happened():
    # The week of the demo itself is beside them.
    made = Run.objects.filter(environment__workspace__name__startswith="Scale")
    assert 600 <= made.count() < 606
    assert Environment.objects.filter(workspace__name__startswith="Scale").count() == 3
    statuses = Counter(Run.objects.values_list("status", flat=True))
    assert statuses[Status.SUCCEEDED] > 450
    assert statuses[Status.FAILED] > 10
    sources = Counter(Run.objects.values_list("source", flat=True))
    # Nothing of the demo listens to events or to other triggers.
    assert set(sources) == set(Source.values) - {Source.EVENT, Source.CHAIN}
    # Each fired tick has its run, and each scheduled run its tick.
    fired = Tick.objects.filter(decision="fired")
    assert fired.filter(run__scheduled_for=F("tick_at")).count() == sources["schedule"]
    assert fired.count() == sources["schedule"]
    # Each retry follows a run that failed because of infrastructure.
    retries = Run.objects.filter(source=Source.RETRY)
    assert retries.filter(
        retry_of__fault_class="infra", retry_of__trigger=F("trigger"), attempt=F("retry_of__attempt") + 1,
        queued_at=F("retry_of__ended_at"),
    ).count() == sources["retry"] > 0  # fmt: skip
    # No event is in the future, and the events of a run are in the right order.
    until = Workspace.objects.get(name__startswith="Scale").created_at
    assert not Run.objects.filter(Q(ended_at__gt=until) | Q(queued_at__gt=until)).exists()
    assert not Run.objects.filter(
        Q(started_at__lt=F("claimed_at")) | Q(ended_at__lt=F("started_at")) | Q(claimed_at__lt=F("available_at"))
    ).exists()  # fmt: skip
    claimed = made.filter(claimed_at__isnull=False)
    assert RunText.objects.filter(run__in=claimed).count() == claimed.count()
    # Each ended run of a trigger with a webhook has a delivery, whose `attempt_count` matches its attempts.
    hooked = Run.objects.filter(trigger__webhook_url__isnull=False, ended_at__isnull=False)
    assert Delivery.objects.count() == hooked.count() > 0
    assert sum(Delivery.objects.values_list("attempt_count", flat=True)) == (
        DeliveryAttempt.objects.count()
    )
    assert not Delivery.objects.annotate(n=Count("attempts")).exclude(n=F("attempt_count")).exists()


def _each_months_audit_rows_lie_in_its_partition():
    rows = fetch_all(
        "SELECT tableoid::regclass::text AS name, count(*) AS n,"
        " bool_and(tableoid::regclass::text = 'audit_entry_'"
        " || to_char(created_at AT TIME ZONE 'UTC', 'YYYY_MM')) AS right_place"
        " FROM audit_entry WHERE target_type = 'run' GROUP BY 1",
        {},
    )
    assert all(row["right_place"] for row in rows)
    assert len(rows) >= 12
    ended = Run.objects.filter(ended_at__isnull=False).values_list("id", flat=True)
    endings = ("run.completed", "run.lost", "run.timed-out", "run.canceled")
    told = AuditEntry.objects.filter(action__in=endings).values_list("target_id", flat=True)
    assert Counter(told) == Counter(ended)


def _once_it_is_complete_it_makes_nothing():
    before = Run.objects.count(), AuditEntry.objects.count()
    assert "is complete" in scale()
    assert (Run.objects.count(), AuditEntry.objects.count()) == before
    seeded = AuditEntry.objects.filter(action="demo.seeded", target_type="workspace")
    assert [row.metadata for row in seeded] == [{"runs": 600, "environments": 3, "seed": 1}]


def test_its_triggers_are_real_ones(own_database):
    workspace = find_or_make_cast(SIZE, UserFactory.create().id)
    triggers = Trigger.objects.filter(environment__workspace=workspace)
    for trigger in triggers.select_related("mcp_key"):
        key = WrappedKey(
            trigger.mcp_key.id, bytes(trigger.mcp_key.wrapped), trigger.mcp_key.master_key_id
        )
        assert trigger.mcp_headers is not None
        headers = open_mcp_headers(
            trigger.environment_id, trigger.id, bytes(trigger.mcp_headers), key
        )
        assert headers == {"Authorization": "Bearer not-a-real-token"}
    assert triggers.filter(schedule__isnull=False, next_run_at__isnull=False).exists()
    assert Worker.objects.filter(token_digest__isnull=False).count() == 6


def test_interrupted_it_goes_on_and_comes_to_the_same_end(own_database, slices):
    whole = find_or_make_cast(SIZE, UserFactory.create().id)
    list(Ledger(SIZE, whole).fill())

    broken = find_or_make_cast(SIZE, UserFactory.create().id)
    for slices_done in (1, 3, 2):
        filling = Ledger(SIZE, broken).fill()
        for _ in range(slices_done + 1):
            next(filling)
    done = runs_of(broken).count()
    assert 0 < done < 600
    assert next(Ledger(SIZE, broken).fill()) >= done - 6
    list(Ledger(SIZE, broken).fill())

    def figures(workspace):
        ended = runs_of(workspace).filter(ended_at__lt=workspace.created_at)
        return Counter(ended.values_list("status", "cost_usd", "attempt", "source"))

    assert sum((figures(whole) - figures(broken)).values()) < 6
    assert abs(runs_of(whole).count() - runs_of(broken).count()) < 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--runs", "5"], r"^--runs goes with --scale\.$"),
        (["--scale", "--runs", "0"], "--runs must be between"),
        (["--scale", "--environments", "0"], "--environments must be between"),
        (["--scale", "--environments", "100"], "--environments must be between 1 and 99"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(db, settings, tmp_path, arguments, sentence):
    settings.DATA_DIR = tmp_path
    with pytest.raises(CommandError, match=sentence):
        call_command("seed_demo", *arguments)
    assert not Workspace.objects.exists()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_ticks_are_those_of_the_expression(schedule):
    begin = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    end = begin + timedelta(days=2)
    moment, expected = begin, []
    while (moment := cron.parse(schedule, "UTC").next_after(moment)) < end:
        expected.append(moment.timestamp())
    assert list(ticks_between(schedule, begin.timestamp(), end.timestamp())) == expected
