"""A channel's summary says once a day what became of all due times and runs since the last one, whatever is killed."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from notices.channels.models import Channel, Notice
from notices.channels.services import update_channel
from notices.channels.summaries import next_summary, send_summaries
from notices.channels.tests.conftest import send_due
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.processes.webhook_receiver import receiving
from testing.world.cast import TEST_ACTOR, Cast
from testing.world.channels import add_channel
from testing.world.runs import Runs
from triggers.models import Budget, Tick, Trigger
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


def pass_hours(runs: Runs, count: int, *statuses: str) -> None:
    """Fires hour by hour, and ends the runs with these statuses, the last of them again and again."""
    for number in range(count):
        fire_due_ticks(now=runs.now)
        tick = Tick.objects.filter(trigger_id=runs.trigger_id).order_by("-tick_at").first()
        if tick is not None and tick.run_id is not None and statuses:
            runs.claim(tick.run_id)
            runs.start(tick.run_id)
            status = statuses[min(number, len(statuses) - 1)]
            runs.complete(tick.run_id, status, costUsd="0.5", errorMessage="No route to evil.example")
        runs.wait(hours=1)


def test_a_mail_tells_what_became_of_everything(cast, mail_server, settings):
    settings.PUBLIC_URL = "https://api.example.com"
    add_summary(cast, "email")
    runs = hourly(cast, name="Sync")
    pass_hours(runs, 6, "succeeded", "failed", "succeeded")
    Trigger.objects.filter(id=runs.trigger_id).update(worker_id=None)
    pass_hours(runs, 2)
    Budget.objects.create(environment=cast.environment, name="All", period="month", limit_usd=10)
    sent()
    send_due(SEVEN)
    (mail,) = mail_server.received
    assert mail.message["Subject"] == "8 due, 5 succeeded, 1 failed, 2 without a run"
    text = mail.part("plain").replace("\r\n", "\n")
    failed = Run_failed(runs)
    trigger = f"https://api.example.com/console/triggers/{runs.trigger_id}"
    assert text.startswith(
        f"Environment: {cast.environment.name}\n"
        "From 2100-01-03 07:00 UTC+01:00 until 2100-01-04 06:59 UTC+01:00, 23 hours 59 minutes\n"
        "Due: 8, of which 6 made a run\n"
        "Runs: 5 succeeded, 1 failed, 0 timed out, 0 canceled, 0 not ended yet\n"
        "Cost: $3\n"
        "Budget All: $0 of $10 this month\n"
        "\n"
        "Failed (1):\n"
        "- Sync failed at 2100-01-04 00:00 UTC+01:00 (client): No route to evil[.]example\n"
        f"  https://api.example.com/console/runs/{failed}\n"
        "\n"
        "Due, but no run (2):\n"
        "- Sync: 2 due times from 2100-01-04 05:00 UTC+01:00 to 2100-01-04 06:00 UTC+01:00,"
        " because the trigger had neither a worker nor a pool\n"
        f"  {trigger}\n"
    )
    assert "\nWaits for somebody (" in text


def Run_failed(runs: Runs):  # noqa: N802
    from triggers.models import Run

    return Run.objects.get(trigger_id=runs.trigger_id, status="failed").id
