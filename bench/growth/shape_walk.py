"""Makes each shape of data at two sizes, in copies of the present ledger, and writes what each call then costs.

    python -m bench.growth.shape_walk REPEATS FEWER,MORE NAME,… FILE

A shape is measured twice: before PostgreSQL has analysed its rows (`lag`), as after a burst, and afterwards
(`analysed`).
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import django

from bench.growth.verdicts import STATES

# How often a call is repeated on a new connection, so that PostgreSQL plans each statement for its values.
_PLANNED_ANEW = 5
# A statement that takes longer is not measured any better.
_SURELY_SLOW_SECONDS = 0.1


def main(repeats: int, sizes: Sequence[int], names: Sequence[str], file: Path) -> None:
    """Measures the shapes with these names. Raises BenchFailed if a call fails."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    from django.db import connection

    from bench.growth.shapes import SHAPES
    from testing.world.database_copy import database_copy, instead_of_the_default

    calls: dict[tuple[str, str], dict[str, Any]] = {}
    for name in names:
        for nth, rows in enumerate(sizes):
            with database_copy() as copy, instead_of_the_default(copy):
                pages = list(SHAPES[name](rows))
                for state in STATES:
                    if state == "analysed":
                        with connection.cursor() as cursor:
                            cursor.execute("VACUUM (ANALYZE)")
                    for page in pages:
                        call = calls.setdefault(
                            (name, page.name),
                            {"shape": name, "call": page.name, "mostMs": page.most_ms,
                             "counted": [0, 0], "statements": {}},
                        )  # fmt: skip
                        call["counted"][nth] = page.counted
                        for key, cost in _measure(page.call, repeats):
                            of_it = call["statements"].setdefault(
                                key, {"sql": key[0], **{each: [None, None] for each in STATES}}
                            )
                            of_it[state][nth] = cost
    found = [{**call, "statements": list(call["statements"].values())} for call in calls.values()]
    file.write_text(json.dumps(found))


def _measure(call: Any, repeats: int) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
    """Yields what each statement of a call costs with the worse of two plans: the one for its values, and the one that
    a long-lived connection keeps. The key of a statement is its text, and how often this came before.
    """
    from bench.growth.plans import rows_read
    from bench.growth.watch import watch

    _, statements = watch(call, repeats=min(repeats, _PLANNED_ANEW))
    runs = [statements]
    if repeats > _PLANNED_ANEW and max(each.seconds for each in statements) < _SURELY_SLOW_SECONDS:
        runs.append(watch(call, repeats=repeats)[1])
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


if __name__ == "__main__":
    main(
        int(sys.argv[1]),
        [int(rows) for rows in sys.argv[2].split(",")],
        sys.argv[3].split(","),
        Path(sys.argv[4]),
    )
