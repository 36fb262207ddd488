"""What needs somebody: `attention`, `approval`, `event`, `worker`; and `open`, which leads to the console."""

from __future__ import annotations

import webbrowser
from typing import Any

import click

from pipedai_cli.api import wrong_usage
from pipedai_cli.output import local_time, without_calls
from pipedai_cli.session import Session, found_by, json_option, limit_option, with_session

Json = dict[str, Any]


@click.command()
@json_option
@with_session
def attention(session: Session) -> None:
    """Show what somebody has to see to, why, and what to do.

    \b
      pipedai attention
    """
    answer = session.api.get(f"{session.environment}/attention")
    if session.out.printed_json(answer):
        return
    if not answer["items"]:
        session.out.line("Nothing needs you.")
    for item in answer["items"]:
        told = f", {len(item['toldTo'])} told" if item["toldTo"] else ""
        session.out.line(f"{item['kind']} since {local_time(item['since'])}{told}", style="bold")
        session.out.line(f"  {item['summary']}")
        for line in (item["error"] or "").splitlines():
            session.out.line(f"  {line}")
        if item["remedy"]:
            session.out.line(f"  → {without_calls(item['remedy']['text'])}")
        if item["runId"]:
            session.out.line(f"  → `pipedai run explain {item['runId']}` says more.")
    if answer["total"] > len(answer["items"]):
        session.out.line(f"And {answer['total'] - len(answer['items'])} more.")


@click.group()
def worker() -> None:
    """Look at the machines that execute runs.

    \b
      pipedai worker list
    """


@worker.command("list")
@limit_option
@json_option
@with_session
def list_workers(session: Session, limit: int) -> None:
    """List workers. Files name them by their hostnames.

    \b
      pipedai worker list
    """
    session.out.items(
        session.api.items(f"{session.environment}/workers", limit),
        ("NAME", "HOSTNAME", "STATUS", "RUNS", "LAST CALL", "VERSION"),
        lambda row: (
            row["label"],
            row["hostname"],
            row["derivedStatus"],
            f"{row['heldRuns']} of {row['maxConcurrency']}",
            local_time(row["lastSeenAt"]),
            row["version"],
        ),
        none="There are no workers.",
    )


@click.group()
def approval() -> None:
    """Look at calls that wait for a person. A person decides, in the console.

    \b
      pipedai approval list
    """


@approval.command("list")
@click.option(
    "--status",
    default="pending",
    show_default=True,
    help="Only pending, approved, rejected, expired or withdrawn ones.",
)
@limit_option
@json_option
@with_session
def list_approvals(session: Session, status: str, limit: int) -> None:
    """List approvals.

    \b
      pipedai approval list
    """
    session.out.items(
        session.api.items(f"{session.environment}/approvals", limit, status=status),
        ("ID", "UNTIL", "TOOL", "TRIGGER", "STATUS", "SINCE"),
        lambda row: (
            row["id"],
            local_time(row["expiresAt"]),
            row["tool"],
            row.get("triggerName"),
            row["status"],
            local_time(row["createdAt"]),
        ),
        none=f"There are no {status} approvals.",
    )


@approval.command("open")
@click.argument("approval")
@with_session
def open_approval(session: Session, approval: str) -> None:
    """Open an approval in the console, where you decide.

    \b
      pipedai approval open 01a20e61-ca1d-70a4-93ed-0e69c8149037
    """
    _open(session, f"approvals/{session.api.get(f'/approvals/{approval}')['id']}")


@click.group()
def event() -> None:
    """Look at events, what was decided about each, and replay them.

    \b
      pipedai event list
    """


@event.command("list")
@click.option("--source", help="Only those of this source: its id, key or name.")
@click.option("--decision", help="Only those with this: fired, filtered, coalesced or refused.")
@limit_option
@json_option
@with_session
def list_events(session: Session, source: str | None, decision: str | None, limit: int) -> None:
    """List events with what was decided about each.

    \b
      pipedai event list
      pipedai event list --source github --decision filtered
    """
    source_id = source and found_by(session, "sources", source)["id"]
    session.out.items(
        session.api.items(
            f"{session.environment}/events", limit, sourceId=source_id, decision=decision
        ),
        ("ID", "RECEIVED", "TYPE", "DECISIONS"),
        lambda row: (
            row["id"],
            local_time(row["receivedAt"]),
            row["type"],
            ", ".join(_decided(each) for each in row["decisions"]) or "nobody listens",
        ),
        none="There are no events.",
    )


def _decided(decision: Json) -> str:
    code = decision.get("code")
    return f"{decision['decision']} ({code})" if code else str(decision["decision"])


@event.command()
@click.argument("event")
@json_option
@with_session
def replay(session: Session, event: str) -> None:
    """Decide anew about an event, as a new one.

    \b
      pipedai event replay 01a20e61-ca1d-70a4-93ed-0e69c8149037
    """
    answer = session.api.post(f"/events/{event}/replay")
    if not session.out.printed_json(answer):
        session.out.line(f"The event is decided anew as {answer['id']}.")


_PAGES = {"trigger": "triggers", "run": "runs", "approval": "approvals"}


@click.command("open")
@click.argument("kind", required=False, type=click.Choice([*_PAGES, "console"]), default="console")
@click.argument("id", required=False)
@with_session
def open_page(session: Session, kind: str, id: str | None) -> None:  # noqa: A002 - the argument's name in --help
    """Open the console, or a page of it.

    \b
      pipedai open
      pipedai open trigger nightly
    """
    if kind == "console":
        _open(session, f"environments/{session.environment_id}/attention")
        return
    if id is None:
        raise wrong_usage(f"Say which {kind} to open.")
    if kind == "trigger":
        id = found_by(session, "triggers", id)["id"]  # noqa: A001
    _open(session, f"{_PAGES[kind]}/{id}")


def _open(session: Session, path: str) -> None:
    url = session.console(path)
    session.out.line(url)
    if session.out.shows_progress:
        webbrowser.open(url)


COMMANDS = [attention, approval, event, worker, open_page]
