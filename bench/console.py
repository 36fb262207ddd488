"""What each screen of the console costs in an environment with many triggers and a month of runs.

That is milliseconds in the web process, bytes, calls of the API and statements.

    python -m bench.console TRIGGERS RUNS REPEATS FILE

does the measuring, by calling Django directly, on the database of the environment.
"""

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import django

from bench.figures import Json, machine, print_table
from bench.options import count
from testing.processes.failure import ProcessFailed
from testing.processes.stack import database

IN_ALL = ("",)
# The targets of a screen: milliseconds in the web process, and kilobytes that a browser loads, compressed.
_MOST_MS, _MOST_KB = 100.0, 60.0
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--triggers", type=count, default=1000, help="of the environment")
    parser.add_argument("--runs", type=count, default=40_000, help="of the last four weeks")
    parser.add_argument("--repeats", type=count, default=5, help="visits; the fastest counts")


def run(*, triggers: int, runs: int, repeats: int, say: Callable[[str], None]) -> Json:
    """Measure each screen `repeats` times. Raises ProcessFailed."""
    say(f"Starting PostgreSQL, and filling it with {triggers:,} triggers and {runs:,} runs…")
    with database(LOG_LEVEL="ERROR") as on:
        file = on.directory / "screens.json"
        on.python("-m", "bench.console", str(triggers), str(runs), str(repeats), str(file))
        return {"machine": machine(on), **json.loads(file.read_text())}


def show(result: Json) -> None:
    """Print the table of a result, and then which screens miss a target."""
    print(
        f"{result['triggers']:,} triggers, {result['runs']:,} runs, {result['assetsKb']:.1f} KB of assets in each KB\n"
    )
    screens = result["screens"]
    rows = [
        [
            each["name"],
            f"{each['ms']:.0f}",
            f"{each['kb']:.1f}",
            len(each["calls"]),
            each["statements"],
            f"{each['databaseMs']:.0f}",
            _slowest(each),
        ]
        for each in screens
    ]
    heads = ["screen", "ms", "KB", "API calls", "statements", "ms of them", "slowest call"]
    print_table(heads, rows)
    over = [each["name"] for each in screens if each["ms"] > _MOST_MS or each["kb"] > _MOST_KB]
    print(f"\nover {_MOST_MS:.0f} ms or {_MOST_KB:.0f} KB: {', '.join(over) or 'none'}")


def _slowest(screen: Json) -> str:
    if not screen["calls"]:
        return "–"
    path, milliseconds = max(screen["calls"], key=lambda call: float(call[1]))
    return f"{path} {milliseconds:.0f} ms"


def main(triggers: int, runs: int, repeats: int, file: Path) -> None:
    """Fill the database, measure, and write the result. Raises ProcessFailed if a screen can't be seen."""
    django.setup()
    from console.tests.screens import SCREENS
    from console.tests.visits import visitor

    stage = _fill(triggers, runs)
    people = {True: visitor(), False: visitor(stage.cast.owner)}
    for each in people.values():
        each.defaults["SERVER_NAME"] = "localhost"  # ALLOWED_HOSTS has it.
    home = people[False].get(SCREENS[-1].url(stage)).content.decode()
    assets = sum(
        _asset_kb(path) for path in set(re.findall(r'(?:src|href)="(/static/[^"]+)"', home))
    )
    screens = []
    for screen in SCREENS:
        client = people[screen.role == "nobody"]

        def call(url: str = screen.url(stage), client: Any = client) -> bytes:
            answer = client.get(url)
            if answer.status_code != 200:
                raise ProcessFailed(f"GET {url} answered {answer.status_code}.")
            content: bytes = answer.content
            return content

        measured = min((_measure(call) for _ in range(repeats)), key=lambda each: each["ms"])
        screens.append({"name": screen.name, **measured, "kb": measured["kb"] + assets})
    file.write_text(json.dumps({"screens": screens, "assetsKb": assets}))


def _fill(triggers: int, runs: int) -> Any:
    from django.db import connection

    from pipedai.sql import database_now
    from pipedai.timeouts import session_without_timeouts
    from testing.world.cast import make_cast
    from testing.world.copied_rows import copy_row
    from testing.world.many_triggers import add_triggers
    from testing.world.runs import Runs
    from testing.world.stage import set_stage
    from triggers.models import Run

    cast = make_cast()
    with session_without_timeouts():
        stage = set_stage(cast)
        now = database_now()
        add_triggers(cast, triggers, due=now + timedelta(hours=1))
        of_one = Runs(cast, cast.trigger_id, now=now - timedelta(days=28))
        ended = of_one.ended(costUsd="0.25", shortMessage="Three items need an answer.")
        moment = "r.{} + (n * interval '28 days' / %(count)s)"
        times = ("available_at", "queued_at", "claimed_at", "started_at", "ended_at")
        copy_row(
            Run, ended, runs,
            trigger_id="(ARRAY(SELECT id FROM trigger))[1 + n %% %(triggers)s]".replace("%(triggers)s", str(triggers)),
            **{each: moment.format(each) for each in times},
        )  # fmt: skip
        with connection.cursor() as cursor:
            cursor.execute("VACUUM (ANALYZE)")
    return stage


def _asset_kb(path: str) -> float:
    from django.contrib.staticfiles import finders

    found = finders.find(path.removeprefix("/static/"))
    assert isinstance(found, str), path
    return len(gzip.compress(Path(found).read_bytes())) / 1000


def _measure(call: Callable[[], bytes]) -> dict[str, Any]:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with _noting_calls() as calls, CaptureQueriesContext(connection) as queries:
        began = time.perf_counter()
        content = call()
        seconds = time.perf_counter() - began
    return {
        "ms": seconds * 1000,
        "kb": len(gzip.compress(content)) / 1000,
        "calls": calls,
        "statements": len(queries),
        "databaseMs": sum(float(each["time"]) for each in queries.captured_queries) * 1000,
    }


@contextmanager
def _noting_calls() -> Iterator[list[tuple[str, float]]]:
    """Notes the path of each call of the API, with ids left out, and its milliseconds."""
    from django.urls import resolve

    from console import asking

    calls: list[tuple[str, float]] = []

    def noting(path: str) -> Any:
        match = resolve(path)
        view = match.func

        @wraps(view)
        def timed(*args: Any, **ids: Any) -> Any:
            began = time.perf_counter()
            answer = view(*args, **ids)
            shown = _UUID.sub(":id", path.removeprefix("/api/v1/"))
            calls.append((shown, (time.perf_counter() - began) * 1000))
            return answer

        match.func = timed
        return match

    with patch.object(asking, "resolve", noting):
        yield calls


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
