"""Defines the options of the command line, in groups that several commands share, and its exit codes."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from uuid import UUID

from pipedai_worker.identity.config import DEFAULT_PATH
from pipedai_worker.identity.paying import AUTH_MODES

TOKEN_VARIABLE = "PIPEDAI_REGISTRATION_TOKEN"  # noqa: S105
# Supervisors kill the worker 30 s after SIGTERM. It needs the remaining 7 s to stop the last runs and report them.
DEFAULT_DRAIN_SECONDS = 23.0
# Claude is stopped when it has told nothing for so long. Its own tools may run for 10 minutes, and it is silent then.
DEFAULT_SILENCE_SECONDS = 1200.0


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options for the registration's file, for the connection to the API, and for the form of the logs."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=path,
        # A text, which argparse converts only when it is used. It looks up the home then, and some accounts have none.
        default=str(DEFAULT_PATH),
        help=f"the registration's file (default {DEFAULT_PATH}); beside it, in a directory of the"
        " same name that ends in .state, the worker keeps what it must remember",
    )
    parser.add_argument(
        "--proxy",
        metavar="URL",
        type=_text,
        help="reach the API through this proxy (the environment's is not used)",
    )
    parser.add_argument(
        "--ca-file",
        metavar="FILE",
        type=path,
        help="trust the certificates in this PEM file, and only these",
    )
    parser.add_argument("--json-logs", action="store_true", help="one JSON object a line on stderr")


def add_api_url(
    parser: argparse.ArgumentParser,
    text: str = "instead of the registration's own",
    *,
    required: bool = False,
) -> None:
    parser.add_argument("--api-url", metavar="URL", type=_text, required=required, help=text)


def add_registration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--token",
        metavar="wrk_...",
        type=_text,
        help=f"the registration token; better in {TOKEN_VARIABLE}, where other users can't see it",
    )
    parser.add_argument("--hostname", type=_text, default="", help="default: this machine's")
    parser.add_argument(
        "--label", type=_text, default="", help="what people call this worker; default: hostname"
    )


def add_capacity(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--max-concurrency", metavar="N", type=positive, help=text)


def add_auth_mode(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--auth-mode",
        metavar="|".join(AUTH_MODES),
        type=_auth_mode,
        default=os.environ.get("AUTH_MODE") or None,
        help="how claude is paid for on this machine (default: AUTH_MODE, else what the API says, else"
        " claude_max); with claude_max it does not see ANTHROPIC_API_KEY",
    )


def add_executor(parser: argparse.ArgumentParser) -> None:
    executor = parser.add_mutually_exclusive_group()
    executor.add_argument(
        "--claude",
        metavar="PATH",
        default="claude",
        help="the claude program (default: claude on PATH)",
    )
    executor.add_argument(
        "--stand-in",
        action="store_true",
        help="execute runs with the stand-in for claude that comes with this program: no network,"
        " no cost; see python -m pipedai_worker.standin --help",
    )
    executor.add_argument(
        "--command",
        metavar="PROGRAM",
        help="execute this command line (split as by a shell, but without one) and not claude: it"
        " gets the prompt on stdin, the MCP server's address in PIPEDAI_MCP_URL, and its configuration's"
        " path in PIPEDAI_MCP_CONFIG",
    )


def add_work(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pass-env",
        metavar="NAME",
        action="append",
        default=[],
        help="hand this environment variable on to the program (may be given several times)",
    )
    parser.add_argument(
        "--silence-seconds",
        metavar="S",
        type=seconds,
        default=DEFAULT_SILENCE_SECONDS,
        help="stop claude when it has told nothing for so long (default %(default)g; 0: never)",
    )
    parser.add_argument(
        "--once",
        action="store_true",
        help="execute what is due now, then end; do not wait for more",
    )
    parser.add_argument(
        "--drain",
        action="store_true",
        help="take nothing new: let a worker that runs with this registration finish what it holds and end"
        " (it gets SIGUSR1), report what is left, then end with code 0",
    )
    parser.add_argument(
        "--drain-seconds",
        metavar="S",
        type=seconds,
        default=DEFAULT_DRAIN_SECONDS,
        help="after SIGTERM, how long runs may go on before they are stopped and handed back to be"
        " retried (default %(default)g); a second SIGTERM does not wait",
    )


def add_logs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", type=_run, help="the run's id")
    parser.add_argument(
        "--after",
        metavar="SEQ",
        type=_count,
        default=0,
        help="begin after the event with this number",
    )
    parser.add_argument(
        "--no-follow",
        dest="follow",
        action="store_false",
        help="show what there is, and do not wait for more",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")


def path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"there is no home directory for {text}") from None


def _text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("must be text in UTF-8") from None
    return text


def positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number of 1 or more")
    return int(text)


def _count(text: str) -> int:
    return 0 if text == "0" else positive(text)


def _run(text: str) -> str:
    try:
        return str(UUID(text))
    except ValueError:
        raise argparse.ArgumentTypeError("must be the id of a run, which is a UUID") from None


def seconds(text: str) -> float:
    """Convert text to a number of seconds, at most a day. Raises ArgumentTypeError for any other text."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise argparse.ArgumentTypeError("must be a number of seconds from 0 to 86400")
    return value


def _auth_mode(text: str) -> str:
    mode = text.replace("-", "_")
    if mode not in AUTH_MODES:
        raise argparse.ArgumentTypeError(f"must be one of {', '.join(AUTH_MODES)}")
    return mode


OK = 0
ERROR = 1
BAD_CONFIG = 2
DEAD_TOKEN = 3
NOT_OUR_API = 4
ALREADY_RUNNING = 5


class Exit(Exception):  # noqa: N818 - not always an error
    def __init__(self, code: int, message: str = "") -> None:
        super().__init__(message)
        self.code = code
