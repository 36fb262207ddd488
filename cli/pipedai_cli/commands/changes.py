"""The commands `plan`, `apply` and `export`, which compare files with the service, apply them, and write them."""

import difflib
import json
import re
import unicodedata
from collections import Counter
from itertools import chain, count
from pathlib import Path

import click

from pipedai_cli.api import Json, wrong_usage
from pipedai_cli.files import SECRET_PREFIX, Files, read_files, write_files
from pipedai_cli.output import local_time, one_line, shorten
from pipedai_cli.session import Session, examples, with_json

_SIGNS = {"create": "+", "update": "~", "delete": "-"}
_STYLES = {"create": "green", "update": "yellow", "delete": "red"}
_TO_DO = {"create": "to create", "update": "to update", "delete": "to delete", "none": "unchanged"}
_DONE = {"create": "created", "update": "updated", "delete": "deleted", "none": "unchanged"}
_LONGEST_VALUE = 100
_LONGEST_KEY = 64
_MOST_LINES = 40

_files = click.argument("files", type=click.Path(path_type=Path), default=Path(), required=False)
_accept_origin = click.option(
    "--accept-origin", "origins", multiple=True, help="A new origin that a secret may go to."
)


@click.command(epilog=examples("pipedai plan", "pipedai plan agents/pipedai.yaml --json"))
@_files
@_accept_origin
@with_json
def plan(session: Session, files: Path, origins: tuple[str, ...]) -> None:
    """Show what pipedai.yaml would change. Nothing is changed or sent.

    FILES is the file or its folder, by default this folder.
    """
    read = read_files(files)
    answer = session.api.send_files(
        f"{session.environment}/plan", read.body(origins), session.out.note
    )
    if not session.out.printed_json(answer):
        _show(session, read, answer, prune=False)


@click.command(
    epilog=examples("pipedai apply", "PIPEDAI_SECRET_GITHUB=… pipedai apply --yes --prune")
)
@_files
@click.option("--prune", is_flag=True, help="Delete what the files had once and have no more.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@_accept_origin
@with_json
def apply(session: Session, files: Path, prune: bool, yes: bool, origins: tuple[str, ...]) -> None:
    """Make the service as pipedai.yaml says: all of it, or nothing.

    It plans first, and asks. If something changed in between, nothing is done. Secrets, written as
    { secret: NAME }, come from the variables PIPEDAI_SECRET_NAME; one without a value stays as it is.
    """
    read = read_files(files)
    body = read.body(origins)
    planned = session.api.send_files(f"{session.environment}/plan", body, session.out.note)
    if not session.as_json:
        _show(session, read, planned, prune=prune)
    # A plan also names what only --prune deletes.
    done = {"create", "update", *(["delete"] if prune else [])}
    if not yes and any(change["action"] in done for change in planned["changes"]):
        if session.as_json or not session.out.shows_progress:
            raise wrong_usage("There is nobody to ask: --yes applies without a question.")
        if not click.confirm("Apply this?", err=True):
            session.out.note("Nothing was changed.")
            raise click.Abort
    body |= {"digest": planned["digest"], "prune": prune}
    answer = session.api.send_files(f"{session.environment}/apply", body, session.out.note)
    if not session.out.printed_json(answer):
        session.out.line(f"Applied: {_counts(answer['changes'], _DONE)}.")


def _show(session: Session, files: Files, answer: Json, *, prune: bool) -> None:
    for change in answer["changes"]:
        action = change["action"]
        if action == "none" and not change["warnings"]:
            continue
        head = f"{_SIGNS.get(action, ' ')} {change['kind']} {change['key']}"
        if action == "delete" and not prune:
            head += " (only with --prune)"
        session.out.line(head, style=_STYLES.get(action, ""))
        # For a row that is created or deleted, its name is enough.
        if action == "update":
            for name, (before, after) in change["diff"].items():
                _show_field(session, name, before, after)
        if due := change.get("nextDueAt"):
            session.out.line(f"    next due: {', '.join(local_time(each) for each in due)}")
        for warning in change["warnings"]:
            session.out.line(f"    ! {warning}", style="yellow")
    if files.unset:
        names = ", ".join(SECRET_PREFIX + name for name in files.unset)
        session.out.line(f"These are not set, so their secrets stay as they are: {names}.")
    if all(change["action"] == "none" for change in answer["changes"]):
        session.out.line("No changes: the service is as the files say.")
    else:
        session.out.line(f"Plan: {_counts(answer['changes'], _TO_DO)}.")


def _show_field(session: Session, name: str, before: object, after: object) -> None:
    if isinstance(before, str) and isinstance(after, str) and "\n" in before + after:
        session.out.line(f"    {name}:")
        lines = list(
            difflib.unified_diff(before.splitlines(), after.splitlines(), n=2, lineterm="")
        )[2:] or ["(only line breaks)"]
        for line in lines[:_MOST_LINES]:
            style = {"+": "green", "-": "red"}.get(line[:1], "")
            session.out.line(f"      {line}", style=style)
        if len(lines) > _MOST_LINES:
            session.out.line(f"      and {len(lines) - _MOST_LINES} lines more")
    else:
        session.out.line(f"    {name}: {_short(before)} → {_short(after)}")


def _short(value: object) -> str:
    return shorten(one_line(json.dumps(value, ensure_ascii=False)), _LONGEST_VALUE)


def _counts(changes: list[Json], words: dict[str, str]) -> str:
    counts = Counter(change["action"] for change in changes)
    return ", ".join(f"{counts[action]} {word}" for action, word in words.items())


@click.command(epilog=examples("pipedai export --managed-by acme/agents --to agents --assign-keys"))
@click.option(
    "--managed-by", default="pipedai.yaml", show_default=True, help="The label for the file."
)
@click.option(
    "--to", type=click.Path(path_type=Path), default=Path(), help="The folder, by default this one."
)
@click.option("--force", is_flag=True, help="Write over files that are there.")
@click.option("--assign-keys", is_flag=True, help="Give what has no key one, made of its name.")
@with_json
def export(session: Session, managed_by: str, to: Path, force: bool, assign_keys: bool) -> None:
    """Write what the service has as pipedai.yaml and prompts.

    What other files manage is left out, and what has no key, unless --assign-keys gives it one. Secrets are
    written as { secret: NAME }, without their values. The first plan shows that the files take all of it over.
    """
    path = f"{session.environment}/export"
    answer = session.api.get(path, managedBy=managed_by)
    if assign_keys and answer["withoutKey"]:
        _assign_keys(session, answer)
        answer = session.api.get(path, managedBy=managed_by)
    if session.out.printed_json(answer):
        return
    schema_url = f"{session.profile.url}/downloads/pipedai.schema.json"
    written = write_files(to, managed_by, answer["resources"], force=force, schema_url=schema_url)
    for file in written:
        session.out.line(file)
    if without := len(answer["withoutKey"]):
        session.out.line(f"{without} without a key are left out. --assign-keys gives them one.")
    if session.out.shows_progress:
        session.out.note(
            "`pipedai plan` shows that the files take it over; `pipedai apply` does it."
        )


def _assign_keys(session: Session, answer: Json) -> None:
    # The keys of rows that other files manage count too, because the service refuses two equal keys.
    everything = session.api.get(f"{session.environment}/export")["resources"]
    taken = {(each["kind"], each["key"]) for each in everything}
    for row in answer["withoutKey"]:
        key = _free_key(row["kind"], row["name"], taken)
        taken.add((row["kind"], key))
        session.api.ask("PATCH", f"/{row['kind']}s/{row['id']}", json={"key": key})
        session.out.note(f"{row['kind']} {one_line(row['name'])} has the key {key}.")


def _free_key(kind: str, name: str, taken: set[tuple[str, str]]) -> str:
    """Return a slug of the name, with a number if a row of the kind has it already."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain)[: _LONGEST_KEY - 4].strip("-") or kind
    keys = chain([slug], (f"{slug}-{number}" for number in count(2)))
    return next(key for key in keys if (kind, key) not in taken)


COMMANDS = [plan, apply, export]
