"""GET /environments/:envId/dashboard/overview"""

from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from django.db.models.functions import Now

from notices.overview import _DUE, MOST_DUE, due_until
from pipedai.sql import database_now, execute, fetch_all
from testing.probes.plans import explained
from testing.probes.shapes import invalid
from testing.world.cast import make_cast
from testing.world.copied_rows import copy_ended_run
from testing.world.incidents import open_incident
from testing.world.instants import INSTANTS, ZONES
from testing.world.runs import Runs
from triggers.budgets.spending import period_around
from triggers.models import Run, Trigger
from triggers.runs.stats import run_figures
from workers.models import ONLINE_WITHIN, Worker

MINUTE = timedelta(minutes=1)
NOBODY_DID_ANYTHING = {
    "onlineWorkers": 0,
    "waiting": {"person": 0, "machine": 0},
    "attention": 0,
    "approvals": 0,
    "todaysRuns": 0,
    "nothingNewToday": 0,
    "successRatePct": None,
    "monthTokenSpendUsd": 0,
    "nextDue": None,
    "dueToday": [],
}


@pytest.fixture
def url(cast):
    return f"/api/v1/environments/{cast.environment.id}/dashboard/overview"


@pytest.fixture
def today(cast):
    """Returns runs whose clock shows the present, so that they belong to today."""
    return Runs(cast, cast.trigger_id, now=datetime.now(UTC))


def read(cast, url, **query):
    response = cast.client(cast.viewer).get(url, query)
    assert response.status_code == 200
    return response.json()


def test_an_environment_in_which_nothing_happened(cast, url):
    assert read(cast, url) == NOBODY_DID_ANYTHING


def test_the_figures_of_a_day(cast, url, today):
    Worker.objects.update(last_seen_at=Now())
    today.ended("succeeded", costUsd="0.012")
    today.ended("succeeded", costUsd="1.5")
    today.ended("failed", faultClass="client", costUsd=2)
    today.cancel(today.queue())
    today.queue()
    assert read(cast, url) == {
        "onlineWorkers": 1,
        "waiting": {"person": 0, "machine": 1},
        "attention": 1,
        "approvals": 0,
        "todaysRuns": 5,
        "nothingNewToday": 0,
        "successRatePct": 66.7,
        "monthTokenSpendUsd": 3.512,
        "nextDue": None,
        "dueToday": [],
    }


def test_the_next_due_trigger_is_told(cast, url):
    later = {"schedule": "0 6 * * *", "timezone": "Europe/Berlin"}
    cast.add_trigger(name="Off", enabled=False, **later)
    for minutes, name in ((90, "Later"), (30, "Next"), (60, "Between")):
        due = datetime(2026, 5, 4, 12, tzinfo=UTC) + timedelta(minutes=minutes)
        Trigger.objects.filter(id=cast.add_trigger(name=name, **later)).update(next_run_at=due)
    assert read(cast, url)["nextDue"] == {
        "triggerId": str(Trigger.objects.get(name="Next").id),
        "triggerName": "Next",
        "at": "2026-05-04T12:30:00.000Z",
        "timezone": "Europe/Berlin",
    }


def test_what_waits_for_a_person_or_a_machine_is_counted_and_what_needs_attention(cast, url):
    runs = Runs.of(cast)
    runs.now = database_now()
    run_id = runs.waiting()
    late = Runs(cast, cast.trigger_id, now=database_now())
    late.queue()
    Run.objects.filter(id=late.queue()).update(available_at=Now() + timedelta(hours=1))
    open_incident(cast)
    found = read(cast, url)
    assert found["waiting"] == {"person": 1, "machine": 1}
    assert found["approvals"] == 1
    attention = cast.client(cast.viewer).get(url.replace("dashboard/overview", "attention")).json()
    assert found["attention"] == attention["total"] >= 2
    runs.cancel(run_id)
    assert read(cast, url)["waiting"]["person"] == 0


def due(cast, name, at, schedule, timezone="UTC", **values):
    trigger_id = cast.add_trigger(name=name, schedule=schedule, timezone=timezone, **values)
    Trigger.objects.filter(id=trigger_id).update(next_run_at=at)
    return trigger_id


def told(cast, end):
    found = fetch_all(_DUE, {"environment_id": cast.environment.id, "now": None})
    return [
        (f"{row['at']:%H:%M}", row["count"], row["trigger_name"]) for row in due_until(end, found)
    ]


def test_the_due_times_until_midnight_are_told_with_the_first_trigger_by_name(cast):
    noon, midnight = datetime(2026, 5, 4, 12, tzinfo=UTC), datetime(2026, 5, 5, tzinfo=UTC)
    due(cast, "b", noon, "0 */4 * * *")
    due(cast, "a", noon + timedelta(hours=4), "0 16 * * *")
    due(cast, "c", noon, "0 14 * * *", "Europe/Berlin")
    gone = due(cast, "Z", noon + timedelta(hours=8), "30 18-20 * * *")
    Trigger.objects.filter(id=gone).update(timezone="Mars/Gone")
    due(cast, "tomorrow", midnight, "0 0 * * *")
    assert told(cast, midnight) == [("12:00", 2, "b"), ("16:00", 2, "a"), ("20:00", 2, "Z")]
    assert told(cast, noon) == []


def test_the_due_times_are_twenty_at_most_and_end_where_thousands_recur(cast, monkeypatch):
    noon, midnight = datetime(2026, 5, 4, 12, tzinfo=UTC), datetime(2026, 5, 5, tzinfo=UTC)
    due(cast, "each minute", noon, "* * * * *")
    for n in range(3):
        due(cast, f"other {n}", noon, f"{n} 0-23 * * *")
    found = told(cast, midnight)
    assert len(found) == MOST_DUE
    assert found[:3] == [
        ("12:00", 4, "each minute"),
        ("12:01", 2, "each minute"),
        ("12:02", 2, "each minute"),
    ]
    monkeypatch.setattr("notices.overview._MOST_RECURRING", 6)
    assert told(cast, midnight) == found[:3]


@pytest.mark.parametrize("instant", INSTANTS)
def test_what_is_due_ends_with_the_day_at_each_instant_of_the_calendar(cast, instant):
    now = INSTANTS[instant]
    due(cast, "hourly", now.replace(minute=0, second=0) + timedelta(hours=1), "0 * * * *")
    for zone in ZONES:
        _, midnight = period_around(now, "day", zone)
        times = due_until(
            midnight, fetch_all(_DUE, {"environment_id": cast.environment.id, "now": None})
        )
        assert all(now < row["at"] < midnight for row in times)
        assert (
            len(times) == MOST_DUE or not times or midnight - times[-1]["at"] <= timedelta(hours=1)
        )


def test_online_workers_are_counted_disabled_or_not(cast, url):
    cast.register("host-2")
    cast.register("host-3")
    Worker.objects.update(last_seen_at=Now())
    Worker.objects.filter(hostname="host-2").update(disabled_at=Now())
    Worker.objects.filter(hostname="host-3").update(last_seen_at=Now() - ONLINE_WITHIN)
    assert read(cast, url)["onlineWorkers"] == 2


@pytest.mark.parametrize(
    ("ended", "rate"),
    [
        (["succeeded"], 100.0),
        (["failed"], 0.0),
        (["timed_out", "succeeded", "succeeded"], 66.7),
        (["failed"] * 2 + ["succeeded"], 33.3),
    ],
)
def test_the_rate_is_of_what_ended_but_for_what_was_canceled(cast, url, today, ended, rate):
    for status in ended:
        today.ended(status, faultClass="client" if status != "succeeded" else "none")
    today.cancel(today.queue())
    assert read(cast, url)["successRatePct"] == rate


def test_canceled_runs_alone_have_no_rate(cast, url, today):
    today.cancel(today.queue())
    assert read(cast, url)["successRatePct"] is None


def test_nothing_of_another_environment_counts(cast, url, today):
    today.ended("succeeded", costUsd=5)
    strange = f"/api/v1/environments/{cast.strange_environment.id}/dashboard/overview"
    assert cast.client(cast.stranger).get(strange).json() == NOBODY_DID_ANYTHING


@pytest.mark.parametrize(
    ("zone", "midnight", "first"),
    [
        ("UTC", datetime(2026, 5, 4, tzinfo=UTC), datetime(2026, 5, 1, tzinfo=UTC)),
        ("Asia/Tokyo", datetime(2026, 5, 3, 15, tzinfo=UTC), datetime(2026, 4, 30, 15, tzinfo=UTC)),
        (
            "America/New_York",
            datetime(2026, 5, 4, 4, tzinfo=UTC),
            datetime(2026, 5, 1, 4, tzinfo=UTC),
        ),
    ],
)
def test_the_day_and_the_month_begin_at_midnight_in_the_zone(cast, zone, midnight, first):
    """It is noon (UTC) of 4 May 2026 here, which is the same day in each of these zones."""
    ledger = Runs(cast, cast.trigger_id)
    before, after = (
        ledger.ended("succeeded", costUsd=1),
        ledger.ended("failed", faultClass="client", costUsd=2),
    )

    def figures(earlier, later):
        for run_id, moment in ((before, earlier), (after, later)):
            Run.objects.filter(id=run_id).update(
                queued_at=moment,
                available_at=moment,
                claimed_at=moment,
                started_at=moment,
                ended_at=moment,
            )
        noon = datetime(2026, 5, 4, 12, tzinfo=UTC)
        return run_figures(environment_id=cast.environment.id, timezone=zone, now=noon)

    moment = timedelta(microseconds=1)
    day = figures(midnight - moment, midnight)
    assert (day["todays_runs"], day["success_rate"]) == (1, 0)
    month = figures(first - moment, first)
    assert (month["todays_runs"], month["month_cost_usd"]) == (0, 2)


def days_beginning(cast, zone, now):
    """Returns how many of two runs the overview counts as the day's: one that was queued when the day of a budget
    begins, and one a microsecond before. It should be one.
    """
    begin, _ = period_around(now, "day", zone)
    execute(
        "UPDATE run SET available_at = %(begin)s, queued_at = %(begin)s - n.n * interval '1 microsecond'"
        " FROM (SELECT id, row_number() OVER () - 1 AS n FROM run) n WHERE n.id = run.id",
        {"begin": begin},
    )
    environment_id = cast.environment.id
    return run_figures(environment_id=environment_id, timezone=zone, now=now)["todays_runs"]


@pytest.fixture
def two_runs(cast):
    ledger = Runs.of(cast)
    ledger.queue()
    ledger.queue()


@pytest.mark.usefixtures("two_runs")
def test_the_day_begins_as_that_of_budgets_at_each_instant_of_the_calendar(cast):
    for zone in ZONES:
        for instant, now in INSTANTS.items():
            assert days_beginning(cast, zone, now) == 1, f"{instant}, {zone}"


@pytest.mark.usefixtures("two_runs")
def test_the_day_begins_as_that_of_budgets_at_each_coming_clock_change_of_every_zone(cast):
    """Zones with the same day at the same change are asked once, but those that have the name of a time always."""
    start = database_now().replace(second=0, microsecond=0)
    july, asked = start.replace(month=7, day=15, hour=12), set()
    for zone in sorted(available_timezones() - {"Factory"}):
        is_abbreviation = "/" not in zone
        coming = [july] if is_abbreviation else []
        for change in changes_after(start, zone):
            coming += [change, change + timedelta(minutes=30)]
        for now in coming:
            case = (now, period_around(now, "day", zone)[0], is_abbreviation and zone)
            if case not in asked:
                asked.add(case)
                assert days_beginning(cast, zone, now) == 1, f"{now}, {zone}"
    assert len(asked) > 100


def changes_after(start, zone):
    """Yields the first moments after the changes of the zone's clocks in the 13 months from `start`."""
    here, week = ZoneInfo(zone), timedelta(days=7)
    moments = [start + week * n for n in range(58)]
    offsets = [moment.astimezone(here).utcoffset() for moment in moments]
    for moment, (before, after) in zip(moments, pairwise(offsets), strict=False):
        if before != after:
            # Changes lie on whole minutes.
            minutes = range(week // MINUTE)
            changed = lambda n: (moment + n * MINUTE).astimezone(here).utcoffset() != before  # noqa: B023, E731
            yield moment + bisect_left(minutes, True, key=changed) * MINUTE


@pytest.mark.parametrize(
    "zone", ["", "Mars/Olympus", "America", "localtime", "../etc/passwd", "x" * 99, "UTC\0"]
)
def test_a_zone_that_is_none_is_a_field_error(cast, url, zone):
    response = cast.client(cast.viewer).get(url, {"timezone": zone})
    assert response.status_code == 400
    (messages,) = response.json()["details"]["fieldErrors"].values()
    assert response.json() == invalid({"timezone": messages})


def test_the_figures_read_no_older_runs_also_of_an_environment_that_is_new(cast):
    """PostgreSQL has seen the runs of another environment alone, so it expects few of this one."""
    copy_ended_run(Runs.of(make_cast()).ended(), 1_000)
    execute("ANALYZE run", {})
    copy_ended_run(Runs.of(cast).ended(), 3_000)
    with explained("SELECT\n    (SELECT count(*)") as plans:
        figures = run_figures(
            environment_id=cast.environment.id, timezone="UTC", now=database_now()
        )
    assert figures["todays_runs"] > 0
    # A month has 744 hours at most, and the day's runs are read twice.
    assert plans.rows_read("run") < 1_000
