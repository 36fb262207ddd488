"""What needs somebody: `attention`, `approval`, `event`, `worker`; and `open`, which leads to the console."""

from __future__ import annotations

import webbrowser
from typing import Any

import click

from pipedai_cli.errors import wrong_usage
from pipedai_cli.session import Session, found_by, json_option, limit_option, with_session
from pipedai_cli.text import local_time

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
    if session.as_json:
        session.out.json(answer)
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
            session.out.line(f"  → {item['remedy']['text']}")
    if answer["total"] > len(answer["items"]):
        session.out.line(f"And {answer['total'] - len(answer['items'])} more.")


@click.group()
def worker() -> None:
    """Look at the machines that execute runs."""


@worker.command("list")
@limit_option
@json_option
@with_session
def list_workers(session: Session, limit: int) -> None:
    """List workers.

    \b
      pipedai worker list
    """
    session.out.items(
        session.api.items(f"{session.environment}/workers", limit),
        ("NAME", "STATUS", "RUNS", "LAST CALL", "VERSION", "ID"),
        lambda row: (
            row["label"] or row["hostname"],
            row["derivedStatus"],
            f"{row['heldRuns']} of {row['maxConcurrency']}",
            local_time(row["lastSeenAt"]),
            row["version"],
            row["id"],
        ),
        none="There are no workers.",
    )


@click.group()
def approval() -> None:
    """Look at calls that wait for a person. A person decides, in the console."""


@approval.command("list")
@click.option("--status", default="pending", show_default=True, help="Which ones.")
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
        ("SINCE", "UNTIL", "STATUS", "TOOL", "TRIGGER", "ID"),
        lambda row: (
            local_time(row["createdAt"]),
            local_time(row["expiresAt"]),
            row["status"],
            row["tool"],
            row.get("triggerName"),
            row["id"],
        ),
        none="Nothing waits for a person.",
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
    """Look at the events that came in, what was decided about each, and replay them."""


@event.command("list")
@click.option("--source", required=True, help="Their source: its id, key or name.")
@click.option("--decision", help="Only those with this: fired, filtered, coalesced or refused.")
@limit_option
@json_option
@with_session
def list_events(session: Session, source: str, decision: str | None, limit: int) -> None:
    """List the events of a source with what was decided.

    \b
      pipedai event list --source github --decision filtered
    """
    found = found_by(session, "sources", source)
    session.out.items(
        session.api.items(f"/sources/{found['id']}/events", limit, decision=decision),
        ("RECEIVED", "TYPE", "DECISIONS", "ID"),
        lambda row: (
            local_time(row["receivedAt"]),
            row["type"],
            ", ".join(_decided(each) for each in row["decisions"]) or "nobody listens",
            row["id"],
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
    if session.as_json:
        session.out.json(answer)
    else:
        session.out.line(f"The event is decided anew as {answer['id']}.")


_PAGES = {"trigger": "triggers", "run": "runs", "approval": "approvals"}


@click.command("open")
@click.argument("kind", required=False, type=click.Choice([*_PAGES, "console"]), default="console")
@click.argument("id", required=False)
@with_session
def open_page(session: Session, kind: str, id: str | None) -> None:  # noqa: A002 - the argument's name in --help
    """Open the console, or the page of a trigger, a run or an approval.

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
