"""A notice of a failure needs no search: it has the error, whose fault it was, the retry, the cost and a link."""

import json
from datetime import UTC, datetime

import pytest

from notices.channels.tests.conftest import send_due
from notices.lateness import find_late_triggers
from testing.processes.webhook_receiver import receiving
from testing.world.channels import add_channel
from testing.world.runs import Runs
from triggers.explain.answers import zoned_words
from triggers.models import Run, Trigger, TriggerHealth
from triggers.schedules.firing import fire_due_ticks


@pytest.fixture
def hooks(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    with receiving() as receiver:
        yield receiver


def test_a_failure_is_told_whole_by_mail_in_slack_and_to_a_webhook(
    cast, mail_server, hooks, settings
):
    settings.PUBLIC_URL = "https://api.example.com"
    for kind in ("email", "slack", "webhook"):
        add_channel(cast, kind, **({} if kind == "email" else {"url": hooks.url(f"/{kind}")}))
    runs = Runs.of(cast, alert_after_failures=3, max_retries=0, timezone="Asia/Kolkata")
    runs.ended("succeeded")
    for _ in range(2):
        runs.wait(minutes=1)
        runs.ended("failed", faultClass="infra")
    runs.wait(minutes=1)
    run_id = runs.ended(
        "failed",
        faultClass="infra",
        errorMessage="No route to evil.example\nat line 2",
        costUsd="0.12",
    )
    send_due()
    (mail,) = mail_server.received
    slack, webhook = (
        next(json.loads(each.body) for each in hooks.received if each.path == f"/{kind}")
        for kind in ("slack", "webhook")
    )
    link = f"https://api.example.com/console/runs/{run_id}"
    for text in (mail.part("plain").replace("\r\n", "\n"), slack["text"]):
        assert (
            "\nError: No route to evil[.]example\n"
            "Why: Something that the run depends on failed, such as its machine or a network.\n"
            "Retry: It is not retried: it was attempt 1, and the trigger allowed 1.\n"
            "Failures in a row: 3\n"
            "Cost: $0.12\n"
        ) in text
        assert link in text
    assert "Cost: $0.12" in mail.part("html")
    assert webhook["link"] == link
    run = webhook["run"]
    assert (run["failuresInRow"], run["retry"]["code"]) == (3, "retries_used")


def test_a_failure_that_is_retried_says_when_in_the_triggers_zone(cast, mail_server):
    add_channel(cast, "email", events=["trigger_late"])
    runs = Runs.of(cast, success_deadline_seconds=60, schedule="0 * * * *", timezone="Asia/Kolkata")
    runs.now = datetime(2100, 5, 4, 12, 30, tzinfo=UTC)
    Trigger.objects.filter(id=runs.trigger_id).update(next_run_at=runs.now)
    TriggerHealth.objects.update(check_at=runs.now)
    fire_due_ticks(now=runs.now)
    run_id = Run.objects.get(trigger_id=runs.trigger_id).id
    runs.claim(run_id)
    runs.start(run_id)
    runs.complete(run_id, "failed", faultClass="infra", retryAfterSeconds=3600)
    find_late_triggers(now=runs.wait(minutes=2))
    send_due(runs.now)
    (mail,) = mail_server.received
    retry = runs.retry_of(run_id)
    assert retry is not None
    due = zoned_words(retry["available_at"], "Asia/Kolkata")
    assert f"Retry: It is retried at {due}." in mail.part("plain")
