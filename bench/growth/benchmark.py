"""`bin/bench growth`: measures what each page costs the database as the ledger grows, and with which plan; and what
calls cost in shapes of data in which statements have read too much.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.failure import BenchFailed
from bench.figures import Json, machine, print_machine, print_table, ratio
from bench.growth.plans import sequential_scans
from bench.growth.verdicts import show_shapes
from bench.stack import Database, database

ENVIRONMENTS = 50
# The targets: how many times as long a page may take in the largest ledger as in the smallest, and in milliseconds.
_MOST_RATIO, _MOST_MS = 1.5, 20.0
# The targets of the pages that add up a month of 40,000 runs, which is the default, in milliseconds.
_MOST_OVERVIEW_MS, _MOST_STATISTICS_MS = 10.0, 50.0
# A smaller difference is noise, whatever the ratio.
_NOISE_MS = 1.0


def run(
    *,
    sizes: Sequence[int],
    month: int,
    repeats: int,
    values: int | None,
    only: str | None,
    shapes: Sequence[str],
    rows: Sequence[int],
    say: Callable[[str], None],
) -> Json:
    """Measure with each of these numbers of runs in the ledger, and return the result as JSON.

    In the end the pages that add up a month are measured with `month` runs in an environment's month. Of the queries of
    a list only the first `values` are tried, or all if that is None. The
    `shapes` are made of two numbers of `rows`, in copies of the first ledger. `only` may be "ledgers" or "shapes".

    Raises BenchFailed if a statement read a table of the ledger from end to end.
    """
    results: list[Json] = []
    calls: list[Json] = []
    for size in sizes[:1] if only == "shapes" else sizes:
        say(f"Starting PostgreSQL, and filling it with {size:,} runs…")
        # The pages are many, so the log has errors only.
        with database(LOG_LEVEL="ERROR") as on:
            found = machine(on.one("SHOW server_version")["server_version"])
            began = time.monotonic()
            with _full_pages(on):
                on.python(
                    "manage.py", "seed_demo", "--scale", "--runs", str(size),
                    "--environments", str(ENVIRONMENTS),
                )  # fmt: skip
            filled = round(time.monotonic() - began, 1)
            on.explain_plans()
            on.settle()
            file = on.directory / "walk.json"
            if only != "ledgers" and size == sizes[0]:
                say(f"Making {len(shapes)} shapes of {rows[0]:,} and {rows[1]:,} rows…")
                sent = [str(repeats), ",".join(map(str, rows)), ",".join(shapes), str(file)]
                with on.copied():
                    on.python("-m", "bench.growth.shape_walk", *sent)
                calls = json.loads(file.read_text())
            result = {"runs": size, "filledInSeconds": filled, "machine": found}
            if only != "shapes":
                say(f"Looking at every page of {size:,} runs…")
                walk = ["-m", "bench.growth.walk", str(repeats), str(month), str(file)]
                on.python(*walk, *([] if values is None else [str(values)]))
                result |= json.loads(file.read_text())
        results.append(result)
    scans = [scan for result in results for scan in _scans(result)]
    if scans:
        raise BenchFailed("Read from end to end:\n" + "\n".join(scans))
    return {
        "benchmark": "growth",
        "machine": results[0]["machine"],
        "runsOfTheBusyMonth": month,
        "results": results,
        "rowsOfShapes": rows,
        "shapes": calls,
    }


@contextmanager
def _full_pages(on: Database) -> Iterator[None]:
    """Fill the ledger's pages completely, as in a live database, where updates have used the free part of each page.

    Otherwise each old page would have room for one new run, and queueing a hundred runs would read a hundred old pages.
    """
    kept = on.one("SELECT reloptions::text AS options FROM pg_class WHERE oid = 'run'::regclass")
    on.execute("ALTER TABLE run SET (fillfactor = 100)")
    yield
    on.execute(f"ALTER TABLE run SET ({kept['options'].strip('{}')})")


def show(result: Json) -> None:
    """Print the tables of a result. Raises BenchFailed if a statement of a shape breaks the rule."""
    print_machine(result["machine"])
    if "pages" in result["results"][0]:
        _show_ledgers(result)
    if result["shapes"]:
        print()
        show_shapes(result["shapes"], result["rowsOfShapes"])


def _show_ledgers(result: Json) -> None:
    """Print the slowest page of each list, then all pages that miss their target."""
    print(f"milliseconds in the database, over {ENVIRONMENTS} environments")
    print()
    sizes = result["results"]
    heads = [f"{each['runs']:,} runs" for each in sizes]
    pages = {name: _times(sizes, name) for name in sizes[-1]["pages"]}
    groups: dict[str, list[str]] = {}
    for name in pages:
        groups.setdefault(name.partition("?")[0].removesuffix(", deep"), []).append(name)
    rows = []
    for group, names in groups.items():
        times = [pages[name] for name in names]
        read = max(sizes[-1]["pages"][name]["rowsRead"] for name in names)
        rows.append([group, len(names), *_slowest(times), _largest_ratio(times), read])
    print_table(["slowest page of", "pages", *heads, "largest ratio", "most rows read"], rows)
    print()
    busy = [
        [name, *(each["busyMonth"][name]["ms"] for each in sizes), _most_of_a_month(name)]
        for name in sizes[-1]["busyMonth"]
    ]
    print_table([f"at {result['runsOfTheBusyMonth']:,} runs a month", *heads, "target"], busy)
    missed = [[name, *times, _ratio(times)] for name, times in pages.items() if misses(times)]
    print()
    if missed:
        print(f"Over {_MOST_MS:g} ms, or over {_MOST_RATIO:g} times the smallest ledger's:")
        print()
        print_table(["page", *heads, "ratio"], missed)
    else:
        print(f"Each of {len(pages)} pages meets its target.")


def misses(times: Sequence[float | None]) -> bool:
    """Whether a page misses its target. `times` has its milliseconds, from the smallest ledger to the largest."""
    last = times[-1]
    assert last is not None
    grown = times[0] is not None and last > max(_MOST_RATIO * times[0], times[0] + _NOISE_MS)
    return last > _MOST_MS or grown


def _most_of_a_month(name: str) -> float:
    return _MOST_OVERVIEW_MS if name == "overview" else _MOST_STATISTICS_MS


def _times(sizes: Sequence[Json], name: str) -> list[float | None]:
    return [each["pages"].get(name, {}).get("ms") for each in sizes]


def _slowest(pages: Sequence[Sequence[float | None]]) -> list[float | None]:
    columns = zip(*pages, strict=True)
    return [max((ms for ms in column if ms is not None), default=None) for column in columns]


def _largest_ratio(pages: Sequence[Sequence[float | None]]) -> float | None:
    return max((found for times in pages if (found := _ratio(times))), default=None)


def _ratio(times: Sequence[float | None]) -> float | None:
    first, last = times[0], times[-1]
    return None if first is None or last is None else ratio(last, first)


def _scans(result: Json) -> Iterator[str]:
    busy = {f"{name} of a busy month": page for name, page in result.get("busyMonth", {}).items()}
    measured: dict[str, Any] = {**result.get("pages", {}), **busy}
    for name, page in measured.items():
        for statement in page["statements"]:
            for table in sequential_scans(statement["plan"] or {"Node Type": ""}):
                yield f"{table}, at {result['runs']:,} runs, by {name}: {statement['sql']}"
