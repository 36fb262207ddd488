"""Words the final outcome of a run for people: what it said, its output, its cost and its duration (SPEC §26)."""

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from notices.channels.announcements import error_line
from notices.channels.facts import cost_fact, failure_facts
from notices.channels.plain import text_lines, value_lines
from pipedai.outgoing.mails import foreign, unlinked
from triggers.explain.answers import duration_words, zoned_words

_MAX_TITLE: Final = 120
_LONGEST_NAME: Final = 60


def result_title(run: Mapping[str, Any]) -> str:
    """Returns the trigger's name and what the run said, in one line of at most 120 characters."""
    name = unlinked(run["triggerName"])
    said = unlinked(run["shortMessage"] or error_line(run)) or _state(run)
    return _cut(f"{_cut(name, _LONGEST_NAME)}: {said}", _MAX_TITLE)


def said_lines(run: Mapping[str, Any], output: Any, *, has_output: bool) -> Iterator[str]:
    """Yields what the run said and wrote, which may be long."""
    said = [run["shortMessage"], run["errorMessage"]]
    for text in dict.fromkeys(text for text in said if text) or [f"The run {_state(run)}."]:
        yield from text_lines(text)
    if has_output:
        yield ""
        yield from value_lines(output)


def result_facts(run: Mapping[str, Any], environment: str, timezone: str) -> list[str]:
    """Returns the lines that follow, which are always told whole."""
    ended = zoned_words(datetime.fromisoformat(run["endedAt"]), timezone)
    took = run["durationMs"]
    facts = [f"{label}: {foreign(value)}" for label, value in failure_facts(run, timezone)]
    if not facts:
        label, value = cost_fact(run)
        facts = [f"{label}: {value}"]
    return [
        *facts,
        f"Duration: {'it never started' if took is None else duration_words(timedelta(milliseconds=took))}",
        f"Ended: {_state(run)} at {ended}",
        f"Trigger: {foreign(run['triggerName'])}",
        f"Environment: {foreign(environment)}",
    ]


def _state(run: Mapping[str, Any]) -> str:
    return str(run["status"]).replace("_", " ")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
