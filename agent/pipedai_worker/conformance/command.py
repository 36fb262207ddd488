"""The command `pipedai-worker conformance`, which checks a worker written in any language."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import signal
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipedai_worker.commands import arguments
from pipedai_worker.commands.arguments import positive, seconds
from pipedai_worker.conformance import CHECKS, PATIENCE_SECONDS

if TYPE_CHECKING:
    from pipedai_worker.conformance.kit import Verdict

DESCRIPTION = """\
Starts a worker against an API of its own, on the loopback, and breaks things around it: lost
answers, 5xx, refusals, cancels, slow answers, restarts of the API, kill -9 of the worker. Each check
has a new API and a new home directory. Needs no network, no account and no claude.
"""
EPILOG = """\
The worker gets a registration (workerId, workerToken, apiUrl) as a JSON file: {config} in the command
line becomes its path, which is also in PIPEDAI_CONFIG. It is to work until SIGTERM, and to execute
each run as `claude -p --mcp-config FILE --strict-mcp-config --output-format stream-json --verbose`
with the prompt on stdin; the claude that it finds on PATH is a stand-in. For example:

  pipedai-worker conformance --against 'pipedai-worker run --config {config}'

A check of what a worker need not do is skipped if the worker does not do it.

Exit codes: 0 no check failed; 1 some failed; 2 bad arguments.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "conformance",
        help="check a worker, of whatever make, against a fake API that breaks on purpose",
        description=DESCRIPTION,
        epilog=EPILOG,
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
    parser.set_defaults(handler=conformance)


def conformance(options: argparse.Namespace) -> None:
    """Run the checks and print a line for each. Raises Exit if a check fails."""
    from pipedai_worker.conformance import kit

    if options.list:
        for check in CHECKS.values():
            print(f"{check.name}: {check.sentence}")
        return
    seen: Counter[str] = Counter()
    verdicts = kit.judge(
        options.against, options.check, jobs=options.jobs, patience=options.patience
    )
    with _interrupted_by_sigterm(), contextlib.closing(verdicts):
        for verdict in verdicts:
            print(_as_json(verdict) if options.json else verdict, flush=True)
            seen[verdict.mark] += 1
    failed, passed = seen["FAIL"], seen["pass"]
    if failed:
        raise arguments.Exit(arguments.ERROR, f"{failed} of {passed + failed} checks failed.")
    if not options.json:
        left_out = f" {seen['skip']} were skipped." if seen["skip"] else ""
        print(f"All {passed} checks passed.{left_out}")


@contextlib.contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt, so that the workers under test are ended before this command exits."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _as_json(verdict: Verdict) -> str:
    return json.dumps(
        {
            "check": verdict.check.name,
            "sentence": verdict.check.sentence,
            "passed": verdict.mark == "pass",
            "skipped": verdict.skipped,
            "failure": verdict.failure,
            "log": verdict.log,
        }
    )


def _check(name: str) -> str:
    from pipedai_worker.conformance import kit  # noqa: F401 - it fills CHECKS

    if name not in CHECKS:
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
