"""GET /environments/:envId/stats"""

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import pairwise
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipedai.api.renderers import iso_time
from pipedai.server.memory_budget import HOLDING, Holding, MemoryBudget
from pipedai.sql import database_now, execute
from testing.probes.plan_nodes import nodes
from testing.probes.plans import explained
from testing.probes.shapes import invalid
from testing.world.cases import cases
from testing.world.instants import INSTANTS, ZONES
from testing.world.runs import NOON, Runs
from triggers.budgets.spending import period_around
from triggers.models import Budget, Run, Trigger
from triggers.runs.stats import MAX_GROUPS, StatsSerializer, Window, run_stats
from workers.models import Worker

NO_RUNS = {
    "runs": 0,
    "succeeded": 0,
    "failed": 0,
    "timedOut": 0,
    "canceled": 0,
    "nothingNew": 0,
    "retries": 0,
    "successRatePct": None,
    "costUsd": "0",
    "notionalUsd": "0",
    "inputTokens": 0,
    "outputTokens": 0,
    "p50DurationMs": None,
    "p95DurationMs": None,
}
MILLISECOND = timedelta(milliseconds=1)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
# A window of eight days around the time at which the runs of these tests end.
AROUND = {"from": "2026-05-01T00:00:00Z", "to": "2026-05-09T00:00:00Z"}


def ask(cast, group_by, **query):
    url = f"/api/v1/environments/{cast.environment.id}/stats"
    return cast.client(cast.viewer).get(url, {"groupBy": group_by, **query})


def read(cast, group_by, **query):
    response = ask(cast, group_by, **{**AROUND, **query})
    assert response.status_code == 200, response.json()
    return response.json()


def run_that(cast, ended_at=NOON, took=timedelta(seconds=1), status="succeeded", **values):
    """Returns a run that is not saved yet. It ended at this time, `took` after its start, or never started if None."""
    trigger = Trigger.objects.get(id=values.pop("trigger_id", cast.trigger_id))
    began = ended_at - (took or timedelta())
    return Run(
        **{
            "environment_id": trigger.environment_id,
            "trigger": trigger,
            "revision_id": trigger.revision_id,
            "worker_id": trigger.worker_id,
            "status": status,
            "source": "api",
            "max_retries": 3,
            "timeout_seconds": 60,
            "available_at": began,
            "queued_at": began,
            "claimed_at": began,
            "started_at": None if took is None else began,
            "ended_at": ended_at,
            "ended_by": "worker",
            "fault_class": "none" if status in ("succeeded", "canceled") else "client",
            **values,
        }
    )


def add(*runs):
    Run.objects.bulk_create(runs)


def add_copies(count):
    """Adds this many copies of a run. Each has another model, and ended a minute after the one before."""
    execute(
        """
        INSERT INTO run (id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries,
            timeout_seconds, available_at, queued_at, claimed_at, started_at, ended_at, ended_by, fault_class, model)
        SELECT gen_random_uuid(), environment_id, trigger_id, revision_id, worker_id, status, source, attempt,
            max_retries, timeout_seconds, available_at, queued_at, claimed_at, started_at, ended_at + %(step)s * n,
            ended_by, fault_class, 'model-' || n
        FROM (SELECT * FROM run LIMIT 1) r, generate_series(1, %(count)s) n
        """,
        {"count": count, "step": timedelta(minutes=1)},
    )


def test_the_figures_of_two_triggers(cast):
    first = Runs(cast, cast.trigger_id)
    outcome: Any = {"costUsd": "0.5", "inputTokens": 1000, "outputTokens": 10, "model": "opus"}
    for seconds, status in ((10, "succeeded"), (30, "timed_out")):
        run_id = first.running()
        first.wait(seconds=seconds)
        first.complete(run_id, status, **outcome)
    retried = first.ended("failed", faultClass="infra", costUsd="0.012")
    first.complete(first.claimed_retry_of(retried))
    first.cancel(first.queue())
    second = Runs.of(cast, name="Evening report")
    second.cancel(second.queue())

    answer = read(cast, "trigger")
    assert answer["from"] == "2026-05-01T00:00:00.000Z"
    assert answer["to"] == "2026-05-09T00:00:00.000Z"
    assert answer["groups"] == 2
    assert answer["items"] == [
        {
            "key": str(cast.trigger_id),
            "name": Trigger.objects.get(id=cast.trigger_id).name,
            "day": None,
            "runs": 5,
            "succeeded": 2,
            "failed": 1,
            "timedOut": 1,
            "canceled": 1,
            "nothingNew": 0,
            "retries": 1,
            "successRatePct": 50.0,
            "costUsd": "1.012",
            "notionalUsd": "1.012",
            "inputTokens": 2000,
            "outputTokens": 20,
            "p50DurationMs": 10_000,
            "p95DurationMs": 30_000,
        },
        {
            **NO_RUNS,
            "key": str(second.trigger_id),
            "name": "Evening report",
            "day": None,
            "runs": 1,
            "canceled": 1,
            "nothingNew": 0,
        },
    ]
    assert answer["total"]["runs"] == 6
    assert answer["total"]["canceled"] == 2
    assert answer["total"]["successRatePct"] == 50.0


def test_what_a_subscription_has_paid_for_is_told_apart(cast):
    other = cast.register("paid-by-key").worker_id
    Worker.objects.filter(id=other).update(auth_mode="api_key")
    add(run_that(cast, cost_usd="0.25"), run_that(cast, cost_usd="0.5", worker_id=other))
    (item,) = read(cast, "trigger")["items"]
    assert (item["costUsd"], item["notionalUsd"]) == ("0.75", "0.25")


def test_deleted_triggers_and_workers_keep_their_names(cast):
    add(run_that(cast))
    Trigger.objects.update(name="Gone", deleted_at=NOON, enabled=False)
    Worker.objects.update(label="gone", deleted_at=NOON, token_digest=None)
    assert [item["name"] for item in read(cast, "trigger")["items"]] == ["Gone"]
    assert [item["name"] for item in read(cast, "worker")["items"]] == ["gone"]


def test_runs_without_a_worker_or_a_model_have_a_group_of_their_own(cast):
    add(
        run_that(cast, model="opus"),
        run_that(cast, model="opus"),
        run_that(cast, status="canceled", worker_id=None, claimed_at=None, took=None),
    )
    worker_id = str(cast.worker.worker_id)
    found = {item["key"]: item["runs"] for item in read(cast, "worker")["items"]}
    assert found == {worker_id: 2, None: 1}
    models = read(cast, "model")["items"]
    assert [(item["key"], item["name"], item["runs"]) for item in models] == [
        ("opus", None, 2),
        (None, None, 1),
    ]


@cases("group_by", ["trigger", "worker", "model", "day,trigger"], undone=True)
def test_without_runs_there_is_a_total_and_no_item(cast, group_by):
    answer = read(cast, group_by)
    assert (answer["items"], answer["groups"], answer["total"]) == ([], 0, NO_RUNS)


def test_each_hour_of_the_window_is_there(cast):
    add(
        run_that(cast),
        run_that(cast, NOON + timedelta(minutes=59)),
        run_that(cast, NOON + 2 * HOUR),
    )
    span = {"from": "2026-05-04T10:20:00Z", "to": "2026-05-04T14:30:00Z"}
    answer = read(cast, "hour", **span)
    assert answer["groups"] == 5
    assert [(item["key"][11:16], item["runs"]) for item in answer["items"]] == [
        ("10:20", 0), ("11:00", 0), ("12:00", 2), ("13:00", 0), ("14:00", 1),
    ]  # fmt: skip
    assert answer["items"][0] == {
        **NO_RUNS,
        "key": iso_time(NOON - 100 * MINUTE),
        "name": None,
        "day": None,
    }
    answer = read(cast, "hour", timezone="Asia/Kolkata", **span)
    assert [item["key"][11:16] for item in answer["items"]] == [
        "10:20", "10:30", "11:30", "12:30", "13:30",
    ]  # fmt: skip


def test_by_hour_there_are_seven_days_at_most_and_a_day_by_default(cast):
    assert len(read(cast, "hour", **{"from": "2026-05-02T00:00:00Z"})["items"]) == 7 * 24
    fields = ask(cast, "hour", **AROUND).json()["details"]["fieldErrors"]
    assert fields == {"from": ["Must be at most 7 days before `to`."]}
    items = ask(cast, "hour").json()["items"]
    assert len(items) == 24
    assert datetime.fromisoformat(items[-1]["key"]) <= database_now()


@cases("instant", INSTANTS)
def test_hours_begin_on_the_hour_of_every_zone_and_miss_nothing(instant):
    now = INSTANTS[instant]
    for zone in ZONES:
        window = Window.of(None, now, zone, group_by="hour")
        begins = [begin for _, begin in window.hours]
        assert begins[0] == window.begin
        assert begins[-1] < now <= begins[-1] + HOUR
        assert all(begin.astimezone(ZoneInfo(zone)).minute == 0 for begin in begins[1:])
        assert all(timedelta() < later - begin <= HOUR for begin, later in pairwise(begins))


def test_each_day_of_the_window_is_there(cast):
    add(run_that(cast), run_that(cast, NOON + timedelta(days=2)))
    answer = read(cast, "day")
    assert answer["groups"] == 8
    assert [(item["key"], item["runs"]) for item in answer["items"]] == [
        (f"2026-05-0{day}", int(day in (4, 6))) for day in range(1, 9)
    ]
    assert answer["items"][0] == {
        **NO_RUNS,
        "key": "2026-05-01",
        "name": None,
        "day": "2026-05-01",
    }


def test_a_week_begins_on_monday_and_a_month_on_its_first_day_in_the_zone(cast):
    """4 May 2026 is a Monday."""
    monday = datetime(2026, 5, 4, tzinfo=UTC)
    add(*(run_that(cast, at) for at in (monday - HOUR, monday, NOON + timedelta(days=7))))
    span = {"from": "2026-04-29T00:00:00Z", "to": "2026-05-12T00:00:00Z"}
    for zone, weeks, months in (
        ("UTC", (1, 1, 1), (0, 3)),
        ("Pacific/Pago_Pago", (2, 0, 1), (0, 3)),
        ("Asia/Tokyo", (0, 2, 1), (0, 3)),
    ):
        for group_by, firsts, counts in (
            ("week", ["2026-04-27", "2026-05-04", "2026-05-11"], weeks),
            ("month", ["2026-04-01", "2026-05-01"], months),
        ):
            answer = read(cast, group_by, timezone=zone, **span)
            items = answer["items"]
            assert [item["key"] for item in items] == [item["day"] for item in items] == firsts
            assert tuple(item["runs"] for item in items) == counts
            assert answer["groups"] == len(items)


def test_there_are_twelve_weeks_or_months_by_default_at_each_instant_of_the_calendar():
    for now in INSTANTS.values():
        for zone in ZONES:
            for group_by in ("week", "month"):
                window = Window.of(None, now, zone, group_by=group_by)
                firsts = [first for first, _ in window.spans(group_by)]
                begins = [begin for _, begin in window.spans(group_by)]
                assert len(firsts) == 12
                assert begins[0] == window.begin
                assert begins[-1] < now
                assert begins == sorted(set(begins))
                assert {
                    each.weekday() if group_by == "week" else each.day - 1 for each in firsts
                } == {0}
                assert [each.astimezone(ZoneInfo(zone)).date() for each in begins] == firsts


def test_by_day_and_trigger_each_pair_with_runs_is_there_and_the_busiest_of_a_day_comes_first(cast):
    other = cast.add_trigger(name="Evening report")
    later = NOON + timedelta(days=2)
    add(
        run_that(cast, later, cost_usd="0.5"),
        run_that(cast, trigger_id=other),
        *(run_that(cast) for _ in range(2)),
    )
    answer = read(cast, "day,trigger")
    name = Trigger.objects.get(id=cast.trigger_id).name
    assert [
        (item["day"], item["key"], item["name"], item["runs"], item["costUsd"])
        for item in answer["items"]
    ] == [
        ("2026-05-04", str(cast.trigger_id), name, 2, "0"),
        ("2026-05-04", str(other), "Evening report", 1, "0"),
        ("2026-05-06", str(cast.trigger_id), name, 1, "0.5"),
    ]
    assert (answer["groups"], answer["total"]["runs"]) == (3, 4)


def test_a_day_is_the_zones_and_may_have_25_hours(cast):
    """The clocks of Berlin went back on 25 October 2026: the day began at 22:00 UTC and ended at 23:00 UTC."""
    begin = datetime(2026, 10, 24, 22, tzinfo=UTC)
    moment = timedelta(microseconds=1)
    for ended_at in (
        begin - moment,
        begin,
        begin + timedelta(hours=25) - moment,
        begin + timedelta(hours=25),
    ):
        add(run_that(cast, ended_at))
    answer = read(
        cast,
        "day",
        timezone="Europe/Berlin",
        **{"from": "2026-10-23T22:00Z", "to": "2026-10-26T23:00Z"},
    )
    assert {item["key"]: item["runs"] for item in answer["items"]} == {
        "2026-10-24": 1,
        "2026-10-25": 2,
        "2026-10-26": 1,
    }


def test_a_window_may_begin_on_a_later_date_than_it_ends(cast):
    """In 2010 the clocks of St. John's went back by an hour at a minute past midnight, to 23:01 of the day before."""
    answer = read(
        cast,
        "day",
        timezone="America/St_Johns",
        **{"from": "2010-11-07T02:30:30Z", "to": "2010-11-07T02:40:00Z"},
    )
    assert [item["key"] for item in answer["items"]] == ["2010-11-07"]


def test_the_window_has_its_beginning_and_lacks_its_end(cast):
    begin, end = datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 9, tzinfo=UTC)
    moment = timedelta(microseconds=1)
    for ended_at in (begin - moment, begin, end - moment, end):
        add(run_that(cast, ended_at))
    assert read(cast, "trigger")["total"]["runs"] == 2


@cases("zone", ["UTC", "Asia/Tokyo", "America/New_York"], undone=True)
def test_the_default_window_is_of_thirty_days_in_the_zone(cast, zone):
    here = ZoneInfo(zone)
    before = datetime.now(here).date()
    answer = ask(cast, "day", timezone=zone).json()
    days = [item["key"] for item in answer["items"]]
    begin = datetime.fromisoformat(answer["from"]).astimezone(here)
    assert len(days) == 30
    assert str(before) <= days[-1] <= str(datetime.now(here).date())
    assert (str(begin.date()), begin.hour, begin.minute) == (days[0], 0, 0)


def test_the_window_of_a_period_begins_as_that_of_a_budget_at_each_instant_of_the_calendar():
    """It ends before the instant, so at midnight it is that of the day or month which is over."""
    moment = timedelta(microseconds=1)
    for now in INSTANTS.values():
        for zone in ZONES:
            for period in Budget.Period.values:
                window = Window.of(None, now, zone, period)
                assert window.begin == period_around(now - moment, period, zone)[0]
                assert [begin for _, begin in window.days] == days_of(window)
            usual = Window.of(None, now, zone)
            assert len(usual.days) == 30
            assert [begin for _, begin in usual.days] == days_of(usual)


def days_of(window):
    """Returns the beginnings of the days in the window, as a budget by the day has them."""
    found, begin = [], window.begin
    while begin < window.end:
        found.append(begin)
        _, begin = period_around(begin, "day", window.timezone)
    return found


def test_the_present_month_is_told_by_the_clock_of_the_database(cast):
    add(run_that(cast, ended_at := database_now()), run_that(cast, ended_at - timedelta(days=32)))
    answer = ask(cast, "trigger", period="month", timezone="Asia/Tokyo").json()
    begin, _ = period_around(database_now(), "month", "Asia/Tokyo")
    assert (answer["from"], answer["total"]["runs"]) == (iso_time(begin), 1)
    both = ask(cast, "trigger", period="month", **{"from": "2026-05-01"})
    assert both.json() == invalid({"from": ["Must not be given together with `period`."]})


def test_a_window_that_ends_at_midnight_does_not_reach_the_next_day():
    window = Window.of(None, datetime(2026, 3, 31, tzinfo=UTC), "UTC")
    assert window.begin == datetime(2026, 3, 1, tzinfo=UTC)
    assert (str(window.days[0][0]), str(window.days[-1][0])) == ("2026-03-01", "2026-03-30")


def test_a_percentile_is_the_duration_of_a_run_and_leaves_out_what_never_started(cast):
    add(*(run_that(cast, took=timedelta(milliseconds=n)) for n in range(1, 21)))
    add(*(run_that(cast, status="failed", took=None) for _ in range(30)))
    total = read(cast, "day")["total"]
    assert (total["runs"], total["p50DurationMs"], total["p95DurationMs"]) == (50, 10, 19)


def test_no_duration_is_negative(cast):
    add(run_that(cast, took=timedelta(seconds=-5)))
    assert read(cast, "day")["total"]["p50DurationMs"] == 0


@cases(("begin", "known"), [("2026-01-24", True), ("2026-01-23", False)], undone=True)
def test_only_up_to_93_days_have_percentiles(cast, begin, known):
    add(run_that(cast, datetime(2026, 4, 1, tzinfo=UTC)))
    answer = read(cast, "trigger", **{"from": begin, "to": "2026-04-27"})
    for each in (*answer["items"], answer["total"]):
        assert each["runs"] == 1
        assert (each["p50DurationMs"], each["p95DurationMs"]) == (
            (1000, 1000) if known else (None, None)
        )


def test_a_year_and_more_on_the_clocks_of_the_zone_is_allowed(cast):
    """400 days from midnight to midnight, in which the clocks of Berlin go back once more than forward."""
    berlin = {"timezone": "Europe/Berlin", "from": "2025-09-30T22:00Z"}
    answer = read(cast, "day", **berlin, to="2026-11-04T23:00Z")
    assert len(answer["items"]) == 400
    late = ask(cast, "day", **berlin, to="2026-11-04T23:00:01Z")
    assert late.json() == invalid({"from": ["Must be at most 400 days before `to`."]})


@cases(
    ("query", "field"),
    [
        ({}, "groupBy"),
        ({"groupBy": "year"}, "groupBy"),
        ({"groupBy": "day", "period": "week"}, "period"),
        ({"groupBy": "day", "timezone": "Mars/Olympus"}, "timezone"),
        ({"groupBy": "day", "timezone": ""}, "timezone"),
        ({"groupBy": "day", "timezone": "UTC\0"}, "timezone"),
        ({"groupBy": "day", "from": "yesterday"}, "from"),
        ({"groupBy": "day", "to": "2026-02-30"}, "to"),
        ({"groupBy": "day", "from": "2026-05-02", "to": "2026-05-01"}, "to"),
        ({"groupBy": "day", "from": "2026-05-02", "to": "2026-05-02"}, "to"),
        ({"groupBy": "day", "from": "9998-01-01"}, "to"),
        ({"groupBy": "day", "from": "2020-01-01"}, "from"),
        ({"groupBy": "day", "to": "0001-01-05"}, "to"),
        ({"groupBy": "day", "period": "month", "to": "9999-12-31T23:00Z"}, "to"),
        ({"groupBy": "day", "period": "day", "to": "9999-12-31T23:00Z"}, "to"),
        ({"groupBy": "month", "to": "9999-12-31T23:00Z", "timezone": "Asia/Tokyo"}, "to"),
        ({"groupBy": "hour", "from": "9999-12-31T20:00Z", "to": "9999-12-31T23:30Z"}, "from"),
        ({"groupBy": "hour", "from": "0001-01-01", "to": "0001-01-01T01:00Z", "timezone": "Asia/Kathmandu"}, "from"),
        ({"groupBy": "day", "from": "0001-01-01", "to": "0001-01-05", "timezone": "America/New_York"}, "from"),
        ({"groupBy": "day", "from": "9999-12-30", "to": "9999-12-31T23:00Z", "timezone": "Asia/Tokyo"}, "from"),
    ], undone=True)  # fmt: skip
def test_bad_parameters_are_field_errors(cast, query, field):
    response = cast.client(cast.viewer).get(
        f"/api/v1/environments/{cast.environment.id}/stats", query
    )
    assert response.status_code == 400
    assert list(response.json()["details"]["fieldErrors"]) == [field]


def test_the_largest_groups_are_shown_and_all_are_counted(cast):
    count = MAX_GROUPS + 2
    add(*(run_that(cast) for _ in range(2)))
    add_copies(count - 1)
    answer = read(cast, "model")
    assert (len(answer["items"]), answer["groups"]) == (MAX_GROUPS, count)
    assert (answer["items"][0]["key"], answer["items"][0]["runs"]) == (None, 2)
    assert answer["total"]["runs"] == count + 1


def test_nothing_of_another_environment_counts(cast):
    add(run_that(cast))
    strange = f"/api/v1/environments/{cast.strange_environment.id}/stats"
    answer = cast.client(cast.stranger).get(strange, {"groupBy": "trigger", **AROUND})
    assert answer.json()["total"] == NO_RUNS


A_RUN = st.fixed_dictionaries(
    {
        "minutes": st.integers(0, 4 * 24 * 60),
        "took": st.none() | st.integers(0, 10**9).map(lambda us: timedelta(microseconds=us)),
        "status": st.sampled_from(["succeeded", "failed", "timed_out", "canceled"]),
        "is_retry": st.booleans(),
        "of_second": st.booleans(),
        "model": st.sampled_from([None, "opus", "haiku"]),
        "cost_usd": st.none() | st.decimals(0, 99, places=6),
        "input_tokens": st.none() | st.integers(0, 2**63 - 1),
        "output_tokens": st.none() | st.integers(0, 9),
    }
)


@pytest.fixture
def ledger(cast):
    """Returns a function that makes unsaved runs of two triggers, one of them without a worker, from drawn values."""
    second = cast.add_trigger(worker_id=None)

    def make(drawn):
        originals, runs = [], []
        for each in drawn:
            values = dict(each)
            ended_at = NOON + timedelta(minutes=values.pop("minutes"))
            if values.pop("is_retry"):
                # The original ended before the window.
                originals.append(run_that(cast, NOON - timedelta(days=40)))
                values |= {"source": "retry", "attempt": 2, "retry_of_id": originals[-1].id}
            if values.pop("of_second"):
                values["trigger_id"] = second
            runs.append(run_that(cast, ended_at, **values))
        return originals, runs

    return make


@given(drawn=st.lists(A_RUN, max_size=12))
@settings(
    max_examples=20,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_each_figure_is_that_of_its_runs_and_the_total_is_of_all(cast, ledger, drawn):
    originals, runs = ledger(drawn)
    with transaction.atomic():
        add(*originals)
        add(*runs)
        window = Window(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 9, tzinfo=UTC), "UTC")
        for group_by, key_of in KEYS.items():
            groups = defaultdict(list)
            for run in runs:
                groups[key_of(run)].append(run)
            stats = run_stats(environment_id=cast.environment.id, group_by=group_by, window=window)
            shown = {row["key"]: StatsSerializer(row).data for row in stats["items"] if row["runs"]}
            assert shown == {key: figures_of(some) for key, some in groups.items()}
            assert StatsSerializer(stats["total"]).data == figures_of(runs)
            for name in SUMMED:
                assert sum(each[name] for each in shown.values()) == figures_of(runs)[name]
        transaction.set_rollback(True)


KEYS = {
    "trigger": lambda run: run.trigger_id,
    "worker": lambda run: run.worker_id,
    "model": lambda run: run.model,
    "day": lambda run: run.ended_at.date(),
}
SUMMED = [
    "runs", "succeeded", "failed", "timedOut", "canceled", "nothingNew", "retries", "costUsd", "notionalUsd",
    "inputTokens",
    "outputTokens",
]  # fmt: skip


def figures_of(runs):
    """Returns what the statistics shall say of these runs."""

    def ended(*statuses):
        return sum(run.status in statuses for run in runs)

    took = sorted((run.ended_at - run.started_at) // MILLISECOND for run in runs if run.started_at)
    counted = ended("succeeded", "failed", "timed_out")
    return {
        "runs": len(runs),
        "succeeded": ended("succeeded"),
        "failed": ended("failed"),
        "timedOut": ended("timed_out"),
        "canceled": ended("canceled"),
        "nothingNew": 0,
        "retries": sum(run.source == "retry" for run in runs),
        "successRatePct": percentage(ended("succeeded"), counted) if counted else None,
        "costUsd": sum(run.cost_usd or Decimal() for run in runs),
        "notionalUsd": sum(run.cost_usd or Decimal() for run in runs if run.worker_id),
        "inputTokens": sum(run.input_tokens or 0 for run in runs),
        "outputTokens": sum(run.output_tokens or 0 for run in runs),
        "p50DurationMs": took[ceil(len(took) * 0.5) - 1] if took else None,
        "p95DurationMs": took[ceil(len(took) * 0.95) - 1] if took else None,
    }


def percentage(part, whole):
    exact = Decimal(100 * part) / whole
    return float(exact.quantize(Decimal("0.1"), ROUND_HALF_UP))


@cases("group_by", KEYS, undone=True)
def test_the_index_alone_answers(cast, group_by):
    """The statement reads no row of `run` itself, so it must use no column that the index lacks."""
    add(run_that(cast))
    add_copies(500)
    execute("ANALYZE run", {})
    with CaptureQueriesContext(connection) as queries:
        read(cast, group_by, **{"from": "2026-05-04T13:00Z", "to": "2026-05-04T13:10Z"})
    (statement,) = (each["sql"] for each in queries if "GROUPING SETS" in each["sql"])
    for way in ("seqscan", "bitmapscan"):
        execute(f"SET LOCAL enable_{way} = off", {})
    # To read these indexes and the rows costs no more in so small a table.
    execute("DROP INDEX run_of_trigger_by_end, run_ended_cost", {})
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {statement.replace('%', '%%')}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Index Only Scan using run_ended_figures on run" in plan


def test_by_day_and_trigger_only_the_shown_pairs_are_summed_up(cast, monkeypatch):
    """PostgreSQL sorts the runs of those that are shown, for their percentiles, and only counts the runs of others."""
    monkeypatch.setattr("triggers.runs.stats.MAX_GROUPS", 2)
    add(run_that(cast, cost_usd="0.5"), run_that(cast, cost_usd="1"))
    others = [cast.add_trigger() for _ in range(20)]
    add(*(run_that(cast, trigger_id=each, cost_usd="0.25") for each in others))
    add(run_that(cast, trigger_id=others[0], cost_usd="0.25"))
    window = Window(datetime(2026, 5, 1, tzinfo=UTC), datetime(2026, 5, 9, tzinfo=UTC), "UTC")
    with explained("WITH counted") as plans:
        stats = run_stats(environment_id=cast.environment.id, group_by="day,trigger", window=window)
    shown = {row["key"]: (row["runs"], row["cost_usd"], row["p50_ms"]) for row in stats["items"]}
    assert shown == {
        cast.trigger_id: (2, Decimal("1.5"), 1000),
        others[0]: (2, Decimal("0.5"), 1000),
    }
    total = stats["total"]
    assert (stats["groups"], total["runs"], total["cost_usd"]) == (21, 23, Decimal("6.75"))
    (plan,) = plans.plans
    (summed,) = (
        node
        for node in nodes(plan)
        if [name.partition(".")[2] for name in node.get("Group Key", ())] == ["day", "trigger_id"]
    )
    (read,) = (each for each in summed["Plans"] if each["Parent Relationship"] == "Outer")
    assert read["Actual Rows"] == 4


def test_an_environment_has_two_statistics_worked_out_at_a_time(cast):
    budget = MemoryBudget()
    held = [Holding(budget, f"192.0.2.{n}") for n in range(3)]

    def ask_in(holding):
        url = f"/api/v1/environments/{cast.environment.id}/stats"
        extra = {"asgi.scope": {HOLDING: holding}}
        return cast.client(cast.viewer).get(url, {"groupBy": "day"}, **extra)

    assert [ask_in(each).status_code for each in held] == [200, 200, 429]
    refused = ask_in(held[2])
    assert (refused["Retry-After"], refused.json()["code"]) == ("1", "throttled")
    held[0].leave()
    assert ask_in(held[2]).status_code == 200
    for each in held[1:]:
        each.leave()
