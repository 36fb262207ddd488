"""`pipedai trigger …`: look at triggers, run, pause and resume them."""

from __future__ import annotations

import json
from typing import Any

import click

from pipedai_cli.api import wrong_usage
from pipedai_cli.commands.runs import show_run, wait_for
from pipedai_cli.output import local_time
from pipedai_cli.session import Session, found_by, json_option, limit_option, with_session

_LARGEST_PAYLOAD = 64 * 1024


@click.group()
def trigger() -> None:
    """Look at triggers, run them, pause and resume them.

    \b
      pipedai trigger list
    """


@trigger.command("list")
@click.option("--health", help="Only those that are idle, failing, late, paused or ok.")
@click.option("--name", help="Only those whose name contains this.")
@limit_option
@json_option
@with_session
def list_triggers(session: Session, health: str | None, name: str | None, limit: int) -> None:
    """List triggers, the newest first.

    \b
      pipedai trigger list --health failing,late
    """
    session.out.items(
        session.api.items(f"{session.environment}/triggers", limit, health=health, name=name),
        ("NAME", "HEALTH", "NEXT DUE", "LAST RUN", "SCHEDULE", "ID"),
        lambda row: (
            row["name"],
            row["health"],
            local_time(row["nextRunAt"]),
            (row["lastRun"] or {}).get("status"),
            row["schedule"],
            row["id"],
        ),
        none="There are no triggers.",
    )


@trigger.command()
@click.argument("trigger")
@json_option
@with_session
def show(session: Session, trigger: str) -> None:
    """Show a trigger, by its id, key or name.

    \b
      pipedai trigger show "Morning report"
    """
    row = found_by(session, "triggers", trigger)
    if session.out.printed_json(row):
        return
    last = row["lastRun"] or {}
    session.out.details(
        [
            ("name", row["name"]),
            ("id", row["id"]),
            ("key", row.get("key")),
            ("enabled", "yes" if row["enabled"] else "no"),
            ("health", row["health"]),
            ("schedule", row["schedule"] and f"{row['schedule']} ({row['timezone']})"),
            ("next due", row["nextRunAt"] and local_time(row["nextRunAt"])),
            (
                "last run",
                last and f"{last['status']}, {local_time(last['queuedAt'])}, {last['id']}",
            ),
            ("server", row["mcpUrl"]),
            ("model", row["model"]),
            ("prompt", row["prompt"]),
        ]
    )


@trigger.command()
@click.argument("trigger")
@click.option("--payload", help="JSON for the run, or @FILE.")
@click.option("--wait", is_flag=True, help="Follow the run, and exit as it ends.")
@json_option
@with_session
def run(session: Session, trigger: str, payload: str | None, wait: bool) -> None:
    """Queue a run of a trigger.

    With --wait it exits with 0 if the run succeeded, 1 if it ended otherwise, 5 if it waits for a person.

    \b
      pipedai trigger run nightly --wait
      pipedai trigger run nightly --payload '{"ticket": 7}'
    """
    row = found_by(session, "triggers", trigger)
    body = {"payload": _payload(payload)} if payload is not None else {}
    queued = session.api.queue(f"/triggers/{row['id']}/run", body)
    if wait:
        wait_for(session, queued)
    else:
        show_run(session, queued)


def _payload(given: str) -> Any:
    if given.startswith("@"):
        try:
            with click.open_file(given[1:], "rb") as file:
                text = file.read(_LARGEST_PAYLOAD + 1)
        except OSError as error:
            raise wrong_usage(f"{given[1:]} can't be read: {error.strerror}.") from None
    else:
        text = given.encode()
    if len(text) > _LARGEST_PAYLOAD:
        raise wrong_usage("A payload has 64 KiB at most.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise wrong_usage(f"The payload is no JSON: {error}.") from None


@trigger.command()
@click.argument("trigger")
@json_option
@with_session
def pause(session: Session, trigger: str) -> None:
    """Let a trigger fire no more, until you resume it.

    Runs that are queued still run.

    \b
      pipedai trigger pause nightly
    """
    _enable(session, trigger, enabled=False)


@trigger.command()
@click.argument("trigger")
@json_option
@with_session
def resume(session: Session, trigger: str) -> None:
    """Let a paused trigger fire again.

    \b
      pipedai trigger resume nightly
    """
    _enable(session, trigger, enabled=True)


def _enable(session: Session, given: str, *, enabled: bool) -> None:
    row = found_by(session, "triggers", given)
    changed = session.api.ask("PATCH", f"/triggers/{row['id']}", json={"enabled": enabled})
    if session.out.printed_json(changed):
        return
    due = changed["nextRunAt"]
    then = f" It is next due at {local_time(due)}." if due else ""
    session.out.line(f"{changed['name']} is {'enabled' if enabled else 'paused'}.{then}")


COMMANDS = [trigger]
