"""Computes figures from measurements, and prints and writes them."""

import math
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psutil

from testing.processes.stack import Database

Json = dict[str, Any]


def quantile(values: Sequence[float], q: float) -> float | None:
    """Return the smallest value such that the fraction `q` of all values is not larger; None without values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(q * len(values)) - 1)]


def latencies(seconds: Sequence[float]) -> Json:
    """Return how many latencies there are, and their median and 99th percentile in milliseconds."""
    return {
        "count": len(seconds),
        "p50Ms": _ms(quantile(seconds, 0.5)),
        "p99Ms": _ms(quantile(seconds, 0.99)),
    }


def ratio(part: float, whole: float) -> float | None:
    """Return `part` / `whole`, or None if `whole` is 0."""
    return part / whole if whole else None


def machine(on: Database) -> Json:
    """Describe the machine that the figures come from."""
    return {
        "measuredAt": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "cores": os.cpu_count(),
        "memoryGb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "postgres": on.one("SHOW server_version")["server_version"],
        # Above a few tenths, other programs were running: then only ratios within this run mean anything.
        "loadBefore": round(os.getloadavg()[0], 2),
    }


def print_machine(found: Json) -> None:
    """Print one line about the machine."""
    print(
        f"{found['cores']} cores, {found['system']}, Python {found['python']},"
        f" PostgreSQL {found['postgres']}, load before {found['loadBefore']}"
    )


def print_table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table, with the first column aligned left and the others right."""
    cells = [list(heads), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    for number, row in enumerate(cells):
        padded = [row[0].ljust(widths[0])]
        padded += [text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True)]
        print(f"| {' | '.join(padded)} |")
        if number == 0:
            rules = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
            print(f"| {' | '.join(rules)} |")


def show_calls(names: Sequence[str], figures: Mapping[str, Json]) -> None:
    """Print the latencies of each call of a lifecycle, with columns for each of the figures."""
    heads = ["call", *(head for name in figures for head in (f"p50 ms, {name}", f"p99 ms, {name}"))]
    rows = [
        [
            name,
            *(each["calls"][name][key] for each in figures.values() for key in ("p50Ms", "p99Ms")),
        ]
        for name in names
    ]
    print_table(heads, rows)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)
