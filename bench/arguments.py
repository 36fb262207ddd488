"""The arguments of bin/bench: one sub-command for each benchmark, with its options."""

import argparse
from pathlib import Path
from types import ModuleType

from bench import (
    console,
    deliveries,
    events,
    events_in,
    everything,
    firing,
    idle,
    lifecycle,
    peer,
    schedulers,
    start,
)
from bench.abuse import benchmark as abuse
from bench.growth import benchmark as growth
from bench.growth.verdicts import SHAPES
from bench.kill import benchmark as kill
from bench.kill.crew import LEASE_SECONDS

_HELP = """\
Measures PipedAI on this machine, against a PostgreSQL of its own that keeps what it commits (fsync
and synchronous_commit on), in a directory below PIPEDAI_DATA_DIR that is removed at the end. Let
the machine be quiet meanwhile. docs/performance.md says what the columns mean.
"""

_ALL, _SHAPES = ",".join(abuse.NAMES), ",".join(SHAPES)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the arguments. `benchmark` is the module, `json` a file or None; the others are arguments of its `run`."""
    parser = argparse.ArgumentParser("bin/bench", description=_HELP)
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")

    def add(
        name: str, benchmark: ModuleType, summary: str, description: str
    ) -> argparse.ArgumentParser:
        one = benchmarks.add_parser(name, help=summary, description=description)
        one.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
        one.set_defaults(benchmark=benchmark)
        return one

    one = add(
        "lifecycle",
        lifecycle,
        "create, poll, claim, start, heartbeat, complete: over HTTP, beside bare Django and bare SQL",
        "Whole lifecycles of runs over HTTP, beside a bare Django view and the same steps as bare SQL;"
        " and one call on the two-lane server beside gthread.",
    )
    one.add_argument("--clients", type=_counts, default=[1, 16, 64], help="each of these (1,16,64)")
    one.add_argument("--seconds", type=_seconds, default=10.0, help="for each measurement (10)")
    one.add_argument("--web-processes", type=_count, default=1, help="of the web server (1)")
    kind = one.add_mutually_exclusive_group()
    kind.add_argument(
        "--budget",
        action="store_true",
        help="one budget covers all runs, so that each claim reserves",
    )
    kind.add_argument(
        "--pool",
        action="store_true",
        help="the workers are in one pool, which does the runs of all triggers; beside workers with"
        " a trigger each",
    )
    one.add_argument(
        "--protocol",
        choices=("long", "short"),
        default="long",
        help="short: also by claim-next, beside poll, claim and start (long)",
    )
    one.add_argument(
        "--against",
        type=Path,
        metavar="CHECKOUT",
        help="compare web CPU with another checkout instead, in turns; it needs no .venv of its own",
    )
    one.add_argument("--rounds", type=_count, default=5, help="of each, with --against (5)")

    one = add(
        "peer",
        peer,
        "the same lifecycle on a Prefect server, side by side",
        "Whole lifecycles of runs, and of flow runs on a Prefect server with as many processes and a"
        " database of the same PostgreSQL. Prefect is installed below PIPEDAI_DATA_DIR, and stays.",
    )
    one.add_argument("--clients", type=_counts, default=[1, 16], help="each of these (1,16)")
    one.add_argument("--seconds", type=_seconds, default=10.0, help="for each measurement (10)")

    one = add(
        "idle",
        idle,
        "workers that wait in a poll: what each costs, and how fast it wakes",
        "Workers that wait in poll?wait=30 on one web process, then get a run in turn.",
    )
    one.add_argument("--waiters", type=_count, help="workers (1000, or 500 with --pool)")
    one.add_argument(
        "--pool",
        action="store_true",
        help="the workers are in one pool: count the polls that one run causes",
    )
    one.add_argument("--seconds", type=_seconds, default=30.0, help="of nothing but waiting (30)")

    one = add(
        "events",
        events,
        "runs that tell what they do, and readers of their streams",
        "Workers that send events of their runs, and as many readers who stream them, with lifecycles beside them;"
        " fails if an event is lost, doubled or out of order. Before that, streams that have nothing to tell.",
    )
    one.add_argument("--runs", type=_count, default=200, help="runs, each with a reader (200)")
    one.add_argument("--rate", type=_count, default=20, help="events of a run a second (20)")
    one.add_argument(
        "--every", type=_seconds, default=2.0, help="seconds between two calls, as our worker's (2)"
    )
    one.add_argument("--seconds", type=_seconds, default=30.0, help="of telling (30)")
    one.add_argument(
        "--idle", type=_count, default=1000, help="streams with nothing to tell (1000)"
    )
    one.add_argument("--clients", type=_count, default=4, help="that run lifecycles beside it (4)")
    one.add_argument("--web-processes", type=_count, default=2, help="of the web server (2)")

    one = add(
        "events-in",
        events_in,
        "signed events from outside, from the request to the queued run, beside lifecycles",
        "Sources send signed events at a steady rate, each of which queues a run, beside lifecycles; fails if one is"
        " refused, or answered without a run.",
    )
    one.add_argument("--rate", type=_count, default=100, help="events a second (100)")
    one.add_argument("--clients", type=_count, default=4, help="that run lifecycles beside it (4)")
    one.add_argument("--seconds", type=_seconds, default=60.0, help="of sending (60)")
    one.add_argument("--web-processes", type=_count, default=1, help="of the web server (1)")

    one = add(
        "console",
        console,
        "what each screen of the console costs with many triggers and runs",
        "Every screen of the console, in an environment with many triggers and a month of runs: milliseconds in"
        " the web process, bytes, calls of the API and statements.",
    )
    one.add_argument("--triggers", type=_count, default=1000, help="of the environment (1000)")
    one.add_argument("--runs", type=_many, default=40_000, help="of the last four weeks (40000)")
    one.add_argument(
        "--repeats", type=_count, default=5, help="visits, of which the fastest counts (5)"
    )

    one = add(
        "growth",
        growth,
        "what each page costs the database as the ledger grows, and by which plan",
        "Polls, fires, and reads every list of the API and of admin with each filter, in ledgers of"
        " each size; fails if a table of the ledger was read from end to end. Before that, makes shapes"
        " of data that are hard to read, such as long queues, at two sizes in copies of the first"
        " ledger; fails if a statement is slow, or reads more the more it does not return.",
    )
    one.add_argument(
        "--sizes", type=_sizes, default=[10_000, 200_000, 2_000_000], help="of runs (10k,200k,2m)"
    )
    one.add_argument(
        "--month", type=_count, default=40_000, help="runs of an environment's month (40000)"
    )
    one.add_argument("--repeats", type=_count, default=10, help="of each page (10)")
    one.add_argument("--values", type=_count, help="queries of each list (all)")
    one.add_argument("--only", choices=("ledgers", "shapes"), help="measure nothing else")
    one.add_argument("--shapes", type=_shapes, default=SHAPES, help=f"some of {_SHAPES} (all)")
    one.add_argument(
        "--rows", type=_two_sizes, default=[10_000, 100_000], help="of a shape (10k,100k)"
    )

    one = add(
        "start",
        start,
        "how soon a web process answers, and bin/run serves again",
        "Starts the web process on a migrated database, and bin/run for the second time.",
    )
    one.add_argument("--repeats", type=_count, default=5, help="starts (5)")

    one = add(
        "firing",
        firing,
        "how late scheduled triggers fire: spread over the hour, and all at once",
        "Scheduled triggers that come due at whole minutes, by the real clock: takes up to three of them.",
    )
    one.add_argument("--triggers", type=_many, default=10_000, help="scheduled triggers (10000)")
    one.add_argument("--schedulers", type=_count, default=2, help="scheduler processes (2)")
    one.add_argument(
        "--each-second",
        type=int,
        default=0,
        metavar="N",
        help="let N triggers come due each second instead (0: no)",
    )
    one.add_argument("--seconds", type=_count, default=30, help="of that (30, at most 55)")

    one = add(
        "deliveries",
        deliveries,
        "how late webhooks are while nine tenths of all are for dead hosts",
        "Nine tenths of the deliveries are due at once, for hosts that never answer; the others come due"
        " one after another.",
    )
    one.add_argument("--deliveries", type=_many, default=10_000, help="in all (10000)")
    one.add_argument("--hosts", type=_count, default=100, help="nine tenths of them dead (100)")
    one.add_argument(
        "--seconds", type=_seconds, default=20.0, help="in which the others come due (20)"
    )
    one.add_argument("--schedulers", type=_count, default=2, help="scheduler processes (2)")

    one = add(
        "kill",
        kill,
        "kill -9 of workers, web processes, scheduler and PostgreSQL while runs flow",
        "Kills processes at random while runs flow, and fails unless every run then has ended exactly"
        " once and no outcome was lost or doubled. With --failover the primary of two PostgreSQL"
        " servers is killed and the synchronous standby promoted, again and again. With --outage"
        " the database, all web processes and the scheduler are away in turn, with six runs in hand:"
        " none of them may be given up.",
    )
    how = one.add_mutually_exclusive_group()
    how.add_argument("--failover", action="store_true", help="kill only the primary of two servers")
    how.add_argument(
        "--outage",
        type=_seconds,
        nargs="+",
        default=(),
        metavar="SECONDS",
        help=f"how long each part is away, once for each number; the lease is {LEASE_SECONDS} s",
    )
    one.add_argument("--runs", type=_count, default=50, help="runs (50), except with --outage")
    one.add_argument("--seconds", type=_seconds, default=60.0, help="of killing (60)")
    one.add_argument("--seed", type=int, help="repeats a former run's plan, though not its timing")

    one = add(
        "schedulers",
        schedulers,
        "kill -9 of schedulers while triggers come due: every tick decided once",
        "Kills one of three schedulers every second or so, whose clocks run twenty times as fast, and"
        " fails if a tick was lost or doubled.",
    )
    one.add_argument("--triggers", type=_count, default=2000, help="minutely triggers (2000)")
    one.add_argument("--seconds", type=_seconds, default=120.0, help="of killing (120)")

    one = add(
        "abuse",
        abuse,
        "what one tenant notices of another's flood: latencies and memory, without and with",
        "Floods a served instance in each of several ways, while another tenant lives a normal life; fails"
        " if that one's p99 grows to more than 3 times, or the web process by more than 100 MiB.",
    )
    one.add_argument("--floods", type=_floods, default=abuse.NAMES, help=f"some of {_ALL} (all)")
    one.add_argument("--seconds", type=_seconds, default=30.0, help="of each flood (30)")

    add("all", everything, "all of them", "All of them, one after another, with one result.")
    return parser.parse_args(arguments)


def _counts(text: str) -> list[int]:
    return [_count(word) for word in text.split(",")]


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 10000.")
    return int(text)


def _many(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 1000000.")
    return int(text)


def _floods(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(abuse.NAMES):
        raise argparse.ArgumentTypeError(f"{min(unknown)!r} is no flood; there are {_ALL}.")
    return names


def _shapes(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - set(SHAPES):
        raise argparse.ArgumentTypeError(f"{min(unknown)!r} is no shape; there are {_SHAPES}.")
    return names


def _sizes(text: str) -> list[int]:
    return [_size(word) for word in text.lower().split(",")]


def _two_sizes(text: str) -> list[int]:
    sizes = _sizes(text)
    if len(sizes) != 2 or sizes[0] >= sizes[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not a smaller and a larger number.")
    return sizes


def _size(text: str) -> int:
    digits, unit = (text[:-1], text[-1:]) if text[-1:] in ("k", "m") else (text, "")
    runs = int(digits) * {"": 1, "k": 1000, "m": 1_000_000}[unit] if digits.isdecimal() else 0
    if not 1000 <= runs <= 100_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of runs from 1k to 100m.")
    return runs


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds from 1 to 3600.")
    return seconds
