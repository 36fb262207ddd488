"""The commands `trigger` and `run`, which show triggers and runs, and start, repeat and stop them."""

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import click

from pipedai_cli.api import Exit, Failure, Json, wrong_usage
from pipedai_cli.output import dollars, duration, local_time, shorten, without_calls
from pipedai_cli.session import Session, examples, found_by, with_json, with_limit

_ENDINGS = {"failed": "failed", "timed_out": "timed out", "canceled": "was canceled"}
# A run in the queue has no stream, so the command asks for it again after this many seconds.
_LOOK_SECONDS = 1.0
# The command ends when its stream has broken this often in a row without a new event in between.
_MOST_BREAKS = 5
_LONGEST_EVENT = 2000

_FORCE = click.option("--force", is_flag=True, help="Start the agent also if nothing is new.")


@click.group(epilog=examples("pipedai run list --status failed"))
def run() -> None:
    """Look at runs: list, follow, explain, repeat and cancel them."""


@run.command(
    "list",
    epilog=examples(
        "pipedai run list --status failed,timed_out", "pipedai run list --trigger nightly --limit 5"
    ),
)
@click.option("--trigger", help="Only the runs of this trigger: its id, key or name.")
@click.option("--status", help="Only runs in these states, separated by commas.")
@with_limit
def list_runs(session: Session, trigger: str | None, status: str | None, limit: int) -> None:
    """List runs, the newest first."""
    session.show_rows(
        "runs",
        limit,
        {
            "ID": "id",
            "STATUS": "status",
            "QUEUED": lambda row: local_time(row["queuedAt"]),
            "TRIGGER": "triggerName",
            "TOOK": lambda row: duration(row["durationMs"]),
            "COST": lambda row: dollars(row["costUsd"]),
            "MESSAGE": lambda row: row["errorMessage"] or row["shortMessage"],
        },
        triggerId=session.id_of("triggers", trigger),
        status=status,
    )


@run.command(epilog=examples("pipedai run show 01a20e61-ca1d-70a4-93ed-0e69c8149037"))
@click.argument("run")
@with_json
def show(session: Session, run: str) -> None:
    """Show a run: how it ended, what it said, took and cost."""
    show_run(session, session.api.get(f"/runs/{run}"))


@run.command(epilog=examples("pipedai run logs RUN --follow"))
@click.argument("run")
@click.option("--follow", "-f", is_flag=True, help="Go on until the run ends.")
@with_json
def logs(session: Session, run: str, follow: bool) -> None:
    """Show what happened during a run.

    Which runs have events is the trigger's recordEvents. With `--follow` they come while it
    runs, unless that is `never`.
    """
    last = 0
    why_none = None
    while True:
        page = session.api.get(f"/runs/{run}/events", after=last, limit=200)
        for event in page["items"]:
            _show_event(session, event)
            last = event["seq"]
        why_none = page["whyNone"]
        if last >= page["lastSeq"] or not page["items"]:
            break
    if follow:
        follow_events(session, run, last, to_the_end=True)
    elif not last and why_none and not session.as_json:
        session.out.note(why_none)


@run.command(epilog=examples("pipedai run explain 01a20e61-ca1d-70a4-93ed-0e69c8149037"))
@click.argument("run")
@with_json
def explain(session: Session, run: str) -> None:
    """Say why a run waits, or how it ended.

    It also says who holds a run that goes on, and whether one that failed is retried.
    """
    answer = session.api.get(f"/runs/{run}/explain")
    if session.out.printed_json(answer):
        return
    session.out.line(answer["summary"])
    for reason in answer["waitingFor"]:
        session.out.line(f"- {reason['message']} ({reason['code']})")
        if reason["remedy"]:
            session.out.line(f"  → {without_calls(reason['remedy'])}")
    for told in answer["advice"]:
        session.out.line(f"! {told['subject']['name']}: {told['message']}")
    ended = answer["ended"]
    if ended and ended["message"] and answer["status"] != "succeeded":
        session.out.line(ended["message"])
        session.out.line(f"→ `pipedai run logs {run}` shows what it did.")


@run.command(epilog=examples("pipedai run rerun 01a20e61-ca1d-70a4-93ed-0e69c8149037 --wait"))
@click.argument("run")
@_FORCE
@click.option("--wait", is_flag=True, help="Follow the new run, and exit as it ends.")
@with_json
def rerun(session: Session, run: str, force: bool, wait: bool) -> None:
    """Run the trigger again with the payload of this run.

    What the first run did, it may do once more: `pipedai run show` counts its effects.
    """
    body = {"force": True} if force else None
    _show_queued(session, session.api.queue(f"/runs/{run}/rerun", body), wait=wait)


@run.command(epilog=examples("pipedai run cancel 01a20e61-ca1d-70a4-93ed-0e69c8149037"))
@click.argument("run")
@with_json
def cancel(session: Session, run: str) -> None:
    """Cancel a run: at once in the queue, else when its worker hears."""
    show_run(session, session.api.post(f"/runs/{run}/cancel"))


def show_run(session: Session, row: Json) -> None:
    if session.out.printed_json(row):
        return
    calls = row.get("toolCalls") or {}
    output = row.get("output")
    session.out.details(
        [
            ("run", row["id"]),
            ("trigger", row["triggerName"]),
            ("status", f"{row['status']}{', nothing was new' * bool(row.get('nothingNew'))}"),
            ("fault", row["faultClass"] if row["faultClass"] not in (None, "none") else None),
            ("error", row["errorMessage"]),
            ("message", row["shortMessage"]),
            ("queued", local_time(row["queuedAt"])),
            ("ended", row["endedAt"] and local_time(row["endedAt"])),
            ("took", row["durationMs"] and duration(row["durationMs"])),
            ("cost", row["costUsd"] and dollars(row["costUsd"])),
            (
                "tool calls",
                f"{calls['total']}, {calls['effects']} with possible effects" if calls else None,
            ),
            ("retry", "a retry follows" if row["willRetry"] else None),
            ("output", output and json.dumps(output, indent=2, ensure_ascii=False)),
        ]
    )


def _show_queued(session: Session, queued: Json, *, wait: bool) -> None:
    """Show a run that was queued. With `wait`, follow it to its end first; raises Failure unless it then succeeded."""
    if not wait:
        show_run(session, queued)
        return
    run_id = queued["id"]
    if not session.as_json:
        session.out.note(f"Run {run_id} of {queued['triggerName']} is queued.")
    row = follow_events(session, run_id, 0, quiet=session.as_json)
    show_run(session, row)
    if row["status"] == "waiting":
        raise Failure(
            Exit.WAITS_FOR_A_PERSON,
            f"The run waits for a person's approval: {session.console(f'runs/{run_id}')}",
        )
    if row["status"] != "succeeded":
        raise Failure(
            Exit.NOT_SUCCEEDED,
            f"The run {_ENDINGS.get(row['status'])}. `pipedai run explain {run_id}` says why.",
        )


def follow_events(
    session: Session, run_id: str, after: int, *, quiet: bool = False, to_the_end: bool = False
) -> Json:
    """Show a run's events until it ends or waits for a person, and return the run. With `to_the_end`, events that come
    after the run has ended are shown too.
    """
    path, last, breaks, is_over = f"/runs/{run_id}", after, 0, False
    # The API refuses this if it is asked too often. The events that are kept anyway are then shown.
    with contextlib.suppress(Failure):
        session.api.post(f"{path}/watch")
    while True:
        row: Json = session.api.get(path)
        if is_over or row["status"] == "waiting":
            return row
        if row["status"] in {"queued", "claimed"}:
            # No event can come yet, and a person who waits wants to know why.
            with session.out.progress(_why(session, run_id)):
                time.sleep(_LOOK_SECONDS)
            continue
        try:
            for event in _streamed(session, path, last, to_the_end=to_the_end):
                if event is None:
                    is_over = True
                else:
                    last, breaks = event["seq"], 0
                    if not quiet:
                        _show_event(session, event)
        except Failure as failure:
            breaks += 1
            if failure.exit_code != Exit.UNREACHABLE or breaks >= _MOST_BREAKS:
                raise
        if not is_over:
            time.sleep(_LOOK_SECONDS)


def _streamed(session: Session, path: str, last: int, *, to_the_end: bool) -> Iterator[Json | None]:
    """Yield the events after `last`, and None if no more will come. Before the first, show that the run goes on."""
    stream = session.api.stream(f"{path}/events/stream", last)
    with session.out.progress("It runs.") as hide, stream as events:
        for name, data in events or [("end", {})]:
            stops = data.get("status") == "waiting" or not to_the_end
            if name == "end" or (name == "status" and stops):
                yield None
                return
            if isinstance(data.get("seq"), int):
                hide()
                yield data


def _why(session: Session, run_id: str) -> str:
    if not session.out.shows_progress:
        return ""
    try:
        return str(session.api.get(f"/runs/{run_id}/explain")["summary"])
    except Failure:
        return "Waiting."


def _show_event(session: Session, event: Json) -> None:
    if session.as_json:
        session.out.line(json.dumps(event, ensure_ascii=True))
        return
    kind = str(event.get("type"))
    text = event.get("text")
    if text is None:
        data = event.get("data")
        text = "" if data is None else json.dumps(data, ensure_ascii=False)
    style = "dim" if kind in {"thinking", "system"} else ""
    first, *others = shorten(str(text), _LONGEST_EVENT).splitlines() or [""]
    session.out.line(
        f"{local_time(event.get('at'), '%H:%M:%S', '--:--:--')}  {kind:<12}  {first}", style=style
    )
    for line in others:
        session.out.line(f"{'':24}{line}", style=style)


_LARGEST_PAYLOAD = 64 * 1024


@click.group(epilog=examples("pipedai trigger list"))
def trigger() -> None:
    """Look at triggers, run them, pause and resume them."""


@trigger.command("list", epilog=examples("pipedai trigger list --health failing,late"))
@click.option("--health", help="Only those that are idle, failing, late, paused or ok.")
@click.option("--name", help="Only those whose name contains this.")
@with_limit
def list_triggers(session: Session, health: str | None, name: str | None, limit: int) -> None:
    """List triggers, the newest first."""
    session.show_rows(
        "triggers",
        limit,
        {
            "NAME": "name",
            "HEALTH": "health",
            "NEXT DUE": lambda row: local_time(row["nextRunAt"]),
            "LAST RUN": lambda row: (row["lastRun"] or {}).get("status"),
            "SCHEDULE": "schedule",
            "ID": "id",
        },
        health=health,
        name=name,
    )


@trigger.command("show", epilog=examples('pipedai trigger show "Morning report"'))
@click.argument("trigger")
@with_json
def show_trigger(session: Session, trigger: str) -> None:
    """Show a trigger, by its id, key or name."""
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


@trigger.command(
    "run",
    epilog=examples(
        "pipedai trigger run nightly --wait",
        "pipedai trigger run nightly --payload '{\"ticket\": 7}'",
    ),
)
@click.argument("trigger")
@click.option("--payload", help="JSON for the run, or @FILE.")
@_FORCE
@click.option("--wait", is_flag=True, help="Follow the run, and exit as it ends.")
@with_json
def run_trigger(
    session: Session, trigger: str, payload: str | None, force: bool, wait: bool
) -> None:
    """Queue a run of a trigger.

    With --wait it exits with 0 if the run succeeded, 1 if it ended otherwise, 5 if it waits for a person.
    """
    row = found_by(session, "triggers", trigger)
    body: Json = {"payload": _payload(payload)} if payload is not None else {}
    body |= {"force": True} if force else {}
    _show_queued(session, session.api.queue(f"/triggers/{row['id']}/run", body), wait=wait)


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


@trigger.command(epilog=examples("pipedai trigger pause nightly"))
@click.argument("trigger")
@with_json
def pause(session: Session, trigger: str) -> None:
    """Let a trigger fire no more, until you resume it.

    Runs that are queued still run.
    """
    _enable(session, trigger, enabled=False)


@trigger.command(epilog=examples("pipedai trigger resume nightly"))
@click.argument("trigger")
@with_json
def resume(session: Session, trigger: str) -> None:
    """Let a paused trigger fire again."""
    _enable(session, trigger, enabled=True)


def _enable(session: Session, given: str, *, enabled: bool) -> None:
    row = found_by(session, "triggers", given)
    changed = session.api.ask("PATCH", f"/triggers/{row['id']}", json={"enabled": enabled})
    if session.out.printed_json(changed):
        return
    due = changed["nextRunAt"]
    then = f" It is next due at {local_time(due)}." if due else ""
    session.out.line(f"{changed['name']} is {'enabled' if enabled else 'paused'}.{then}")


COMMANDS = [trigger, run]
