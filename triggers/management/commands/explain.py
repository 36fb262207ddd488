"""`manage.py explain RUN|TRIGGER`: says in words why a run was not executed, or what became of a due time."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from django.core.management.base import CommandError, CommandParser

from pipedai.api.renderers import iso_time
from pipedai.management.operator_command import OperatorCommand
from pipedai.redaction import escape_control
from triggers.explain.answers import RunExplanation, TriggerExplanation
from triggers.explain.due_times import explain_trigger, time_in_question
from triggers.explain.runs import explain_run


class Command(OperatorCommand):
    help = (
        "Say why a run has not run, or what became of a due time of a trigger: what the run waits for"
        " and what to do about it, who holds it, how it ended, and whether it is retried. Changes"
        " nothing and shows no secret."
    )
    examples = """examples:
  manage.py explain 01a20e61-ca1d-70a4-93ed-0e69c8149037
                                      a run, or the last due time of a trigger
  manage.py explain 01a20e61-c9a4-74d9-ad24-2227f84af627 --at 2026-11-24T09:00:00+01:00
                                      the due time of a trigger at that time, or the next before it

Exits with 1 if there is no such run or trigger.
"""

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", metavar="RUN|TRIGGER", type=UUID, help="the id of either")
        parser.add_argument(
            "--at",
            metavar="TIME",
            help="the time in question, in ISO 8601, in the trigger's time zone unless it has an offset;"
            " now by default",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            at = time_in_question(options["at"], options["id"])
        except ValueError as error:
            raise CommandError(f"--at: {error}") from None
        if at is None and (run := explain_run(options["id"])):
            lines = _run_lines(run)
        elif trigger := explain_trigger(options["id"], at=at):
            lines = _trigger_lines(trigger)
        elif at is not None and explain_run(options["id"]):
            raise CommandError("--at is for triggers, and this is a run.")
        else:
            raise CommandError("There is no run and no trigger with this id.")
        for line in lines:
            # A worker's message may have several lines. Those after the first are indented, so none looks like ours.
            text = "\n  ".join(line.splitlines())
            self.stdout.write(escape_control(text, keep_lines=True))


def _run_lines(run: RunExplanation) -> Iterator[str]:
    yield f"Run {run.run_id}, {run.status}: {run.summary}"
    for reason in run.waiting_for:
        yield f"- {reason.code}: {reason.message}"
        if reason.remedy:
            yield f"  {reason.remedy}"
    if run.held:
        yield f"- last heartbeat {iso_time(run.held.last_heartbeat_at)}"
        yield f"- lease until {iso_time(run.held.lease_expires_at)}"
        yield f"- deadline {iso_time(run.held.deadline_at)}"
    if run.event:
        yield f"- queued by event {run.event.id} of {run.event.source.name}"
    if run.ended and run.ended.message:
        yield f"- {run.ended.message}"
    if run.retry and run.retry.run_id:
        yield f"- retry {run.retry.run_id}"


def _trigger_lines(trigger: TriggerExplanation) -> Iterator[str]:
    yield f"{trigger.decision}: {trigger.message}"
    for name, moment in (
        ("before", trigger.previous_due_at),
        ("after", trigger.next_due_at),
    ):
        if moment is not None:
            yield f"- due time {name} it: {iso_time(moment)}"
    if trigger.last_event:
        yield f"- {trigger.last_event.message}"
    if trigger.run:
        yield from _run_lines(trigger.run)
