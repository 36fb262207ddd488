"""Requests every page of the present ledger, and writes what each cost and with which plans.

    python -m bench.growth.walk REPEATS MONTH FILE [VALUES]

measures in the database of the environment, which bench.growth.benchmark has filled. At the end it gives an environment
MONTH runs in the present month, and measures the pages that add them up. With VALUES it tries only so many queries
of each list of the API.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django


def main(repeats: int, month: int, file: Path, values: int | None = None) -> None:
    """Measures every page. Raises BenchFailed if one fails."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "pipedai.settings"
    django.setup()
    from django.db import connection

    from bench.growth import busy_month
    from bench.growth.pages import api_pages, busy_pages, first_of_month, machine_pages
    from bench.growth.pool_polls import pool_polls
    from bench.growth.subjects import choose
    from pipedai.sql import database_now
    from pipedai.timeouts import session_without_timeouts

    on = choose()
    found = {
        page.name: _measure(page.call, repeats)
        for pages in (
            machine_pages(on),
            api_pages(on, values),
            pool_polls(),
        )
        for page in pages
    }
    with session_without_timeouts(), connection.cursor() as cursor:
        busy_month.fill(on.environment.id, month, since=first_of_month(), until=database_now())
        # As autovacuum does in a live database.
        cursor.execute("VACUUM (ANALYZE) run")
    busy = {
        page.name: _measure(page.call, repeats) for page in busy_pages(on.owner, on.environment.id)
    }
    file.write_text(json.dumps({"pages": found, "busyMonth": busy}))


def _measure(call: Callable[[], object], repeats: int) -> dict[str, Any]:
    from bench.growth.plans import rows_read
    from bench.growth.watch import watch

    seconds, statements = watch(call, repeats=repeats)
    return {
        "ms": round(1000 * seconds, 3),
        "rowsRead": sum(rows_read(each.plan) for each in statements if each.plan),
        "statements": [
            {"sql": each.sql, "ms": round(1000 * each.seconds, 3), "plan": each.plan}
            for each in statements
        ],
    }


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
