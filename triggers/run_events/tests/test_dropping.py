"""Days of run events are made ahead of time, and dropped as whole partitions when they are old."""

from datetime import UTC, datetime, time, timedelta

import pytest

from pipedai.api.renderers import iso_time
from pipedai.retention import Order, prune, retentions
from pipedai.sql import database_now, fetch_all, fetch_one
from testing.processes.worker_calls import WorkerCalls
from testing.world.instants import INSTANTS
from testing.world.runs import Runs
from testing.world.undone import undone
from triggers.models import RunEventBatch, RunEventDay, RunEventLog
from triggers.pruning import DAYS_AHEAD, add_partitions
from triggers.run_events.recording import make_event, store_events


def partitions():
    """Returns the names of the daily partitions."""
    found = fetch_all(
        "SELECT inhrelid::regclass::text AS name FROM pg_inherits"
        " WHERE inhparent = 'run_event_batch'::regclass ORDER BY 1",
        {},
    )
    return [row["name"] for row in found if not row["name"].endswith("default")]


def name_of(day):
    return f"run_event_batch_{day:%Y_%m_%d}"


def add(day):
    fetch_one("SELECT run_event_add_partition(%(day)s)", {"day": day})


@pytest.fixture
def run(cast):
    return Runs.of(cast, record_events="always").running()


@pytest.fixture
def today(db):
    return database_now().astimezone(UTC).date()


def drop(days=14, **options):
    (retention,) = [each for each in retentions() if each.kind == "run-events"]
    return list(prune(retention, days=days, limit=100, **options))


def test_partitions_are_made_for_today_and_the_days_after(today):
    add_partitions()
    assert add_partitions() == 0
    wanted = [name_of(today + timedelta(days=n)) for n in range(DAYS_AHEAD + 1)]
    assert set(wanted) <= set(partitions())


def test_days_are_made_counted_and_dropped_at_each_instant_of_the_calendar(cast, run):
    WorkerCalls(cast.worker).events(run, 1)
    for now in INSTANTS.values():
        with undone():
            add_partitions(now=now)
            days = [now.date() + timedelta(days=n) for n in range(DAYS_AHEAD + 1)]
            assert {name_of(day) for day in days} <= set(partitions())
            event = make_event(2, at=iso_time(now), type_="text", text="Hello", data=None)
            store_events(worker_id=cast.worker.worker_id, run_id=run, events=[event], now=now)
            assert RunEventDay.objects.filter(day=days[0]).count() == 1
            (retention,) = [each for each in retentions() if each.kind == "run-events"]
            midnight = datetime.combine(days[1], time(), UTC)
            list(retention.prune(Order(midnight - timedelta(microseconds=1), 100)))
            assert name_of(days[0]) in partitions()
            assert RunEventDay.objects.filter(day=days[0]).count() == 1
            list(retention.prune(Order(midnight, 100)))
            assert name_of(days[0]) not in partitions()
            assert name_of(days[1]) in partitions()
            assert not RunEventDay.objects.filter(day=days[0]).exists()


def test_old_days_are_dropped_whole_with_what_was_counted(cast, run, today):
    WorkerCalls(cast.worker).events(run, 1)
    old, kept = today - timedelta(days=16), today - timedelta(days=13)
    for day in (old, kept):
        add(day)
        RunEventDay.objects.create(environment=cast.environment, day=day, bytes=1)
        moment = datetime(day.year, day.month, day.day, 12, tzinfo=UTC)
        RunEventBatch.objects.create(
            environment_id=cast.environment.id, run_id=run, first_seq=9, last_seq=9,
            stored_at=moment, bytes=1, events=["{}"],
        )  # fmt: skip
    drop(dry_run=True)
    assert name_of(old) in partitions()
    drop()
    assert name_of(old) not in partitions()
    assert name_of(kept) in partitions()
    assert sorted(RunEventDay.objects.values_list("day", flat=True)) == [kept, today]
    assert RunEventBatch.objects.count() == 2


def test_strays_in_the_default_partition_are_deleted(cast, run):
    for days in (400, 401, 1):
        RunEventBatch.objects.create(
            environment_id=cast.environment.id, run_id=run, first_seq=days, last_seq=days,
            stored_at=database_now() - timedelta(days=days), bytes=1, events=["{}"],
        )  # fmt: skip
    drop()
    assert [batch.first_seq for batch in RunEventBatch.objects.all()] == [1]


def test_the_events_of_a_pruned_run_go_with_it(cast):
    runs = Runs.of(cast, record_events="always", webhook_url=None)
    run = runs.running()
    WorkerCalls(cast.worker).events(run, 1)
    runs.complete(run)
    (retention,) = [each for each in retentions() if each.kind == "runs"]
    list(prune(retention, days=1, limit=100))
    assert not RunEventLog.objects.exists()
    assert not RunEventBatch.objects.exists()
