"""`manage.py explain RUN|TRIGGER [--at TIME]` prints explanations in words."""

import io
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from pipedai.ids import new_id
from testing.world.cast import Cast
from testing.world.runs import Runs
from triggers.models import Trigger
from triggers.schedules.firing import fire_due_ticks


def explain(subject: UUID, *options: str) -> list[str]:
    printed = io.StringIO()
    call_command("explain", str(subject), *options, stdout=printed)
    return printed.getvalue().splitlines()


def test_a_waiting_run_is_printed_with_what_to_do(runs: Runs) -> None:
    run_id = runs.queue()
    assert explain(run_id) == [
        f"Run {run_id}, queued: Machine host-1 has never called.",
        "- worker_offline: Machine host-1 has never called.",
        (
            "  Start the worker program on host-1, or give the trigger another machine with PATCH /triggers/:id"
            " (workerId)."
        ),
    ]


def test_a_held_and_an_ended_run_are_printed(runs: Runs) -> None:
    run_id = runs.running()
    assert "- lease until 2026-05-04T12:03:00.000Z" in explain(run_id)
    runs.lost(run_id)
    retry = runs.retry_of(run_id)
    assert retry is not None
    first, message, last = explain(run_id)
    assert first.startswith(
        f"Run {run_id}, failed: Failed, because its machine fell silent, at 2026-05-04 12:03 UTC; its retry has been "
    )
    assert message == "- worker lost: no heartbeat for 180 s"
    assert last == f"- retry {retry['id']}"


def test_a_message_of_several_lines_is_printed_as_such(runs: Runs) -> None:
    run_id = runs.ended("failed", errorMessage="It broke.\r\n- retry faked\n\x1b[2J")
    assert explain(run_id)[1:] == ["- It broke.", "  - retry faked", "  \\x1b[2J"]


def test_a_due_time_is_printed_with_its_run(cast: Cast, runs: Runs) -> None:
    due = runs.now
    triggers = Trigger.objects.filter(id=cast.trigger_id)
    triggers.update(schedule="0 12 * * *", next_run_at=due, created_at=runs.wait(days=-1))
    fire_due_ticks(now=due)
    first, *_, reason, _ = explain(cast.trigger_id, "--at", "2026-05-04T14:10:00+02:00")
    assert first.startswith("fired: 2026-05-04 12:00 UTC was due and made a run.")
    assert reason.startswith("- worker_offline")
    assert "- due time after it: 2026-05-05T12:00:00.000Z" in explain(
        cast.trigger_id, "--at", "2026-05-04T13:00Z"
    )
    triggers.update(timezone="Asia/Kolkata")
    bare = explain(cast.trigger_id, "--at", "2026-05-04T17:31")
    assert bare == explain(cast.trigger_id, "--at", "2026-05-04T12:01Z")


def test_what_is_not_there_or_cannot_be_meant_is_said(runs: Runs) -> None:
    run_id = runs.queue()
    for subject, at, words in (
        (new_id(), [], "no run and no trigger"),
        (run_id, ["--at", "2026-05-04T12:00:00Z"], "--at is for triggers, and this is a run."),
        (runs.trigger_id, ["--at", "noon"], "--at: Must be an ISO 8601 time"),
        (runs.trigger_id, ["--at", "9000-01-01"], "--at: Must be"),
    ):
        with pytest.raises(CommandError, match=words):
            explain(subject, *at)
