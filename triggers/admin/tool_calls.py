"""Shows staff what a run did: its counts of tool calls, the listed calls, and whether effects kept it from a retry."""

from typing import Any

from pipedai.admin.panels import Table
from pipedai.admin.values import number, text
from triggers.runs.retries import stopped_by_effects


def counts(run: Any) -> str:
    """Returns the counts of a run's tool calls in words."""
    if run.tool_calls_total is None:
        return str(text(None))
    return (
        f"{run.tool_calls_total:,}, of these {run.tool_calls_effects:,} with a possible effect"
        f" and {run.tool_calls_unknown:,} without an answer"
    )


def why_no_retry(run: Any, attempts: list[dict[str, Any]]) -> str | None:
    """Returns why an ended run was not retried, as far as its effects are the reason; else None.

    `attempts` are the run and its retries in order. The trigger's present setting decides.
    """
    values = {**vars(run), "retry_after_effects": run.trigger.retry_after_effects}
    if attempts[-1]["id"] == run.id and stopped_by_effects(values):
        return "none, because the run may have had effects"
    return None


def tool_calls_table(calls: list[dict[str, Any]] | None) -> Table:
    """Returns a table of a run's listed tool calls. The names and times are the worker's own words."""
    return Table(
        "Tool calls",
        ("When", "Tool", "Took (ms)", "Outcome", "Effect"),
        [
            (call["at"], call["tool"], number(call["durationMs"]), call["outcome"], call["effect"])
            for call in calls or ()
        ],
        nothing="The worker listed none.",
    )
