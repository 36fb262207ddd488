"""Measures what each page or call costs the database of the environment, and writes it to a file.

    python -m bench.growth.walk ledger REPEATS FILE MONTH [VALUES]
    python -m bench.growth.walk shapes REPEATS FILE FEWER,MORE NAME,…

requests every page of the ledger, and at the end those that add up a month with MONTH runs; or makes each shape at two
sizes, in copies of the ledger. A shape is measured twice: before PostgreSQL has analysed its rows (`lag`), as after a
burst, and afterwards (`analysed`).
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import django

from bench.growth.verdicts import STATES

# How often a call is repeated on a new connection, so that PostgreSQL plans each statement for its values.
_PLANNED_ANEW = 5
# A statement that takes longer is not measured any better.
_SURELY_SLOW_SECONDS = 0.1


def walk_ledger(repeats: int, month: int, values: int | None) -> Any:
    """Measures every page. Of each list it tries so many queries, or all. Raises ProcessFailed if a page fails."""
    from bench.growth.admin_pages import admin_pages
    from bench.growth.ledger import add_ended
    from bench.growth.pages import api_pages, busy_pages, first_of_month, machine_pages
    from bench.growth.subjects import choose
    from pipedai.sql import database_now
    from pipedai.timeouts import session_without_timeouts
    from triggers.models import Run

    on = choose()
    walks = (machine_pages(on), api_pages(on, values), admin_pages(on, values))
    found = {page.name: _page(page.call, repeats) for pages in walks for page in pages}
    ended = Run.objects.filter(environment=on.environment, ended_at__isnull=False)
    first = first_of_month()
    missing = month - ended.filter(ended_at__gte=first).count()
    samples = list(ended.filter(retry_of__isnull=True).values_list("id", flat=True)[:40])
    with session_without_timeouts():
        add_ended(on.environment.id, missing, samples, since=first, until=database_now())
        _vacuum("run")
    busy = {
        page.name: _page(page.call, repeats) for page in busy_pages(on.owner, on.environment.id)
    }
    return {"pages": found, "busyMonth": busy}


def walk_shapes(repeats: int, sizes: Sequence[int], names: Sequence[str]) -> Any:
    """Measures the shapes with these names. Raises ProcessFailed if a call fails."""
    from bench.growth.shapes import SHAPES
    from testing.world.database_copy import database_copy, instead_of_the_default

    calls: dict[tuple[str, str], dict[str, Any]] = {}
    for name in names:
        for nth, rows in enumerate(sizes):
            with database_copy() as copy, instead_of_the_default(copy):
                pages = list(SHAPES[name](rows))
                for state in STATES:
                    if state == "analysed":
                        _vacuum()
                    for page in pages:
                        call = calls.setdefault(
                            (name, page.name),
                            {"shape": name, "call": page.name, "mostMs": page.most_ms,
                             "counted": [0, 0], "statements": {}},
                        )  # fmt: skip
                        call["counted"][nth] = page.counted
                        for key, cost in _costs(page.call, repeats, page.most_ms):
                            of_it = call["statements"].setdefault(
                                key, {"sql": key[0], **{each: [None, None] for each in STATES}}
                            )
                            of_it[state][nth] = cost
    return [{**call, "statements": list(call["statements"].values())} for call in calls.values()]


def _vacuum(table: str = "") -> None:
    """Does what autovacuum does in a live database."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute(f"VACUUM (ANALYZE) {table}")


def _page(call: Callable[[], object], repeats: int) -> dict[str, Any]:
    from bench.growth.watch import watch
    from testing.probes.plan_nodes import rows_read

    seconds, statements = watch(call, repeats=repeats)
    return {
        "ms": round(1000 * seconds, 3),
        "rowsRead": sum(rows_read(each.plan) for each in statements if each.plan),
        "statements": [
            {"sql": each.sql, "ms": round(1000 * each.seconds, 3), "plan": each.plan}
            for each in statements
        ],
    }


def _costs(
    call: Any, repeats: int, most_ms: float
) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    """Yields what each statement of a call costs with the worse of two plans: the one for its values, and the one that
    a long-lived connection keeps. The key of a statement is its text, and how often this came before.

    A call with a statement that takes longer than `most_ms` is measured again on a new connection, and the faster time
    counts: on a busy machine also the reading of a session can take so long, but hardly twice.
    """
    from django.db import connection

    from bench.growth.watch import watch
    from testing.probes.plan_nodes import rows_read

    def measured(count: int) -> Any:
        _, statements = watch(call, repeats=count)
        if max(each.seconds for each in statements) > most_ms / 1000:
            connection.close()
            for each, again in zip(statements, watch(call, repeats=count)[1], strict=False):
                each.seconds = min(each.seconds, again.seconds)
        return statements

    runs = [measured(min(repeats, _PLANNED_ANEW))]
    if repeats > _PLANNED_ANEW and max(each.seconds for each in runs[0]) < _SURELY_SLOW_SECONDS:
        runs.append(measured(repeats))
    costs: dict[tuple[str, int], dict[str, Any]] = {}
    for one in runs:
        before: Counter[str] = Counter()
        for each in one:
            key = (each.sql, before[each.sql])
            before[each.sql] += 1
            read = rows_read(each.plan) if each.plan else 0
            cost = costs.setdefault(key, {"ms": 0.0, "rowsRead": 0, "plan": None})
            cost["ms"] = max(cost["ms"], round(1000 * each.seconds, 3))
            if read >= cost["rowsRead"]:
                cost |= {"rowsRead": read, "plan": each.plan}
    yield from costs.items()


def main(what: str, repeats: str, file: str, first: str, second: str = "") -> None:
    """Measures, and writes the file."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    if what == "shapes":
        found = walk_shapes(
            int(repeats), [int(size) for size in first.split(",")], second.split(",")
        )
    else:
        found = walk_ledger(int(repeats), int(first), int(second) if second else None)
    Path(file).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
