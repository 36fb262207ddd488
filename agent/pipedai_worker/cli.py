"""Defines the worker's command line. What a command needs is imported only when it is carried out."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import logging
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

from pipedai_worker import __version__, redact
from pipedai_worker.disk import spool
from pipedai_worker.disk.spool import SUFFIX
from pipedai_worker.identity import AUTH_MODES, DEFAULT_PATH

log = logging.getLogger(__name__)


TOKEN_VARIABLE = "PIPEDAI_REGISTRATION_TOKEN"  # noqa: S105
# Supervisors kill the worker 30 s after SIGTERM. It needs the remaining 7 s to stop the last runs and report them.
DEFAULT_DRAIN_SECONDS = 23.0
# The conformance kit waits this long for what a correct worker does at once, as a busy machine may delay it.
PATIENCE_SECONDS = 60.0
# Claude is stopped when it has written nothing for so long. Its own tools may run for 10 minutes in silence.
DEFAULT_SILENCE_SECONDS = 1200.0
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


def main(argv: Sequence[str] | None = None) -> int:
    # Freezing skips the garbage collection at exit, which would take a fifth of a short command.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the terminal's encoding lacks are printed as escapes such as \u2026, and raise no exception.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.handler is None:
        parser.print_help()
        return BAD_CONFIG
    return carry_out(options.handler, options)


def carry_out(handler: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Run a command and return the exit code. An expected failure is logged as one sentence, without a traceback."""
    redact.configure_log(as_json=getattr(options, "json_logs", False))
    try:
        handler(options)
    except Exit as end:
        log.error("%s", end)
        return end.code
    except BrokenPipeError:
        # Nobody reads the output any more. Python would try to write the rest of it at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ERROR
    except KeyboardInterrupt:
        return ERROR
    return OK


def add_runworker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `manage.py runworker`, which registers the worker if necessary and then runs it."""
    add_common(parser)
    add_api_url(parser, "where to register, and to be used instead of the registration's own URL")
    add_registration(parser)
    add_auth_mode(parser)
    add_capacity(parser, "at most so many runs at a time; also what is registered (1)")
    add_executor(parser)
    add_work(parser)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pipedai-worker",
        description="Executes the runs that PipedAI assigns to this machine.",
        epilog="Exit codes: 0 done; 1 failed; 2 bad arguments or configuration; 3 the token is"
        " dead; 4 the URL is not a PipedAI API; 5 this registration is already at work.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.set_defaults(handler=None)
    subparsers = parser.add_subparsers(metavar="COMMAND")

    version = subparsers.add_parser("version", help="print the version")
    version.set_defaults(handler=lambda _: print(__version__))

    def add(name: str, *groups: Callable[[argparse.ArgumentParser], None], **texts: Any) -> None:
        command = subparsers.add_parser(name, **texts)
        for group in (add_common, *groups):
            group(command)
        command.set_defaults(handler=_handler(name))

    add(
        "register",
        partial(add_api_url, text="for example https://api.example.com", required=True),
        add_registration,
        add_auth_mode,
        partial(add_capacity, text="how many runs this worker takes at a time (default 1)"),
        help="exchange a wrk_ token for a registration",
        description="Exchanges a wrk_ token, which is good for one registration, for this machine's"
        " own, and writes that to --config. It waits a minute for an API that is away.",
    )
    add(
        "run",
        add_api_url,
        add_auth_mode,
        partial(
            add_capacity,
            text="at most so many at a time; what the API says is the limit anyway",
        ),
        add_executor,
        add_work,
        help="poll for runs and execute them until SIGTERM",
        description="Polls for runs and executes them, by default with claude, until SIGTERM.",
        epilog=f"With {spool.LOCAL_EVENTS_VARIABLE}=1 in its environment it also appends what each run tells"
        f" to {spool.LOCAL_EVENTS_ROOT}/<workerId>/<runId>{SUFFIX}. SIGTERM or Ctrl-C: it"
        " takes nothing new, lets what is in hand end for --drain-seconds, and leaves with code 0."
        " What it could not report by then it reports after its next start.",
    )
    add(
        "logs",
        add_logs,
        help="follow what a run does on this machine",
        description="Shows the events of a run that this worker executes, and follows them until the run ends. It reads"
        " the file that the worker keeps until the API has them. `pipedai run logs`, the service's command line, shows"
        " the events of any run.",
    )
    add(
        "doctor",
        add_api_url,
        add_auth_mode,
        add_executor,
        help="check that this machine can execute runs",
        description="Checks that this machine can execute runs, with a hint for each failure. Use"
        " the account, the environment, the configuration and the program that run is to have.",
    )
    add_conformance(subparsers)
    return parser


def _handler(name: str, module: str = "commands") -> Callable[[argparse.Namespace], None]:
    """Return the function of the module with this name. All that it needs is imported only when it is called."""
    return lambda options: getattr(import_module(f"{__package__}.{module}"), name)(options)


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add the options for the registration's file, for the connection to the API, and for the form of the logs."""
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=path,
        # As a text it becomes a path only when it is used: that looks up the home, which some accounts lack.
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
        type=_command_line,
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
    parser.add_argument("run", metavar="RUN", type=UUID, help="the run's id")
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


CONFORMANCE_DESCRIPTION = """\
Starts a worker against an API of its own, on the loopback, and breaks things around it: lost
answers, 5xx, refusals, cancels, slow answers, restarts of the API, kill -9 of the worker. Each check
has a new API and a new home directory. Needs no network, no account and no claude.
"""
CONFORMANCE_EPILOG = """\
The worker gets a registration (workerId, workerToken, apiUrl) as a JSON file: {config} in the command
line becomes its path, which is also in PIPEDAI_CONFIG. It is to work until SIGTERM, and to execute
each run as `claude -p --mcp-config FILE --strict-mcp-config --output-format stream-json --verbose`
with the prompt on stdin; the claude that it finds on PATH is a stand-in. For example:

  pipedai-worker conformance --against 'pipedai-worker run --config {config}'

A check of what a worker need not do is skipped if the worker does not do it.

Exit codes: 0 no check failed; 1 some failed; 2 bad arguments.
"""


def add_conformance(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "conformance",
        help="check a worker, of whatever make, against a fake API that breaks on purpose",
        description=CONFORMANCE_DESCRIPTION,
        epilog=CONFORMANCE_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--against",
        metavar="COMMAND",
        type=_command_line,
        help="the worker's command line, split as by a shell but run without one",
    )
    what.add_argument("--list", action="store_true", help="only list the checks")
    parser.add_argument(
        "--check",
        metavar="NAME",
        type=_check,
        action="append",
        default=[],
        help="only this check (may be given several times)",
    )
    parser.add_argument(
        "--jobs",
        metavar="N",
        type=positive,
        default=4,
        help="how many checks at a time (default %(default)d)",
    )
    parser.add_argument(
        "--patience",
        metavar="S",
        type=seconds,
        default=PATIENCE_SECONDS,
        help="how long the worker may take for what it does at once (default %(default)g)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line on stdout")
    parser.set_defaults(handler=_handler("conformance", "conformance.lab"))


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


def _check(name: str) -> str:
    from pipedai_worker.conformance import lab

    if name not in lab.checks():
        raise argparse.ArgumentTypeError(f"there is no check {name!r}; --list shows them")
    return name


def _command_line(text: str) -> str:
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"it can't be read: {error}") from None
    if not words:
        raise argparse.ArgumentTypeError("it names no program")
    return text
