"""Defines the worker's command line: the parsers of its options, and the function that runs a command."""

from __future__ import annotations

import argparse
import atexit
import gc
import io
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from pipedai_worker import __version__, logs
from pipedai_worker.commands import arguments
from pipedai_worker.conformance import command as conformance
from pipedai_worker.events import local
from pipedai_worker.events.spool import SUFFIX

log = logs.get_logger(__name__)


def main(argv: Sequence[str] | None = None) -> int:
    # A process that ends need not look for garbage first, which would take a fifth of a short command.
    atexit.register(gc.freeze)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Characters that the terminal's encoding lacks are printed as escapes such as \u2026, and raise no exception.
        sys.stdout.reconfigure(errors="backslashreplace")
    parser = make_parser()
    options = parser.parse_args(argv)
    if options.handler is None:
        parser.print_help()
        return arguments.BAD_CONFIG
    return carry_out(options.handler, options)


def carry_out(handler: Callable[[argparse.Namespace], None], options: argparse.Namespace) -> int:
    """Run a command and return the exit code. An expected failure is logged as one sentence, without a traceback."""
    logs.configure(as_json=getattr(options, "json_logs", False))
    try:
        handler(options)
    except arguments.Exit as end:
        log.error("%s", end)
        return end.code
    except BrokenPipeError:
        # Nobody reads the output any more. Python would try to write the rest of it at exit, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return arguments.ERROR
    except KeyboardInterrupt:
        return arguments.ERROR
    return arguments.OK


def add_runworker_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `manage.py runworker`, which registers the worker if necessary and then runs it."""
    arguments.add_common(parser)
    arguments.add_api_url(
        parser, "where to register, and to be used instead of the registration's own URL"
    )
    arguments.add_registration(parser)
    arguments.add_auth_mode(parser)
    arguments.add_capacity(parser, "at most so many runs at a time; also what is registered (1)")
    arguments.add_executor(parser)
    arguments.add_work(parser)


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
        for group in (arguments.add_common, *groups):
            group(command)
        command.set_defaults(handler=_command(name))

    add(
        "register",
        partial(arguments.add_api_url, text="for example https://api.example.com", required=True),
        arguments.add_registration,
        arguments.add_auth_mode,
        partial(
            arguments.add_capacity, text="how many runs this worker takes at a time (default 1)"
        ),
        help="exchange a wrk_ token for a registration",
        description="Exchanges a wrk_ token, which is good for one registration, for this machine's"
        " own, and writes that to --config. It waits a minute for an API that is away.",
    )
    add(
        "run",
        arguments.add_api_url,
        arguments.add_auth_mode,
        partial(
            arguments.add_capacity,
            text="at most so many at a time; what the API says is the limit anyway",
        ),
        arguments.add_executor,
        arguments.add_work,
        help="poll for runs and execute them until SIGTERM",
        description="Polls for runs and executes them, by default with claude, until SIGTERM.",
        epilog=f"With {local.VARIABLE}=1 in its environment it also appends what each run tells"
        f" to {local.DEFAULT_ROOT}/<workerId>/<runId>{SUFFIX}. SIGTERM or Ctrl-C: it"
        " takes nothing new, lets what is in hand end for --drain-seconds, and leaves with code 0."
        " What it could not report by then it reports after its next start.",
    )
    add(
        "logs",
        arguments.add_logs,
        help="follow what a run does on this machine",
        description="Shows the events of a run that this worker executes, and follows them until the run ends. It reads"
        " the file that the worker keeps until the API has them. `pipedai run logs`, the service's command line, shows"
        " the events of any run.",
    )
    add(
        "doctor",
        arguments.add_api_url,
        arguments.add_auth_mode,
        arguments.add_executor,
        help="check that this machine can execute runs",
        description="Checks that this machine can execute runs, with a hint for each failure. Use"
        " the account, the environment, the configuration and the program that run is to have.",
    )
    conformance.add_parser(subparsers)
    return parser


def _command(name: str) -> Callable[[argparse.Namespace], None]:
    """Return the function of `handlers` with this name. All that it needs is imported only when it is called."""

    def command(options: argparse.Namespace) -> None:
        from pipedai_worker.commands import handlers

        getattr(handlers, name)(options)

    return command
