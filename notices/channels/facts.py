"""Words what people want to know of a run without a search: its error, whose fault, the retry, the cost (SPEC §26)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from notices.channels.announcements import MAX_IN_A_ROW, error_line
from pipedai.outgoing.mails import Own
from triggers.explain.answers import RetryDecision
from triggers.explain.clock_words import zoned_words
from triggers.reasons import ENDS, end_code

# A label of ours, and what is to be told. Only an `Own` text is ours, too.
Fact = tuple[Own, str]


def failure_facts(run: Mapping[str, Any] | None, timezone: str) -> list[Fact]:
    """Returns what is to be told of a run of a notice's body; nothing if there is none, or if it did not fail."""
    if run is None or run.get("retry") is None:
        return []
    fault = end_code(None, run["faultClass"]) or ""
    return [
        (Own("Error"), error_line(run) or Own("none was reported")),
        (Own("Fault"), Own(f"{run['faultClass']}: {ENDS[fault].because}")),
        (Own("Retry"), Own(_retry_words(run["retry"], timezone))),
        (Own("Failures in a row"), Own(_count_words(run["failuresInRow"]))),
        cost_fact(run),
    ]


def cost_fact(run: Mapping[str, Any]) -> Fact:
    cost = run["costUsd"]
    return Own("Cost"), Own("not reported" if cost is None else f"${cost}")


def _retry_words(retry: Mapping[str, Any], timezone: str) -> str:
    if retry["decision"] != RetryDecision.DUE:
        return str(retry["message"])
    return f"It is retried at {zoned_words(datetime.fromisoformat(retry['dueAt']), timezone)}."


def _count_words(count: int) -> str:
    return f"{count} or more" if count == MAX_IN_A_ROW else str(count)
