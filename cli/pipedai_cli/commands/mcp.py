"""`pipedai mcp`: the tools by which an agent operates PipedAI."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import click

from pipedai_cli import keys
from pipedai_cli.api import Exit, Failure, wrong_usage
from pipedai_cli.session import Session, with_session

# The login that only `pipedai mcp` uses, so that an agent never acts with a person's own key.
PROFILE = "mcp"
_ROLES = ("viewer", "operator")


@click.command()
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

    \b
      pipedai --profile mcp login --url https://pipedai.example
      claude mcp add pipedai -- pipedai mcp --write
    """
    try:
        from pipedai_cli.mcp_tools import serve
    except ImportError:
        raise wrong_usage("`pipedai mcp` needs one more package: install pipedai[mcp].") from None
    if not os.environ.get("PIPEDAI_KEY") and session.profile_name == keys.DEFAULT_PROFILE:
        session = replace(session, profile_name=PROFILE)
        if keys.load(PROFILE) is None:
            raise wrong_usage(
                "An agent gets a key of its own: `pipedai --profile mcp login`, as viewer or operator."
            )
    role = session.api.get("/whoami")["role"]
    if role not in _ROLES:
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


COMMANDS = [mcp]
