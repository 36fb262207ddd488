"""Shows staff what a run did: how many tool calls it made, and which ones the worker listed."""

from typing import Any

from pipedai.admin.panels import Table
from pipedai.admin.values import number, text


def counts(run: Any) -> str:
    """Returns the counts of a run's tool calls in words."""
    if run.tool_calls_total is None:
        return str(text(None))
    return (
        f"{run.tool_calls_total:,}, of these {run.tool_calls_effects:,} with a possible effect"
        f" and {run.tool_calls_unknown:,} without an answer"
    )


def tool_calls_table(calls: list[dict[str, Any]] | None) -> Table:
    """Returns a table of a run's listed tool calls. The names and times are shown as the worker reported them, and
    nobody has verified them.
    """
    return Table(
        "Tool calls",
        ("When", "Tool", "Took (ms)", "Outcome", "Effect"),
        [
            (call["at"], call["tool"], number(call["durationMs"]), call["outcome"], call["effect"])
            for call in calls or ()
        ],
        nothing="The worker listed none.",
    )
