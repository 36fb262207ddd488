"""The commands `attention`, `approval`, `event` and `worker`, `open` for pages of the console, and `mcp` for agents."""

import os
import sys
import webbrowser
from dataclasses import replace
from pathlib import Path

import click

from pipedai_cli.api import Exit, Failure, Json, wrong_usage
from pipedai_cli.output import local_time, without_calls
from pipedai_cli.session import (
    DEFAULT_PROFILE,
    Session,
    examples,
    load_profile,
    with_json,
    with_limit,
    with_session,
)


@click.command(epilog=examples("pipedai attention"))
@with_json
def attention(session: Session) -> None:
    """Show what somebody has to see to, why, and what to do."""
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


@click.group(epilog=examples("pipedai worker list"))
def worker() -> None:
    """Look at the machines that execute runs."""


@worker.command("list", epilog=examples("pipedai worker list"))
@with_limit
def list_workers(session: Session, limit: int) -> None:
    """List machines. Files name them by their hostnames."""
    session.show_rows(
        "workers",
        limit,
        {
            "NAME": "label",
            "HOSTNAME": "hostname",
            "STATUS": "derivedStatus",
            "RUNS": lambda row: f"{row['heldRuns']} of {row['maxConcurrency']}",
            "LAST CALL": lambda row: local_time(row["lastSeenAt"]),
            "VERSION": "version",
        },
        none="There are no machines.",
    )


@click.group(epilog=examples("pipedai approval list"))
def approval() -> None:
    """Look at calls that wait for a person. A person decides, in the console."""


@approval.command("list", epilog=examples("pipedai approval list"))
@click.option(
    "--status",
    default="pending",
    show_default=True,
    help="Only pending, approved, rejected, expired or withdrawn ones.",
)
@with_limit
def list_approvals(session: Session, status: str, limit: int) -> None:
    """List approvals."""
    session.show_rows(
        "approvals",
        limit,
        {
            "ID": "id",
            "UNTIL": lambda row: local_time(row["expiresAt"]),
            "TOOL": "tool",
            "TRIGGER": "triggerName",
            "STATUS": "status",
            "SINCE": lambda row: local_time(row["createdAt"]),
        },
        none=f"There are no {status} approvals.",
        status=status,
    )


@approval.command(
    "open", epilog=examples("pipedai approval open 01a20e61-ca1d-70a4-93ed-0e69c8149037")
)
@click.argument("approval")
@with_session
def open_approval(session: Session, approval: str) -> None:
    """Open an approval in the console, where you decide."""
    _open(session, f"approvals/{session.api.get(f'/approvals/{approval}')['id']}")


@click.group(epilog=examples("pipedai event list"))
def event() -> None:
    """Look at events, what was decided about each, and replay them."""


@event.command(
    "list",
    epilog=examples("pipedai event list", "pipedai event list --source github --decision filtered"),
)
@click.option("--source", help="Only those of this source: its id, key or name.")
@click.option("--decision", help="Only those with this: fired, filtered, coalesced or refused.")
@with_limit
def list_events(session: Session, source: str | None, decision: str | None, limit: int) -> None:
    """List events with what was decided about each."""
    session.show_rows(
        "events",
        limit,
        {
            "ID": "id",
            "RECEIVED": lambda row: local_time(row["receivedAt"]),
            "TYPE": "type",
            "DECISIONS": lambda row: ", ".join(map(_decided, row["decisions"])) or "nobody listens",
        },
        sourceId=session.id_of("sources", source),
        decision=decision,
    )


def _decided(decision: Json) -> str:
    code = decision.get("code")
    return f"{decision['decision']} ({code})" if code else str(decision["decision"])


@event.command(epilog=examples("pipedai event replay 01a20e61-ca1d-70a4-93ed-0e69c8149037"))
@click.argument("event")
@with_json
def replay(session: Session, event: str) -> None:
    """Decide anew about an event, as a new one."""
    answer = session.api.post(f"/events/{event}/replay")
    if not session.out.printed_json(answer):
        session.out.line(f"The event is decided anew as {answer['id']}.")


_PAGES = {"trigger": "triggers", "run": "runs", "approval": "approvals"}


@click.command("open", epilog=examples("pipedai open", "pipedai open trigger nightly"))
@click.argument("kind", required=False, type=click.Choice([*_PAGES, "console"]), default="console")
@click.argument("id", required=False)
@with_session
def open_page(session: Session, kind: str, id: str | None) -> None:  # noqa: A002 - the argument's name in --help
    """Open the console, or a page of it."""
    if kind == "console":
        _open(session, f"environments/{session.environment_id}/attention")
        return
    if id is None:
        raise wrong_usage(f"Say which {kind} to open.")
    page_of = session.id_of("triggers", id) if kind == "trigger" else id
    _open(session, f"{_PAGES[kind]}/{page_of}")


def _open(session: Session, path: str) -> None:
    url = session.console(path)
    session.out.line(url)
    if session.out.shows_progress:
        webbrowser.open(url)


# The login that only `pipedai mcp` uses, so that an agent never acts with a person's own key.
AGENTS_PROFILE = "mcp"
_AGENTS_ROLES = ("viewer", "operator")


@click.command(
    epilog=examples(
        "pipedai --profile mcp login --url https://pipedai.example",
        "claude mcp add pipedai -- pipedai mcp --write",
    )
)
@click.option("--write", is_flag=True, help="Also offer tools that run, rerun, cancel and plan.")
@click.option(
    "--files",
    type=click.Path(path_type=Path, exists=True),
    default=Path(),
    help="Where plan_changes finds pipedai.yaml.",
)
@with_session
def mcp(session: Session, write: bool, files: Path) -> None:
    """Serve tools to an agent, over MCP on stdin and stdout.

    It wants a key of its own, of a viewer or an operator. It decides no approval and applies no plan.
    """
    try:
        from pipedai_cli.mcp_tools import serve
    except ImportError:
        raise wrong_usage("`pipedai mcp` needs one more package: install pipedai[mcp].") from None
    if not os.environ.get("PIPEDAI_KEY") and session.profile_name == DEFAULT_PROFILE:
        session = replace(session, profile_name=AGENTS_PROFILE)
        if load_profile(AGENTS_PROFILE) is None:
            raise wrong_usage(
                "An agent gets a key of its own: `pipedai --profile mcp login`, as viewer or operator."
            )
    role = session.api.get("/whoami")["role"]
    if role not in _AGENTS_ROLES:
        raise Failure(
            Exit.REFUSED,
            f"The key has the role {role}; an agent's may be a viewer's or an operator's."
            " `pipedai --profile mcp login` makes one.",
        )
    if write and role != "operator":
        raise Failure(Exit.REFUSED, "--write needs the key of an operator, and this is a viewer's.")
    if sys.stdin.isatty():
        session.out.note("This waits for an agent, which has to start it itself. Ctrl-C ends it.")
    serve(session, files=files, write=write)


COMMANDS = [attention, approval, event, worker, open_page, mcp]
