"""`plan`, `apply`, `export`: what the files say, and what the service has."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

import click

from pipedai_cli.errors import wrong_usage
from pipedai_cli.files.reading import SECRET_PREFIX, Files, read_files
from pipedai_cli.files.writing import write_files
from pipedai_cli.session import Session, json_option, with_session
from pipedai_cli.text import local_time, one_line, shorten

Json = dict[str, Any]

_SIGNS = {"create": "+", "update": "~", "delete": "-"}
_STYLES = {"create": "green", "update": "yellow", "delete": "red"}
_LONGEST_VALUE = 100
_MOST_LINES = 40

_files = click.argument("files", type=click.Path(path_type=Path), default=Path(), required=False)
_prune = click.option(
    "--prune", is_flag=True, help="Delete what the files had once and have no more."
)


@click.command()
@_files
@_prune
@json_option
@with_session
def plan(session: Session, files: Path, prune: bool) -> None:
    """Show what pipedai.yaml would change. Nothing is changed or sent.

    FILES is the file or its folder, by default this folder.

    \b
      pipedai plan
      pipedai plan agents/pipedai.yaml --json
    """
    read = read_files(files)
    answer = _plan(session, read, prune=prune)
    if session.as_json:
        session.out.json(answer)
    else:
        _show(session, read, answer)


@click.command()
@_files
@_prune
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option(
    "--accept-origin", "origins", multiple=True, help="A new origin that a secret may go to."
)
@json_option
@with_session
def apply(session: Session, files: Path, prune: bool, yes: bool, origins: tuple[str, ...]) -> None:
    """Change the service to what pipedai.yaml says: all of it, or nothing.

    It plans first, and asks. If something changed in between, nothing is done. Secrets, written as
    { secret: NAME }, come from the variables PIPEDAI_SECRET_NAME; one without a value stays as it is.

    \b
      pipedai apply
      PIPEDAI_SECRET_GITHUB=… pipedai apply --yes --prune
    """
    read = read_files(files)
    planned = _plan(session, read, prune=prune)
    changes = [each for each in planned["changes"] if each["action"] != "none"]
    if not session.as_json:
        _show(session, read, planned)
    if changes and not yes:
        if session.as_json or not session.out.shows_progress:
            raise wrong_usage("There is nobody to ask: --yes applies without a question.")
        click.confirm("Apply this?", abort=True, err=True)
    body = {
        **read.body(),
        "digest": planned["digest"],
        "prune": prune,
        "acceptOrigins": list(origins),
    }
    answer = session.api.post(f"{session.environment}/apply", body)
    if session.as_json:
        session.out.json(answer)
    else:
        session.out.line(f"Applied: {_counts(answer['changes'])}.")


def _plan(session: Session, files: Files, *, prune: bool) -> Json:
    body = {**files.body(), "prune": prune}
    answer: Json = session.api.post(f"{session.environment}/plan", body)
    return answer


def _show(session: Session, files: Files, answer: Json) -> None:
    for change in answer["changes"]:
        action = change["action"]
        if action == "none" and not change["warnings"]:
            continue
        head = f"{_SIGNS.get(action, ' ')} {change['kind']} {change['key']}"
        session.out.line(head, style=_STYLES.get(action, ""))
        # Of what is new or goes, its name is enough.
        if action == "update":
            for name, (before, after) in change["diff"].items():
                _show_field(session, name, before, after)
        if due := change.get("nextDueAt"):
            session.out.line(f"    next due: {', '.join(local_time(each) for each in due)}")
        for warning in change["warnings"]:
            session.out.line(f"    ! {warning}", style="yellow")
    if files.unset:
        names = ", ".join(SECRET_PREFIX + name for name in files.unset)
        session.out.line(f"Secrets without a value stay as they are: {names}.")
    session.out.line(f"Plan: {_counts(answer['changes'])}.")


def _show_field(session: Session, name: str, before: object, after: object) -> None:
    if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        session.out.line(f"    {name}:")
        lines = list(
            difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm="")
        )[2:]
        for line in lines[:_MOST_LINES]:
            style = {"+": "green", "-": "red"}.get(line[:1], "")
            session.out.line(f"      {line}", style=style)
        if len(lines) > _MOST_LINES:
            session.out.line(f"      and {len(lines) - _MOST_LINES} lines more")
    else:
        session.out.line(f"    {name}: {_short(before)} → {_short(after)}")


def _short(value: object) -> str:
    return shorten(one_line(json.dumps(value, ensure_ascii=False)), _LONGEST_VALUE)


def _counts(changes: list[Json]) -> str:
    counts = dict.fromkeys((*_SIGNS, "none"), 0)
    for change in changes:
        counts[change["action"]] += 1
    return (
        f"{counts['create']} to create, {counts['update']} to update, "
        f"{counts['delete']} to delete, {counts['none']} unchanged"
    )


@click.command()
@click.option(
    "--managed-by", default="pipedai.yaml", show_default=True, help="The label for the file."
)
@click.option(
    "--to", type=click.Path(path_type=Path), default=Path(), help="The folder, by default this one."
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@json_option
@with_session
def export(session: Session, managed_by: str, to: Path, force: bool) -> None:
    """Write what the service has as pipedai.yaml and prompts, which plan to no change.

    Secrets are written as { secret: NAME }, without their values.

    \b
      pipedai export --managed-by acme/agents --to agents
    """
    answer = session.api.get(f"{session.environment}/export")
    if session.as_json:
        session.out.json(answer)
        return
    schema_url = f"{session.profile.url}/downloads/pipedai.schema.json"
    written = write_files(to, managed_by, answer["resources"], force=force, schema_url=schema_url)
    for path in written:
        session.out.line(path)


COMMANDS = [plan, apply, export]
