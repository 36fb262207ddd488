"""`bin/bench kill`: kills processes, or whole parts of the service, while there are runs, and judges the ledger."""

import secrets
from collections.abc import Callable, Sequence

from bench.failure import BenchFailed
from bench.figures import Json, print_machine, print_table
from bench.kill import failover as failovers
from bench.kill import outage as outages
from bench.kill import siege

_TABLES = {"siege": siege.show, "failover": failovers.show, "outage": outages.show}
_IN_TABLES = {"benchmark", "kind", "machine", "kills", "failovers", "outages"}


def run(
    *,
    runs: int,
    seconds: float,
    seed: int | None,
    failover: bool = False,
    outage: Sequence[float] = (),
    say: Callable[[str], None],
) -> Json:
    """Kill for `seconds`, judge, and return the result as JSON. Raises BenchFailed if anything is wrong.

    With `failover` the primary of two PostgreSQL servers is killed, again and again. With `outage` the database, all
    web processes and the scheduler are away in turn, once for each of these numbers of seconds.
    """
    seed = secrets.randbelow(2**32) if seed is None else seed
    say(f"The seed is {seed}.")
    try:
        if outage:
            kind, result = "outage", outages.run(outages=outage, seed=seed, say=say)
        elif failover:
            kind, result = "failover", failovers.run(runs=runs, seconds=seconds, seed=seed, say=say)
        else:
            kind, result = "siege", siege.run(runs=runs, seconds=seconds, seed=seed, say=say)
    except BenchFailed as failure:
        raise BenchFailed(f"With the seed {seed} this is wrong:\n{failure}") from None
    return {"benchmark": "kill", "kind": kind, "seed": seed, **result}


def show(result: Json) -> None:
    """Print the tables of a result."""
    print_machine(result["machine"])
    print()
    _TABLES[result["kind"]](result)
    told = [name for name in result if name not in _IN_TABLES]
    print_table(["what", "figure"], [[name, result[name]] for name in told])
    print("\nEvery run ended once; no outcome was lost, none doubled.")
