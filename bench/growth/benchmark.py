"""What each page costs the database as the ledger grows, and by which plan; and what is slow in data of other shapes.

It polls, fires, and reads every list of the API and of admin with each filter, in ledgers of each size, and fails if a
table of the ledger was read from end to end. Before that it makes shapes of data that are hard to read, such as long
queues, at two sizes in copies of the first ledger, and fails if a statement is slow, or reads the more the more it does
not return.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from bench.figures import Json, machine, print_table, ratio
from bench.growth.ledger import ENVIRONMENTS
from bench.growth.verdicts import SHAPES, show_shapes
from bench.options import count, one_or_more, size
from testing.probes.plan_nodes import sequential_scans
from testing.processes.failure import ProcessFailed
from testing.processes.stack import Database, database

IN_ALL = ("",)
# The targets: how many times as long a page may take in the largest ledger as in the smallest, and in milliseconds.
_MOST_RATIO, _MOST_MS = 1.5, 20.0
# The targets of the pages that add up a month of 40,000 runs, which is the default, in milliseconds.
_MOST_OVERVIEW_MS, _MOST_STATISTICS_MS = 10.0, 50.0
# A smaller difference is noise, whatever the ratio.
_NOISE_MS = 1.0


def add_options(parser: argparse.ArgumentParser) -> None:
    sizes = one_or_more(size)
    parser.add_argument("--sizes", type=sizes, default="10k,200k,2m", help="numbers of runs")
    parser.add_argument("--month", type=count, default=40_000, help="runs of a busy month")
    parser.add_argument("--repeats", type=count, default=10, help="of each page")
    parser.add_argument("--values", type=count, help="try only so many queries of each list")
    parser.add_argument("--only", choices=("ledgers", "shapes"), help="measure nothing else")
    parser.add_argument("--shapes", type=one_or_more(_shape), default=",".join(SHAPES), help="some")
    parser.add_argument("--rows", type=_two_sizes, default="10k,100k", help="of a shape")


def _shape(text: str) -> str:
    if text not in SHAPES:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape; there are {','.join(SHAPES)}.")
    return text


def _two_sizes(text: str) -> list[int]:
    sizes = one_or_more(size)(text)
    if len(sizes) != 2 or sizes[0] >= sizes[1]:
        raise argparse.ArgumentTypeError(f"{text!r} is not a smaller and a larger number.")
    return sizes


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
    """Measure with each of these numbers of runs in the ledger. Raises ProcessFailed if a statement read a table of the
    ledger from end to end.
    """
    results: list[Json] = []
    calls: list[Json] = []
    for runs in sizes[:1] if only == "shapes" else sizes:
        say(f"Starting PostgreSQL, and filling it with {runs:,} runs…")
        # The pages are many, so the log has errors only.
        with database(LOG_LEVEL="ERROR") as on:
            found = machine(on)
            began = time.monotonic()
            with _full_pages(on):
                on.python("-m", "bench.growth.ledger", str(runs))
            filled = round(time.monotonic() - began, 1)
            on.explain_plans()
            on.settle()
            file = on.directory / "walk.json"
            if only != "ledgers" and runs == sizes[0]:
                say(f"Making {len(shapes)} shapes of {rows[0]:,} and {rows[1]:,} rows…")
                sent = [str(repeats), str(file), ",".join(map(str, rows)), ",".join(shapes)]
                with on.copied():
                    on.python("-m", "bench.growth.walk", "shapes", *sent)
                calls = json.loads(file.read_text())
            result = {"runs": runs, "filledInSeconds": filled, "machine": found}
            if only != "shapes":
                say(f"Looking at every page of {runs:,} runs…")
                sent = [str(repeats), str(file), str(month), *([str(values)] if values else [])]
                on.python("-m", "bench.growth.walk", "ledger", *sent)
                result |= json.loads(file.read_text())
        results.append(result)
    if scans := [scan for result in results for scan in _scans(result)]:
        raise ProcessFailed("Read from end to end:\n" + "\n".join(scans))
    return {
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
    """Print the tables of a result. Raises ProcessFailed if a statement of a shape breaks the rule."""
    if "pages" in result["results"][0]:
        _show_ledgers(result)
    if result["shapes"]:
        print()
        show_shapes(result["shapes"], result["rowsOfShapes"])


def _show_ledgers(result: Json) -> None:
    """Print the slowest page of each list, then all pages that miss their target."""
    print(f"milliseconds in the database, over {ENVIRONMENTS} environments\n")
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
        ratios = [found for each in times if (found := _ratio(each))]
        rows.append([group, len(names), *_slowest(times), max(ratios, default=None), read])
    print_table(["slowest page of", "pages", *heads, "largest ratio", "most rows read"], rows)
    print()
    busy = [
        [name, *(each["busyMonth"][name]["ms"] for each in sizes), _most_of_a_month(name)]
        for name in sizes[-1]["busyMonth"]
    ]
    print_table([f"at {result['runsOfTheBusyMonth']:,} runs a month", *heads, "target"], busy)
    print()
    missed = [[name, *times, _ratio(times)] for name, times in pages.items() if misses(times)]
    if missed:
        print(f"Over {_MOST_MS:g} ms, or over {_MOST_RATIO:g} times the smallest ledger's:\n")
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
