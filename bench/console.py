"""`bin/bench console`: measures what each screen of the console costs in an environment with many triggers and runs."""

import json
from collections.abc import Callable

from bench.figures import Json, machine, print_machine, print_table
from bench.stack import database

# The targets of a screen (SPEC §28): milliseconds in the web process, and kilobytes that a browser loads, compressed.
MOST_MS, MOST_KB = 100.0, 60.0


def run(*, triggers: int, runs: int, repeats: int, say: Callable[[str], None]) -> Json:
    """Measure each screen `repeats` times, and return the result as JSON. Raises BenchFailed."""
    say(f"Starting PostgreSQL, and filling it with {triggers:,} triggers and {runs:,} runs…")
    with database(LOG_LEVEL="ERROR") as on:
        found = machine(on.one("SHOW server_version")["server_version"])
        file = on.directory / "screens.json"
        on.python("-m", "bench.console_screens", str(triggers), str(runs), str(repeats), str(file))
        measured = json.loads(file.read_text())
    return {
        "benchmark": "console",
        "machine": found,
        "triggers": triggers,
        "runs": runs,
        **measured,
    }


def show(result: Json) -> None:
    """Print the table of a result, and then which screens miss a target."""
    print_machine(result["machine"])
    print(
        f"{result['triggers']:,} triggers, {result['runs']:,} runs, {result['assetsKb']:.1f} KB of assets in each KB"
    )
    print()
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
        for each in result["screens"]
    ]
    print_table(
        ["screen", "ms", "KB", "API calls", "statements", "ms of them", "slowest call"], rows
    )
    over = [
        each["name"] for each in result["screens"] if each["ms"] > MOST_MS or each["kb"] > MOST_KB
    ]
    print()
    print(f"over {MOST_MS:.0f} ms or {MOST_KB:.0f} KB: {', '.join(over) or 'none'}")


def _slowest(screen: Json) -> str:
    if not screen["calls"]:
        return "–"
    path, milliseconds = max(screen["calls"], key=lambda call: float(call[1]))
    return f"{path} {milliseconds:.0f} ms"
