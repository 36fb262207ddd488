"""Shows staff what a run did: how many tool calls it made, which ones the worker listed, and whether their possible
effects prevented a retry.
"""

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
    """Returns in words that an ended run was not retried because its tool calls may have changed something. Returns
    None if the run was retried, or was not retried for another reason.

    `attempts` are all attempts of the run, the last one at the end. The trigger's present setting `retry_after_effects`
    is used, which may have been another one when the run ended.
    """
    values = {**vars(run), "retry_after_effects": run.trigger.retry_after_effects}
    if attempts[-1]["id"] == run.id and stopped_by_effects(values):
        return "none, because the run may have had effects"
    return None


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
