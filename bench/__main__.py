"""The command line of bin/bench."""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from bench import console, events_in, firing, idle, lifecycle, neighbours, peer
from bench.figures import Json, print_machine
from bench.growth import benchmark as growth
from bench.kill import benchmark as kill
from pipedai.embedded.cluster import EmbeddedPostgresError
from testing.processes.failure import ProcessFailed

_HELP = """\
Measures PipedAI on this machine, against a PostgreSQL of its own that keeps what it commits (fsync
and synchronous_commit on), in a directory below PIPEDAI_DATA_DIR that is removed at the end. Let
the machine be quiet meanwhile. docs/performance.md says what the columns mean.
"""


# Each is a module whose docstring is its help. `add_options` adds the arguments of `run`, and `show` prints the tables
# of what `run` returns. IN_ALL has the arguments of each of its runs in `bin/bench all`.
BENCHMARKS: dict[str, Any] = {
    "lifecycle": lifecycle, "peer": peer, "idle": idle, "events-in": events_in, "firing": firing,
    "kill": kill, "console": console, "growth": growth, "neighbours": neighbours,
}  # fmt: skip


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse the arguments. `name` is that of the benchmark, or `all`; `json` is a file or None."""
    parser = argparse.ArgumentParser("bin/bench", description=_HELP)
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK", dest="name")
    for name, benchmark in BENCHMARKS.items():
        summary, _, rest = benchmark.__doc__.partition("\n")
        one = benchmarks.add_parser(
            name, help=summary, description=f"{summary} {rest}",
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )  # fmt: skip
        benchmark.add_options(one)
    benchmarks.add_parser("all", help="All of them, one after another, with one result.")
    for one in benchmarks.choices.values():
        one.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    return vars(parser.parse_args(arguments))


def main() -> int:
    """Run one benchmark or all, and return the exit code."""
    options = parse(sys.argv[1:])
    file = options.pop("json")
    try:
        import_module("pipedai.settings")  # so that bad settings fail before anything starts
        result: Json = {}
        try:
            measure_all(result) if options["name"] == "all" else measure(options, result)
        finally:
            if file is not None and result:
                file.write_text(json.dumps(result, indent=2) + "\n")
    except (ProcessFailed, EmbeddedPostgresError, ImproperlyConfigured, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def measure(options: dict[str, Any], result: Json) -> None:
    """Run a benchmark, put its figures into `result`, and print its tables. Raises ProcessFailed."""
    name = options.pop("name")
    result |= {"benchmark": name, **options, **BENCHMARKS[name].run(**options, say=_say)}
    print()
    print_machine(result["machine"])
    print()
    BENCHMARKS[name].show(result)


def measure_all(result: Json) -> None:
    """Do so with every benchmark. One that fails costs the others nothing. Raises ProcessFailed at the end."""
    result |= {"benchmark": "all", "results": {}}
    failed = []
    for name, benchmark in BENCHMARKS.items():
        for arguments in benchmark.IN_ALL:
            words = f"{name} {arguments}".strip()
            print(f"## {words}", flush=True)
            began = time.monotonic()
            one: Json = {}
            try:
                options = parse(shlex.split(words))
                del options["json"]
                measure(options, one)
            except ProcessFailed as failure:
                one["failed"] = str(failure)
                failed.append(words)
                print(f"Failed: {failure}")
            print(flush=True)
            result["results"][words] = {**one, "tookSeconds": round(time.monotonic() - began)}
    if failed:
        raise ProcessFailed(f"Failed: {', '.join(failed)}.")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
