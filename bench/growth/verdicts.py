"""Judges the statements of the shapes by their time, and by whether they read rows that they do not return."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.figures import Json, print_table
from testing.processes.failure import ProcessFailed

# The names of the shapes, which `bench.growth.shapes` makes, and the states in which each is measured.
SHAPES = (
    "own-queue", "pool-queue", "preferring", "spent-budget", "full-triggers", "unapproved", "busy-service", "big-pool",
    "many-pools", "dead-host", "many-budgets", "burst",
)  # fmt: skip
STATES = ("lag", "analysed")
# How many times as many rows a statement may read at one size as at the other, for each row that its answer adds up,
# and how many more are noise.
_MOST_RATIO, _NOISE_ROWS = 1.5, 200
# A statement that meets its targets and reads fewer rows is not worth a line.
_DULL_ROWS = 200
_SHOWN = 44


def judge(costs: Sequence[Json | None], *, counted: Sequence[int], most_ms: float) -> str:
    """Return what is wrong with a statement in a smaller and a larger shape: "slow", "reads", both, or "".

    `costs` has its `ms` and `rowsRead` in each, or None where it was not sent; `counted` how many rows the answer adds
    up in each. The size with fewer rows read, altogether or for each of these, shows how many are needed.
    """
    wrong = ["slow"] if any(cost and cost["ms"] > most_ms for cost in costs) else []
    read = [(cost["rowsRead"], of) for cost, of in zip(costs, counted, strict=True) if cost]
    least = min((rows for rows, _ in read), default=0)
    for_each = min((rows / of for rows, of in read), default=0)
    if any(rows > _MOST_RATIO * max(least, for_each * of) + _NOISE_ROWS for rows, of in read):
        wrong.append("reads")
    return ", ".join(wrong)


def show_shapes(calls: Sequence[Json], sizes: Sequence[int]) -> None:
    """Print a table of each shape, and raise ProcessFailed if a statement breaks the rule."""
    heads = ["call: statement"]
    heads += [f"{state}: {what}" for state in STATES for what in ("ms", "rows read")]
    broken: dict[str, list[str]] = {}
    for shape in dict.fromkeys(call["shape"] for call in calls):
        rows, dull = [], 0
        for call in calls:
            if call["shape"] != shape:
                continue
            for statement, verdict in _judged(call):
                if verdict:
                    broken.setdefault(shape, []).append(call["call"])
                elif _is_dull(statement):
                    dull += 1
                    continue
                words = " ".join(statement["sql"].split())[:_SHOWN].replace("|", "/")
                costs = [
                    _both(statement[state], key) for state in STATES for key in ("ms", "rowsRead")
                ]
                rows.append([f"{call['call']}: {words}", *costs, verdict or "ok"])
        print(f"Shape {shape}, {sizes[0]:,} → {sizes[1]:,} rows")
        print()
        print_table([*heads, "verdict"], rows)
        print(
            f"The other {dull} statements meet their targets, and read fewer than {_DULL_ROWS} rows."
        )
        print()
    if broken:
        told = (f"{shape} ({', '.join(dict.fromkeys(names))})" for shape, names in broken.items())
        raise ProcessFailed(
            f"NOT met: statements are slow, or read what they do not return, in {'; '.join(told)}."
        )
    print("Each statement of the shapes meets its target.")


def _judged(call: Json) -> Iterator[tuple[Json, str]]:
    for statement in call["statements"]:
        found = [
            judge(statement[state], counted=call["counted"], most_ms=call["mostMs"])
            for state in STATES
        ]
        told = [f"{state}: {wrong}" for state, wrong in zip(STATES, found, strict=True) if wrong]
        yield statement, "; ".join(told)


def _is_dull(statement: Json) -> bool:
    costs: list[Mapping[str, Any]] = [cost for state in STATES for cost in statement[state] if cost]
    return all(cost["rowsRead"] < _DULL_ROWS for cost in costs)


def _both(costs: Sequence[Json | None], key: str) -> str:
    return " → ".join("–" if cost is None else f"{round(cost[key], 1):,}" for cost in costs)
