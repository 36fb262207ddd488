"""kill -9 of workers, web processes, scheduler and PostgreSQL while runs flow.

It fails unless every run then has ended exactly once and no outcome was lost or doubled. With --failover the primary of
two PostgreSQL servers is killed and the synchronous standby promoted, again and again. With --outage the database, all
web processes and the scheduler are away in turn, with six runs in hand: none of them may be given up.
"""

import argparse
import secrets
from collections.abc import Callable, Sequence

from bench.figures import Json, print_table
from bench.kill import failover as failovers
from bench.kill import outage as outages
from bench.kill import siege
from bench.kill.crew import LEASE_SECONDS
from bench.options import count
from bench.options import seconds as seconds_of
from testing.processes.failure import ProcessFailed

IN_ALL = ("", "--failover", "--outage 4 15")
_TABLES = {"siege": siege.show, "failover": failovers.show, "outage": outages.show}


def add_options(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--failover", action="store_true", help="kill only the primary of two servers")
    how.add_argument(
        "--outage", type=seconds_of, nargs="+", default=(), metavar="SECONDS",
        help=f"how long each part is away, once for each number; the lease is {LEASE_SECONDS} s",
    )  # fmt: skip
    parser.add_argument("--runs", type=count, default=50, help="runs, except with --outage")
    parser.add_argument("--seconds", type=seconds_of, default=60.0, help="of killing")
    parser.add_argument(
        "--seed", type=int, help="repeats a former run's plan, though not its timing"
    )


def run(
    *,
    runs: int,
    seconds: float,
    seed: int | None,
    failover: bool,
    outage: Sequence[float],
    say: Callable[[str], None],
) -> Json:
    """Kill for `seconds`, and judge. Raises ProcessFailed if anything is wrong."""
    seed = secrets.randbelow(2**32) if seed is None else seed
    say(f"The seed is {seed}.")
    try:
        if outage:
            kind, found = "outage", outages.run(outages=outage, seed=seed, say=say)
        elif failover:
            kind, found = "failover", failovers.run(runs=runs, seconds=seconds, seed=seed, say=say)
        else:
            kind, found = "siege", siege.run(runs=runs, seconds=seconds, seed=seed, say=say)
    except ProcessFailed as failure:
        raise ProcessFailed(f"With the seed {seed} this is wrong:\n{failure}") from None
    return {"kind": kind, "seed": seed, **found}


def show(result: Json) -> None:
    _TABLES[result["kind"]](result)
    figures = {name: each for name, each in result.items() if type(each) in (int, float)}
    print_table(["what", "figure"], list(map(list, figures.items())))
    print("\nEvery run ended once; no outcome was lost, none doubled.")
