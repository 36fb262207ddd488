"""`bin/bench lifecycle --against`: measures web CPU of lifecycles on this checkout and on another one, in turns."""

import statistics
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.cast import Pair, make_pairs
from bench.failure import BenchFailed
from bench.figures import Json, machine, print_table
from bench.http_measure import drive_all, lifecycle_figures
from bench.lifecycle_load import drive, drive_in_pool
from bench.stack import Database, Web, database, web
from pipedai import env

_HERE, _THERE = "this checkout", "the other one"


@dataclass(frozen=True, slots=True)
class _Side:
    """One of the two checkouts. Its database and web server are idle while the other is measured."""

    on: Database
    served: Web
    pairs: Sequence[Pair]
    pool: bool

    def measure(self, clients: int, seconds: float) -> Json:
        self.on.settle()
        driven = drive_in_pool if self.pool else drive
        used = drive_all(driven, self.on, self.served, self.pairs[:clients], seconds)
        return lifecycle_figures(used, seconds)


def compare(
    against: Path,
    *,
    clients: Sequence[int],
    seconds: float,
    processes: int,
    rounds: int,
    pool: bool = False,
    say: Callable[[str], None],
) -> Json:
    """Measure both with each number of clients, in so many rounds, and return the result as JSON. Raises BenchFailed.

    The checkouts take turns, so that neither has the machine's faster minutes.
    """
    against = against.resolve()
    if not (against / "manage.py").is_file():
        raise BenchFailed(f"{against} is no checkout of PipedAI.")
    say("Starting PostgreSQL and the web server, of both…")
    with ExitStack() as stack:
        sides = {}
        for name, checkout in ((_HERE, env.BASE_DIR), (_THERE, against)):
            on = stack.enter_context(database(checkout))
            served = stack.enter_context(web(on, processes=processes))
            pairs = make_pairs(served.port, max(clients), pool=pool)
            sides[name] = _Side(on, served, pairs, pool)
        found = machine(sides[_HERE].on.one("SHOW server_version")["server_version"])
        results = []
        for count in clients:
            measured: dict[str, list[Json]] = {name: [] for name in sides}
            for number in range(rounds):
                say(f"{count} clients, round {number + 1} of {rounds}…")
                for name, side in sides.items():
                    measured[name].append(side.measure(count, seconds))
            results.append({"clients": count, **_compared(measured)})
    return {
        "benchmark": "lifecycle",
        "machine": found,
        "seconds": seconds,
        "webProcesses": processes,
        "rounds": rounds,
        "pool": pool,
        "against": str(against),
        "results": results,
    }


def show(result: Json) -> None:
    """Print the table of a result."""
    rounds = f"{result['rounds']} rounds of {result['seconds']:g} s each"
    print(f"{_THERE}: {result['against']}; {rounds}, in turns")
    print()
    rows: list[list[Any]] = []
    for at in result["results"]:
        for name in (_HERE, _THERE):
            side = at[name]
            rows.append([name, at["clients"], *side["webCpuMs"], *side["perSecond"], None])
        rows.append(["ratio of the middle ones", at["clients"], *[None] * 6, at["webCpuRatio"]])
    heads = ["web CPU ms per lifecycle", "clients", "middle", "least", "most"]
    print_table([*heads, "per s, middle", "least", "most", "ratio"], rows)


def _compared(measured: dict[str, list[Json]]) -> Json:
    """Return the median, minimum and maximum of each checkout, and the ratio of the two medians."""
    sides = {
        name: {
            "webCpuMs": _spread([each["webCpuMs"] for each in rounds]),
            "perSecond": _spread([each["lifecyclesPerSecond"] for each in rounds]),
        }
        for name, rounds in measured.items()
    }
    here, there = (sides[name]["webCpuMs"][0] for name in (_HERE, _THERE))
    if not there:
        raise BenchFailed("The web server used too little CPU to count: give it more --seconds.")
    return {**sides, "webCpuRatio": round(here / there, 3)}


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)
