"""A lease counts only time in which its worker could have renewed it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from pipedai.server.heart import Heart
from pipedai.server.listen import connect_as_requests
from pipedai.sql import execute, fetch_one
from testing.world.runs import Runs
from triggers.heartbeats import (
    KEEP_SECONDS,
    beat_of_this_process,
    gap_seconds,
    grace_seconds,
)
from triggers.models import Run, WebHeartbeat
from triggers.runs.lifecycle import expire_runs


def beat(process):
    """Writes one heartbeat, as the event loop does."""
    execute(process.statement, process.params)


def since():
    """Returns the seconds since when the service counts as reachable, by the newest heartbeat."""
    row = fetch_one(
        "SELECT extract(epoch FROM statement_timestamp() - reachable_since)::float AS seconds"
        " FROM web_heartbeat ORDER BY beat_at DESC LIMIT 1",
        {},
    )
    assert row is not None
    return row["seconds"]


def age(process, seconds):
    """Makes a process's heartbeats that much older, as if nothing had happened since."""
    execute(
        "UPDATE web_heartbeat SET beat_at = beat_at - make_interval(secs => %(s)s),"
        " reachable_since = reachable_since - make_interval(secs => %(s)s) WHERE id = %(id)s",
        {"s": seconds, "id": process.params["id"]},
    )


@pytest.fixture
def nobody_beats(db):
    WebHeartbeat.objects.all().delete()


@pytest.fixture
def lost(cast, nobody_beats):
    """Makes a run whose worker has been silent for longer than its lease, and returns its id."""
    runs = Runs.of(cast)
    run_id = runs.running()
    past, future = (datetime(year, 1, 1, tzinfo=UTC) for year in (2020, 9999))
    Run.objects.filter(id=run_id).update(lease_expires_at=past, deadline_at=future)
    return run_id


@pytest.mark.parametrize(
    ("lease", "gap", "grace"),
    [(180, 30, 60), (86_400, 30, 60), (60, 10, 30), (6, 2, 3), (1, 2, 0.5)],
)
def test_the_times_follow_from_the_lease(settings, lease, gap, grace):
    settings.RUN_LEASE_SECONDS = lease
    assert (gap_seconds(), grace_seconds()) == (gap, grace)
    web = beat_of_this_process()
    assert web.every_seconds == pytest.approx(gap / 3)
    assert web.patience_seconds > gap


def test_without_a_web_process_no_run_is_given_up(lost):
    assert expire_runs() == 0


def test_nor_within_the_grace_after_an_outage(lost):
    web = beat_of_this_process()
    beat(web)
    assert expire_runs() == 0
    age(web, grace_seconds() - 2)
    beat(web)
    # The process's own last beat was too long ago: that was an outage, and the grace begins anew.
    assert since() < 1
    assert expire_runs() == 0


def test_after_it_the_run_is_given_up(lost):
    web = beat_of_this_process()
    beat(web)
    for _ in range(4):
        age(web, gap_seconds() - 1)
        beat(web)
    assert since() >= grace_seconds()
    assert expire_runs() == 1
    run = Run.objects.get(id=lost)
    assert (run.status, run.ended_by) == ("failed", "lease")


def test_a_deadline_counts_nevertheless(lost):
    Run.objects.filter(id=lost).update(deadline_at=datetime(2020, 1, 2, tzinfo=UTC))
    assert expire_runs() == 1
    run = Run.objects.get(id=lost)
    assert (run.status, run.ended_by) == ("timed_out", "deadline")


def test_a_deployment_that_replaces_all_processes_within_the_gap_is_no_outage(nobody_beats):
    before, after = beat_of_this_process(), beat_of_this_process()
    beat(before)
    age(before, gap_seconds() - 1)
    beat(after)
    assert since() == pytest.approx(gap_seconds() - 1, abs=1)
    age(before, KEEP_SECONDS)
    beat(after)
    assert WebHeartbeat.objects.count() == 1


def test_a_process_that_was_suspended_for_longer_than_its_row_is_kept_begins_anew(nobody_beats):
    web = beat_of_this_process()
    beat(web)
    age(web, KEEP_SECONDS + 1)
    beat(web)
    assert WebHeartbeat.objects.count() == 1
    assert since() < 1


def test_a_clock_of_the_database_that_jumps_ahead_ends_no_run(lost):
    web = beat_of_this_process()
    beat(web)
    age(web, 3600)  # As if the clock had jumped by an hour: all that was written is older now.
    assert expire_runs() == 0
    beat(web)
    assert expire_runs() == 0


def test_a_slower_replacement_is_one(nobody_beats):
    before, after = beat_of_this_process(), beat_of_this_process()
    beat(before)
    age(before, gap_seconds() + 1)
    beat(after)
    assert since() < 1


def test_the_event_loop_beats_and_says_when_it_can_not(own_database):
    WebHeartbeat.objects.all().delete()
    failures = []

    async def failed():
        failures.append(True)

    async def beating(connect):
        heart = asyncio.create_task(Heart(connect, failed).run())
        await asyncio.sleep(0.5)
        heart.cancel()
        await asyncio.gather(heart, return_exceptions=True)

    async def dead():
        raise ConnectionError

    asyncio.run(beating(dead))
    assert (WebHeartbeat.objects.count(), failures) == (0, [True])
    asyncio.run(beating(connect_as_requests))
    row = WebHeartbeat.objects.get()
    assert row.beat_at - row.reachable_since < timedelta(seconds=1)
    assert failures == [True]
