"""A channel's summary says once a day what became of all due times and runs since the last one, whatever is killed."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from django.db import connection

from notices.channels.outcomes import tell_outcomes
from notices.channels.services import CHANNELS
from notices.channels.summaries import SETTLED, next_summary, send_summaries
from notices.channels.tests.conftest import send_due
from notices.models import Channel, Notice
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.processes.webhook_receiver import receiving
from testing.world.cases import cases
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.channels import add_channel
from testing.world.instants import INSTANTS, ZONES
from testing.world.runs import LOOK, Runs
from triggers.models import Budget, Run, Tick, Trigger
from triggers.schedules.firing import fire_due_ticks
from workspaces.models import Environment

DAILY = {
    "at": "07:00",
    "timezone": "Europe/Berlin",
    "weekdays": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
}
# Seven o'clock in Berlin.
SEVEN = datetime(2100, 1, 4, 6, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def hooks(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    with receiving() as receiver:
        yield receiver


def add_summary(cast: Cast, kind: str = "webhook", *, since: datetime = SEVEN - DAY, **values):
    """Adds a channel whose next summary is due at SEVEN, and tells what came since then."""
    channel = add_channel(cast, kind, summary=DAILY, events=["budget_reached"], **values)
    Channel.objects.filter(id=channel.id).update(summary_due_at=SEVEN, summary_since=since)
    return channel


def sent(now: datetime = SEVEN) -> list:
    """Queues what is due, and returns the content of all summaries, in their order."""
    while send_summaries(now=now):
        pass
    rows = Notice.objects.filter(event="channel.summary").order_by("id")
    return [json.loads(row.body)["summary"] for row in rows]


def hourly(cast: Cast, **trigger) -> Runs:
    """Makes a trigger that is due each hour, from 22:00 of the evening before on."""
    runs = Runs.of(cast, schedule="0 * * * *", max_retries=0, **trigger)
    runs.now = SEVEN.replace(hour=22) - DAY
    Trigger.objects.filter(id=runs.trigger_id).update(next_run_at=runs.now)
    return runs


def pass_hours(runs: Runs, hours: int, *statuses: str) -> None:
    """Fires hour by hour, and ends the runs with these statuses, the last of them again and again."""
    for number in range(hours):
        fire_due_ticks(now=runs.now)
        tick = Tick.objects.filter(trigger_id=runs.trigger_id).order_by("-tick_at").first()
        if tick is not None and tick.run_id is not None and statuses:
            runs.claim(tick.run_id)
            runs.start(tick.run_id)
            status = statuses[min(number, len(statuses) - 1)]
            runs.complete(
                tick.run_id, status, costUsd="0.5", errorMessage="No route to evil.example"
            )
        runs.wait(hours=1)


def test_it_tells_how_many_had_something_new(cast, mail_server):
    add_summary(cast, "email")
    runs = hourly(cast, before=LOOK)
    runs.take_features("before")
    pass_hours(runs, 2, "succeeded")
    runs.wait(hours=-1)
    for _ in range(2):
        runs.wait(hours=1)
        fire_due_ticks(now=runs.now)
        run_id = Run.objects.filter(trigger_id=runs.trigger_id).latest("queued_at").id
        runs.claim(run_id)
        runs.start(run_id)
        looked = {"digest": "a" * 64, "lookedAt": "2001-01-01T00:00:00Z", "nothingNew": True}
        runs.complete(run_id, before=looked)
    (told,) = sent()
    assert (told["runs"]["succeeded"], told["runs"]["nothingNew"]) == (4, 2)
    send_due(SEVEN)
    (mail,) = mail_server.received
    assert mail.message["Subject"] == f"4 due, 2 had something new ({cast.environment.name})"
    assert "Runs: 4 succeeded (in 2 nothing was new), 0 failed" in mail.part("plain")


def test_a_mail_tells_what_became_of_everything(cast, mail_server, settings):
    settings.PUBLIC_URL = "https://api.example.com"
    add_summary(cast, "email")
    Budget.objects.create(
        environment=cast.environment,
        name="All",
        period="day",
        timezone="Europe/Berlin",
        limit_usd=10,
    )
    runs = hourly(cast, name="Sync")
    pass_hours(runs, 6, "succeeded", "failed", "succeeded")
    Trigger.objects.filter(id=runs.trigger_id).update(worker_id=None)
    pass_hours(runs, 2)
    add_channel(cast, name="Gone silent")
    Channel.objects.filter(name="Gone silent").update(failing_since=SEVEN)
    sent()
    send_due(SEVEN)
    (mail,) = mail_server.received
    title = "8 due, 5 succeeded, 1 failed, 2 without a run"
    assert mail.message["Subject"] == f"{title} ({cast.environment.name})"
    text = mail.part("plain").replace("\r\n", "\n")
    pages = "https://api.example.com/console"
    failed = Run.objects.get(trigger_id=runs.trigger_id, status="failed").id
    assert text.startswith(
        f"Environment: {cast.environment.name}\n"
        "From Sun 3 Jan 2100, 07:00 CET until Mon 4 Jan 2100, 06:59 CET, 23 hours 59 minutes\n"
        "Due: 8, of which 6 made a run\n"
        "Runs: 5 succeeded, 1 failed, 0 timed out, 0 canceled, 0 not ended yet\n"
        "Cost: $3.00\n"
        "Budget All: $0.50 of $10.00 on 3 Jan 2100\n"
        "Budget All: $2.50 of $10.00 on 4 Jan 2100\n"
        "\n"
        "Failed (1):\n"
        "- Sync failed at Mon 4 Jan 2100, 00:00 CET by its own settings or limits: No route to evil[.]example\n"
        f"  {pages}/runs/{failed}\n"
        "\n"
        "Due, but no run (2):\n"
        "- Sync: 2 due times from Mon 4 Jan 2100, 05:00 CET to Mon 4 Jan 2100, 06:00 CET,"
        " because the trigger had neither a machine nor a pool\n"
        f"  {pages}/triggers/{runs.trigger_id}\n"
        "\n"
        "Waits for somebody (1):\n"
        "- Channel Gone silent reaches nobody: its last notice was given up.\n"
        f"  {pages}/channels/"
    )


def test_a_summary_comes_also_when_nothing_or_nothing_bad_happened(cast, hooks):
    add_summary(cast, "slack", url=hooks.url())
    sent(SEVEN - timedelta(minutes=1))
    sent()
    Trigger.objects.update(next_run_at=None)
    runs = hourly(cast)
    runs.now += DAY
    Trigger.objects.filter(id=runs.trigger_id).update(next_run_at=runs.now)
    pass_hours(runs, 8, "succeeded")
    sent(SEVEN + DAY)
    send_due(SEVEN + DAY)
    titles = [json.loads(each.body)["text"].partition(" (")[0] for each in hooks.received]
    assert sorted(titles) == ["All 8 due, 8 succeeded", "Nothing was due"]


def test_a_canceled_run_stands_in_the_title(cast, hooks):
    add_summary(cast, "slack", url=hooks.url())
    runs = hourly(cast)
    pass_hours(runs, 1)
    runs.cancel(Run.objects.get(trigger_id=runs.trigger_id).id)
    pass_hours(runs, 1, "succeeded")
    sent()
    send_due(SEVEN)
    (title,) = (json.loads(each.body)["text"].partition(" (")[0] for each in hooks.received)
    assert title == "2 due, 1 succeeded, 1 canceled"


def test_a_call_that_waits_for_a_decision_is_told_with_its_page(cast):
    add_summary(cast)
    runs = Runs.of(cast)
    approval_id = runs.approval_of(runs.waiting())["id"]
    (told,) = sent()
    (item,) = told["attention"]["items"]
    assert item["kind"] == "approval"
    assert item["link"].endswith(f"/console/approvals/{approval_id}")
    assert told["runs"]["unfinished"] == 1


def test_a_stretch_and_a_late_decision_count_once(cast):
    add_summary(cast)
    runs = hourly(cast)
    Trigger.objects.filter(id=runs.trigger_id).update(worker_id=None)
    pass_hours(runs, 8)
    first = sent()[0]
    # No scheduler decides for three hours. Then the stretch goes on with its last due time.
    runs.wait(hours=2)
    pass_hours(runs, 1)
    (_, second) = sent(SEVEN + DAY)
    assert (first["due"], first["withoutRun"]["total"]) == (8, 8)
    assert (second["due"], second["withoutRun"]["total"]) == (3, 3)
    assert [each["decision"] for each in second["withoutRun"]["items"]] == [
        "skipped_missed",
        "skipped_no_worker",
    ]


def test_what_ends_or_is_due_at_the_edge_of_two_summaries_is_in_one_of_them(cast):
    add_summary(cast)
    runs = hourly(cast)
    pass_hours(runs, 10, "succeeded")
    assert runs.now == SEVEN + timedelta(hours=2)
    for edge in (SEVEN - SETTLED - timedelta(microseconds=1), SEVEN - SETTLED):
        runs.now = edge
        runs.ended()
    first, second = sent()[0], sent(SEVEN + DAY)[1]
    assert (first["due"], first["runs"]["succeeded"]) == (8, 9)
    assert (second["due"], second["runs"]["succeeded"]) == (2, 3)
    assert second["since"] == first["until"]


def test_what_an_open_transaction_has_written_is_left_to_the_next_summary(
    committed_cast, own_database, monkeypatch
):
    """However long the transaction takes that ends a run, the run's end lies after the window."""
    monkeypatch.setattr("notices.channels.summaries.SETTLED", timedelta(0))
    add_summary(committed_cast)
    params = connection.get_connection_params()
    kept = {name: params[name] for name in ("host", "port", "user", "password") if params.get(name)}
    with psycopg.connect(**kept, dbname=own_database) as session:
        # A transaction has an id from its first write on.
        began: Any = session.execute("SELECT now(), pg_current_xact_id()").fetchone()
        (told,) = sent()
        now: Any = session.execute("SELECT clock_timestamp()").fetchone()
        held_back = SEVEN - datetime.fromisoformat(told["until"])
        assert timedelta(0) < held_back <= now[0] - began[0]
    assert datetime.fromisoformat(sent(SEVEN + DAY)[1]["until"]) == SEVEN + DAY


def test_items_beyond_the_first_are_counted(cast, mail_server, hooks):
    add_summary(cast, "email")
    add_summary(cast, "slack", url=hooks.url())
    runs = Runs.of(cast, alert_after_failures=None, name="é" * 200)
    runs.now = SEVEN - timedelta(hours=1)
    for _ in range(25):
        runs.ended("failed", errorMessage="\x1b[1m" + "x" * 8_000)
    for name in "abcdefg":
        Budget.objects.create(environment=cast.environment, name=name, period="day", limit_runs=5)
    told = sent()
    assert [(each["failures"]["total"], len(each["failures"]["items"])) for each in told] == [
        (25, 20)
    ] * 2
    send_due(SEVEN)
    text = mail_server.received[0].part("plain")
    assert "\nand 5 more" in text.replace("\r\n", "\n")
    assert len(text.encode()) <= 20 * 1024
    slack = json.loads(hooks.received[0].body)["text"]
    assert "\nand 20 more\n" in slack
    assert "\nBudget e: 0 of 5 runs\nand 2 more\n" in slack
    assert len(slack) <= 3_000


def test_after_three_days_without_a_scheduler_there_is_one_that_says_since_when(cast):
    channel = add_summary(cast)
    (told,) = sent(SEVEN + 3 * DAY + timedelta(hours=5))
    assert told["since"] == "2100-01-03T06:00:00.000Z"
    assert told["until"] == "2100-01-07T10:59:30.000Z"
    channel.refresh_from_db()
    assert channel.summary_due_at == SEVEN + 4 * DAY
    assert len(sent(SEVEN + 4 * DAY - timedelta(minutes=1))) == 1
    assert len(sent(SEVEN + 4 * DAY)) == 2


def test_what_is_disabled_deleted_or_of_a_deleted_environment_sends_none(cast):
    channel = add_summary(cast)
    CHANNELS.update(channel.id, actor=TEST_ACTOR, values={"enabled": False})
    gone = add_summary(cast)
    Environment.objects.filter(id=cast.environment.id).update(deleted_at=SEVEN)
    assert sent() == []
    assert not Channel.objects.filter(summary_due_at__isnull=False).exists(), gone


@cases(
    ("at", "after", "due"),
    [
        # Clocks go forward from 02:00 to 03:00: the time that is skipped comes when they do.
        ("02:30", "2026-03-28T12:00+00:00", "2026-03-29T01:00+00:00"),
        # Clocks go back from 03:00 to 02:00: the time comes when it is shown first, and once.
        ("02:30", "2026-10-25T00:00+00:00", "2026-10-25T00:30+00:00"),
        ("02:30", "2026-10-25T00:30+00:00", "2026-10-26T01:30+00:00"),
    ],
)
def test_a_change_of_clocks_neither_loses_nor_doubles_a_summary(at, after, due):
    summary = {**DAILY, "at": at}
    assert next_summary(summary, datetime.fromisoformat(after)) == datetime.fromisoformat(due)


class Killed(Exception):  # noqa: N818 - named as what happened
    """The scheduler does not live on after this."""


@pytest.mark.parametrize("job", [send_summaries, tell_outcomes])
def test_a_job_that_is_killed_before_any_statement_tells_once_when_another_begins(cast, job):
    add_summary(cast)
    add_channel(cast, events=["run.result"])
    Runs.of(cast).ended()

    left = 0

    def kill(execute, statement, params, many, context):
        nonlocal left
        # PostgreSQL rolls back what was killed, as the savepoint does here.
        if "SAVEPOINT" not in statement:
            left -= 1
            if left < 0:
                raise Killed
        return execute(statement, params, many, context)

    for number in count():
        left = number
        try:
            with connection.execute_wrapper(kill):
                assert job(now=SEVEN) == 1
            break
        except Killed:
            assert not Notice.objects.exists()
    assert number > 5
    assert job(now=SEVEN) == 0
    assert Notice.objects.count() == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_schedulers_that_race_tell_once(committed_cast, round_):
    add_summary(committed_cast)
    add_channel(committed_cast, events=["run.result"])
    run_id = Runs.of(committed_cast).ended()
    accepted(at_once(*[partial(send_summaries, now=SEVEN)] * 3, *[tell_outcomes] * 3))
    told = Notice.objects.values_list("event", "run_id")
    assert sorted(told) == [("channel.summary", None), ("run.result", run_id)]


def test_the_next_summary_is_within_a_day_at_each_instant_of_the_calendar():
    for now in INSTANTS.values():
        for zone in ZONES:
            due = next_summary({**DAILY, "at": "07:00", "timezone": zone}, now)
            assert now < due <= now + timedelta(hours=25)
            assert f"{due.astimezone(ZoneInfo(zone)):%H:%M}" == "07:00"


@pytest.mark.parametrize("now", INSTANTS.values(), ids=INSTANTS)
def test_a_summary_has_the_runs_since_the_last_one_at_each_instant_of_the_calendar(cast, now):
    add_summary(cast, since=now - DAY)
    Channel.objects.update(summary_due_at=now)
    for ago in (DAY + SETTLED, DAY - SETTLED, timedelta(hours=1), timedelta(0)):
        Runs(cast, cast.trigger_id, now - ago).ended(costUsd=1)
    (summary,) = sent(now)
    assert (summary["runs"]["succeeded"], summary["costUsd"]) == (2, "2")
    assert Channel.objects.get().summary_due_at == next_summary(DAILY, now)
