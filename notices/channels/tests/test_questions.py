"""Who is told of a call to decide about: once when the run asks, once more later, and what is said if nobody was."""

from functools import partial

import pytest

from accounts.models import User
from notices.attention import find_attention
from notices.channels.outcomes import remind_of_questions
from notices.channels.tests.conftest import send_due
from notices.models import Notice
from pipedai.sql import database_now
from testing.probes.plans import explained, prefer_indexes
from testing.processes.explain_calls import Calls, only
from testing.processes.racing import ROUNDS, accepted, at_once
from testing.world.channels import add_channel
from testing.world.runs import RULES, Runs
from triggers.models import Trigger
from workspaces.models import Membership


@pytest.fixture
def runs(cast):
    return Runs(cast, cast.trigger_id, now=database_now())


def test_one_reminder_comes_after_three_quarters_of_the_time(runs, mail_server):
    add_channel(runs.cast, "email", events=["approval_requested"])
    run_id = runs.waiting()
    decided = runs.waiting()
    send_due(runs.now)
    runs.wait(minutes=7)
    assert remind_of_questions(now=runs.now) == 0
    runs.decide(decided)
    runs.wait(minutes=1)
    assert [remind_of_questions(now=runs.now) for _ in range(2)] == [1, 0]
    send_due(runs.now)
    *asked, reminder = mail_server.received
    assert [mail.message["Subject"].partition(" (")[0] for mail in asked] == [
        "Trigger Nightly report asks for a decision"
    ] * 2
    assert reminder.message["Subject"].startswith(
        "Trigger Nightly report still asks for a decision"
    )
    assert f"/console/approvals/{runs.approval_of(run_id)['id']}" in reminder.part("plain")


def test_nobody_is_reminded_when_it_is_too_late(runs):
    add_channel(runs.cast, events=["approval_requested"])
    runs.waiting()
    runs.wait(minutes=10)
    assert remind_of_questions(now=runs.now) == 0
    assert runs.expire_queued() == 1


@pytest.mark.parametrize("round_", ROUNDS)
def test_two_schedulers_remind_once(committed_cast, round_):
    add_channel(committed_cast, events=["approval_requested"])
    runs = Runs(committed_cast, committed_cast.trigger_id, now=database_now())
    runs.waiting()
    runs.wait(minutes=8)
    assert sum(accepted(at_once(*[partial(remind_of_questions, now=runs.now)] * 3))) == 1
    assert Notice.objects.count() == 2


def test_the_reminders_that_are_due_are_found_by_an_index(db):
    prefer_indexes()
    with explained("WITH RECURSIVE") as plans:
        remind_of_questions()
    assert "approval" not in plans.read_whole


def told(runs, run_id):
    """Returns what attention says of the run's call, its code and who was told. Explain must say the same."""
    found, _ = find_attention(runs.cast.environment.id, now=runs.now)
    (item,) = [each for each in found if each["kind"] == "approval"]
    reason = only(Calls(runs.cast).explain(str(run_id)))
    assert item["summary"].partition(" reject it.")[2].strip() in reason["message"]
    assert item["reason"] is None or item["remedy"]["text"] in reason["remedy"]
    return item["reason"], sorted(each["email"] or "" for each in item["told"])


def test_attention_and_explain_say_whether_somebody_who_may_decide_was_told(runs, mail_server):
    cast = runs.cast
    owner = {"emails": [cast.owner.email], "events": ["approval_requested"]}
    add_channel(cast, "email", name="Owner", **owner)
    User.objects.update(email_verified_at=None)
    first = runs.waiting()
    # The owner has not confirmed the address, so no mail asks.
    assert told(runs, first) == ("nobody_told", [])
    User.objects.update(email_verified_at=runs.now)
    runs.wait(minutes=8)
    remind_of_questions(now=runs.now)
    assert told(runs, first) == (None, [cast.owner.email])
    Notice.objects.update(status="dead", next_attempt_at=None)
    assert told(runs, first) == ("nobody_told", [cast.owner.email])
    runs.decide(first)

    # Whoever changed the trigger is told, and may not decide.
    Trigger.objects.update(changed_by=cast.owner.id)
    strict = [RULES[0] | {"notRequester": True, "approverRole": "owner"}]
    runs.now = database_now()
    second = runs.running()
    Trigger.objects.update(approvals=strict)
    runs.ask(second)
    assert told(runs, second) == ("nobody_may_decide", [cast.owner.email])
    Membership.objects.filter(user=cast.admin).update(role="owner")
    assert told(runs, second) == ("nobody_told", [cast.owner.email])
    runs.decide(second, by=cast.admin.id)

    # Nobody knows who reads what a channel of Slack says.
    add_channel(cast, "slack", events=["approval_requested"])
    third = runs.running()
    runs.ask(third)
    assert told(runs, third) == (None, ["", cast.owner.email])
