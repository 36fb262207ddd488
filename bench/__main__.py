"""The command line of bin/bench."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from bench import firing, idle, lifecycle, schedulers
from bench.failure import BenchFailed
from bench.figures import write_json
from bench.kill import benchmark as kill
from pipedai.embedded.errors import EmbeddedPostgresError

_HELP = """\
Measures PipedAI on this machine, against a PostgreSQL of its own that keeps what it commits (fsync
and synchronous_commit on), in a directory below PIPEDAI_DATA_DIR that is removed at the end. Let
the machine be quiet meanwhile. docs/performance.md says what the columns mean.
"""


def main() -> int:
    """Run one benchmark; the exit code."""
    options = _parse(sys.argv[1:])
    try:
        import_module("pipedai.settings")  # a bad one is to be found before anything has started
        result = options.run(options)
        print()
        options.show(result)
        if options.json is not None:
            write_json(options.json, result)
    except (BenchFailed, EmbeddedPostgresError, ImproperlyConfigured, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("bin/bench", description=_HELP)
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")

    one = benchmarks.add_parser(
        "lifecycle",
        help="create, poll, claim, start, heartbeat, complete: over HTTP, beside bare SQL",
        description="Whole lifecycles of runs over HTTP, and the same steps as bare SQL by pgbench.",
    )
    one.add_argument("--clients", type=_counts, default=[1, 16], help="at each of these (1,16)")
    one.add_argument("--seconds", type=_seconds, default=10.0, help="for each measurement (10)")
    one.add_argument("--web-processes", type=_count, default=1, help="of the web server (1)")
    _add_json(one)
    one.set_defaults(run=_lifecycle, show=lifecycle.show)

    one = benchmarks.add_parser(
        "idle",
        help="workers that wait in a poll: what each costs, and how fast it wakes",
        description="Workers that wait in poll?wait=30 on one web process, then get a run in turn.",
    )
    one.add_argument("--waiters", type=_count, default=500, help="workers (500)")
    one.add_argument("--seconds", type=_seconds, default=30.0, help="of nothing but waiting (30)")
    _add_json(one)
    one.set_defaults(run=_idle, show=idle.show)

    one = benchmarks.add_parser(
        "kill",
        help="kill -9 of workers, web processes, scheduler and PostgreSQL while runs flow",
        description="Kills processes at random while runs flow, and fails unless every run then has"
        " ended exactly once and no outcome was lost or doubled.",
    )
    one.add_argument("--runs", type=_count, default=50, help="runs (50)")
    one.add_argument("--seconds", type=_seconds, default=60.0, help="of killing (60)")
    one.add_argument("--seed", type=int, help="repeats a former run's plan, though not its timing")
    _add_json(one)
    one.set_defaults(run=_kill, show=kill.show)

    one = benchmarks.add_parser(
        "firing",
        help="how late scheduled triggers fire: spread over the hour, and all at once",
        description="Scheduled triggers that come due at whole minutes, by the real clock: takes up to"
        " three of them.",
    )
    one.add_argument("--triggers", type=_count, default=10_000, help="scheduled triggers (10000)")
    one.add_argument("--schedulers", type=_count, default=2, help="scheduler processes (2)")
    _add_json(one)
    one.set_defaults(run=_firing, show=firing.show)

    one = benchmarks.add_parser(
        "schedulers",
        help="kill -9 of schedulers while triggers come due: every tick decided once",
        description="Kills one of three schedulers every second or so, whose clocks run twenty times as"
        " fast, and fails if a tick was lost or doubled.",
    )
    one.add_argument("--triggers", type=_count, default=2000, help="minutely triggers (2000)")
    one.add_argument("--seconds", type=_seconds, default=120.0, help="of killing (120)")
    _add_json(one)
    one.set_defaults(run=_schedulers, show=schedulers.show)
    return parser.parse_args(arguments)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")


def _lifecycle(options: argparse.Namespace) -> dict[str, object]:
    return lifecycle.run(
        clients=options.clients,
        seconds=options.seconds,
        web_processes=options.web_processes,
        say=_say,
    )


def _idle(options: argparse.Namespace) -> dict[str, object]:
    return idle.run(waiters=options.waiters, seconds=options.seconds, say=_say)


def _kill(options: argparse.Namespace) -> dict[str, object]:
    return kill.run(runs=options.runs, seconds=options.seconds, seed=options.seed, say=_say)


def _firing(options: argparse.Namespace) -> dict[str, object]:
    return firing.run(triggers=options.triggers, schedulers=options.schedulers, say=_say)


def _schedulers(options: argparse.Namespace) -> dict[str, object]:
    return schedulers.run(triggers=options.triggers, seconds=options.seconds, say=_say)


def _counts(text: str) -> list[int]:
    return [_count(word) for word in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 10000.")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to 3600.")
    return seconds


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
