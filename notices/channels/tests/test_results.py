"""Channels tell of final outcomes (`run.result`): which, to whom, once, and in what words."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from notices.channels.outcomes import tell_outcomes
from notices.channels.queueing import MAX_AN_HOUR
from notices.channels.tests.conftest import send_due
from notices.models import Notice, UntoldOutcome
from testing.probes.plans import explained, prefer_indexes
from testing.processes.webhook_receiver import receiving
from testing.world.cast import make_cast
from testing.world.channels import add_channel
from testing.world.copied_rows import copy_row
from testing.world.runs import LOOK, Runs
from triggers.models import Run, RunResult

RESULT = ["run.result"]
NOON = datetime(2100, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def hooks(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ["127.0.0.0/8"]
    with receiving() as receiver:
        yield receiver


def told():
    """Tells what has ended, and returns the runs of the notices, in the order in which they were queued."""
    while tell_outcomes():
        pass
    return list(Notice.objects.order_by("id").values_list("run_id", flat=True))


def test_a_mail_of_a_result_has_the_message_the_output_the_cost_and_a_link(
    cast, mail_server, settings
):
    settings.PUBLIC_URL = "https://api.example.com"
    add_channel(cast, "email", events=RESULT)
    runs = Runs.of(cast, timezone="Asia/Kolkata")
    run_id = runs.running()
    runs.wait(minutes=3, seconds=2)
    output = {"found": 2, "rows": [{"name": "a", "ok": True}, None], "note": "one\ntwo", "of": []}
    runs.complete(run_id, shortMessage="Two rows are new.", output=output, costUsd="0.12")
    assert told() == [run_id]
    send_due()
    (mail,) = mail_server.received
    assert mail.message["Subject"] == "Nightly report: Two rows are new."
    assert mail.message.get_content_type() == "text/plain"
    text = mail.part("plain").replace("\r\n", "\n")
    assert text.startswith(
        "Two rows are new.\n\n"
        "  found: 2\n  rows:\n    -\n      name: a\n      ok: true\n    - null\n"
        "  note:\n    one\n    two\n  of: []\n\n"
        "Cost: $0.12\nDuration: 3 minutes 2 seconds\nEnded: succeeded at Mon 4 May 2026, 17:33 IST\n"
        f"Trigger: Nightly report\nEnvironment: {cast.environment.name}\n"
    )
    assert f"https://api.example.com/console/runs/{run_id}\n" in text


HOSTILE = "\x1b[31m<b>https://evil.example</b>\u202e\x00 www.evil.example\ud800\r\nBcc: x@evil.example @all"


def test_what_a_run_wrote_is_bounded_text_without_links(cast, mail_server, hooks):
    add_channel(cast, "email", events=RESULT)
    add_channel(cast, "slack", events=RESULT, url=hooks.url())
    runs = Runs.of(cast, name=f"Nightly {'x' * 150}")
    run_id = runs.ended(shortMessage="Done https://evil.example \u202e now", output=[])
    output = json.dumps({HOSTILE: [HOSTILE, {"all": "é" * 1_000_000}]})
    RunResult.objects.filter(run_id=run_id).update(output=output)
    Run.objects.filter(id=run_id).update(
        short_message=f"{HOSTILE[:-5].replace(chr(0), '').replace(chr(0xD800), '')}"
    )
    told()
    send_due()
    (mail,) = mail_server.received
    subject = mail.message["Subject"].strip()
    assert len(subject) <= 120
    assert subject.startswith("Nightly xxx")
    assert "https[:]//evil[.]example" in subject
    assert mail.message["Bcc"] is None
    text = mail.part("plain")
    assert 17 * 1024 < len(text.encode()) <= 20 * 1024
    assert "… and more. The page has all of it." in text
    assert "Cost: not reported" in text
    (posted,) = hooks.received
    slack = json.loads(posted.body)["text"]
    assert len(slack) <= 3_000
    assert "&lt;b&gt;https[:]//evil[.]example" in slack
    for shown in (subject, text, slack):
        assert not set(shown) & set("\x1b\x00\u202e\ud800")
        assert "//evil" not in shown.replace("[:]//evil", "")
        assert ".evil.example" not in shown
        assert "@all" not in slack


def test_clauses_choose_by_status_output_and_payload(cast):
    def clause(path, op, value):
        return {"path": path, "op": op, "value": value}

    runs = Runs.of(cast)
    wanted = {
        "found": [clause("/output/found", "gt", 0), clause("/payload/day", "eq", "mon")],
        "silent": [clause("/output", "exists", False)],
        "timed out": [clause("/status", "eq", "timed_out")],
        "failed": "failed",
        "others": "always",
    }
    other = cast.add_trigger()
    names = {
        add_channel(
            cast, events=RESULT, tells_when=when, trigger_ids=[other] if name == "others" else None
        ).id: name
        for name, when in ((name, when) for name, when in wanted.items())
    }
    ended = {
        runs.ended(output={"found": 1}, payload={"day": "mon"}): ["found"],
        runs.ended(output={"found": 0}, payload={"day": "mon"}): [],
        runs.ended(output={"found": "1"}): [],
        runs.ended(): ["silent"],
        runs.ended("timed_out"): ["failed", "silent", "timed out"],
    }
    told()
    heard: dict = {run_id: [] for run_id in ended}
    for run_id, channel_id in Notice.objects.values_list("run_id", "channel_id"):
        heard[run_id].append(names[channel_id])
    assert {run_id: sorted(each) for run_id, each in heard.items()} == ended


def test_a_run_that_found_nothing_new_is_told_by_those_alone_that_tell_always(cast):
    runs = Runs.of(cast, before=LOOK)
    exists = [{"path": "/status", "op": "eq", "value": "succeeded"}]
    for when in ("always", "failed", exists):
        add_channel(cast, events=RESULT, tells_when=when)
    quiet, news = runs.quiet(), runs.ended()
    told()
    heard = list(Notice.objects.order_by("id").values_list("run_id", "channel__tells_when"))
    assert sorted(heard, key=str) == sorted(
        [(quiet, "always"), (news, "always"), (news, exists)], key=str
    )


def test_retries_are_told_at_their_end_and_a_late_result_once_more(cast):
    add_channel(cast, events=RESULT)
    runs = Runs.of(cast, max_retries=1)
    first = runs.lost()
    assert told() == []
    second = runs.claimed_retry_of(first)
    runs.lost(second)
    assert told() == [second]
    runs.complete(second)
    assert told() == [second, second]
    canceled = runs.queue()
    runs.cancel(canceled)
    rescued = runs.lost()
    runs.complete(rescued)
    assert told() == [second, second, rescued]


def test_a_run_that_waits_for_a_decision_is_told_when_it_has_expired(cast):
    add_channel(cast, events=RESULT)
    runs = Runs.of(cast)
    run_id = runs.waiting()
    assert told() == []
    runs.wait(minutes=10)
    runs.expire_queued()
    assert told() == [run_id]


def test_a_flood_of_results_is_twenty_notices_and_a_digest_and_holds_back_no_incident(
    cast, hooks, open_incidents
):
    add_channel(cast, "slack", events=[*RESULT, "trigger_failing"], url=hooks.url())
    runs = Runs.of(cast)
    for number in range(MAX_AN_HOUR + 2):
        runs.ended(shortMessage=f"Number {number}.")
    while tell_outcomes(limit=4, now=NOON):
        pass
    send_due(NOON)
    assert len(hooks.received) == MAX_AN_HOUR
    # Incidents have a limit and a digest of their own.
    open_incidents(MAX_AN_HOUR + 3, now=NOON, name="Trigger {}")
    send_due(NOON)
    texts = [json.loads(each.body)["text"] for each in hooks.received[MAX_AN_HOUR:]]
    assert len(texts) == MAX_AN_HOUR
    assert all("is failing" in text for text in texts)
    send_due(NOON + timedelta(hours=1))
    digests = sorted(json.loads(each.body)["text"] for each in hooks.received[2 * MAX_AN_HOUR :])
    assert [digest.partition(" (")[0] for digest in digests] == [
        "2 notices were held back since Fri 1 Jan 2100, 12:00 UTC",
        "3 notices were held back since Fri 1 Jan 2100, 12:00 UTC",
    ]
    assert "Nightly report: Number 20.\nNightly report: Number 21.\n" in digests[0]
    assert "Trigger Trigger 20 is failing" in digests[1]


def test_an_end_pays_nothing_without_such_a_channel_and_one_statement_with_it(cast):
    runs = Runs.of(cast, webhook_url=None)
    runs.ended()

    def statements():
        run_id = runs.running()
        with CaptureQueriesContext(
            connection,
        ) as captured:
            runs.complete(run_id)
        return len(captured)

    without = statements()
    add_channel(cast)
    assert statements() == without
    for _ in range(3):
        add_channel(cast, events=RESULT, tells_when=[{"path": "", "op": "exists", "value": True}])
    assert statements() == without + 1
    assert UntoldOutcome.objects.count() == 1


def test_telling_takes_as_many_statements_for_many_outcomes_as_for_one(cast):
    clauses = [{"path": "/output/found", "op": "gt", "value": 0}]
    for when in ("always", clauses):
        add_channel(cast, "webhook", events=["run.ended", *RESULT], tells_when=when)
    runs = Runs.of(cast, retry_mode="resume", alert_after_failures=None, webhook_url=None)

    def statements(count):
        for _ in range(count):
            runs.ended(
                "failed", faultClass="infra", toolCalls={"total": 1, "effects": 1, "unknown": 0}
            )
        with CaptureQueriesContext(connection) as captured:
            assert tell_outcomes() == count
        return len(captured)

    assert statements(1) == statements(5)


@pytest.mark.parametrize("kept", [False, True], ids=["for values", "kept"])
def test_of_many_environments_only_the_first_outcome_of_each_is_read(cast, kept):
    for each in (cast, make_cast()):
        add_channel(each, events=RESULT)
        Runs.of(each).ended()
    firsts = set(UntoldOutcome.objects.values_list("run_id", flat=True))
    for outcome in UntoldOutcome.objects.all():
        copy_row(
            UntoldOutcome,
            outcome.id,
            200,
            id="overlay(gen_random_uuid()::text PLACING 'f' FROM 1)::uuid",
        )
    prefer_indexes()
    with explained(kept=kept) as plans:
        assert tell_outcomes(limit=2) == 2
    assert set(Notice.objects.values_list("run_id", flat=True)) == firsts
    # One to find each environment, the first of each, and each of these to lock and to delete it.
    assert plans.rows_read("untold_outcome") <= 4 * 2 + 1
    assert UntoldOutcome.objects.count() == 400


def test_environments_take_turns(cast):
    floods = [cast, make_cast()]
    for each in floods:
        add_channel(each, events=RESULT)
    for _ in range(5):
        Runs.of(cast).ended()
    late = Runs.of(floods[1]).ended()
    assert tell_outcomes(limit=4) == 3  # Two of the flood, and the only other one.
    assert Notice.objects.filter(run_id=late).exists()


def test_clauses_that_take_long_leave_the_other_outcomes_to_the_next_turn(cast, monkeypatch):
    add_channel(cast, events=RESULT)
    runs = Runs.of(cast)
    ended = {runs.ended() for _ in range(3)}
    monkeypatch.setattr("pipedai.turns.TURN_SECONDS", -1.0)
    assert [tell_outcomes() for _ in range(4)] == [1, 1, 1, 0]
    assert {notice.run_id for notice in Notice.objects.all()} == ended
