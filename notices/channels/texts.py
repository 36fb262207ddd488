"""Makes plain text of bounded length of long notices: the results of runs, and summaries. What runs and users wrote
makes no links in it, and can't be mistaken for our own words.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from notices.channels.announcements import MAX_IN_A_ROW, error_line
from notices.states import RUN_RESULT, SUMMARY
from pipedai.api.renderers import counted, dollars
from pipedai.clocks import zone_of
from pipedai.outgoing.mails import Own, foreign, unlinked
from pipedai.sql import Row
from triggers.explain.answers import RetryDecision, duration_words, zoned_words
from triggers.explain.due_times import why_no_run
from triggers.reasons import ENDS, end_code

# The events whose notices are plain text alone, even in a mail.
LONG: Final = (RUN_RESULT, SUMMARY)

# The most characters of a title, and of an error or a name in a summary; and the most of a name within a title.
_LONGEST: Final = 120
_LONGEST_NAME: Final = 60
# A longer line is broken, because a mail's line has 998 bytes at most (RFC 5322 §2.1.1).
_LONGEST_LINE: Final = 200
# No text shows more characters of one string than this.
_LONGEST_STRING: Final = 20 * 1024
# How a summary says, by fault class, whose fault a failure was.
_FAULTS: Final = {
    "client": " by its own settings or limits",
    "infra": " by what it depends on",
}
_CUT: Final = "… and more. The page has all of it."

# A label that we wrote, and its value. A value that we wrote too has the type `Own`.
Fact = tuple[Own, str]


def long_text(
    row: Row, most: int, size: Callable[[str], int], *, most_items: int
) -> tuple[str, list[str]]:
    """Returns the title and the lines of a claimed notice, which together have at most the size `most`. A summary lists
    at most `most_items` items of each kind.
    """
    body, environment = json.loads(row["body"]), row["environment_name"]
    if row["event"] == SUMMARY:
        title = _summary_title(body["summary"], environment)
        lines = _summary_lines(body["summary"], environment, most_items)
        return title, _fit(lines, most - size(title) - 1, size)
    run, output = body["run"], row["run_output"]
    title, facts = _result_title(run), _result_facts(run, environment, row["timezone"])
    most -= sum(size(line) + 1 for line in (title, "", *facts))
    said = _said_lines(run, output and json.loads(output), has_output=output is not None)
    return title, [*_fit(said, most, size), "", *facts]


def failure_facts(run: Mapping[str, Any] | None, timezone: str) -> list[Fact]:
    """Returns the facts about the failed run of a notice's body; none if there is no run, or if it did not fail."""
    if run is None or run.get("retry") is None:
        return []
    because = ENDS[end_code(None, run["faultClass"]) or ""].because
    retried, count = str(run["retry"]["message"]), run["failuresInRow"]
    if run["retry"]["decision"] == RetryDecision.DUE:
        at = zoned_words(datetime.fromisoformat(run["retry"]["dueAt"]), timezone)
        retried = f"It is retried at {at}."
    in_a_row = f"{count} or more" if count == MAX_IN_A_ROW else str(count)
    return [
        (Own("Error"), error_line(run) or Own("none was reported")),
        (Own("Why"), Own(f"{because[0].upper()}{because[1:]}.")),
        (Own("Retry"), Own(retried)),
        (Own("Failures in a row"), Own(in_a_row)),
        _cost_fact(run),
    ]


def _result_title(run: Mapping[str, Any]) -> str:
    """Returns the trigger's name and what the run said, in one line of at most 120 characters."""
    name = unlinked(run["triggerName"])
    said = unlinked(run["shortMessage"] or error_line(run)) or _state(run)
    return _cut(f"{_cut(name, _LONGEST_NAME)}: {said}")


def _said_lines(run: Mapping[str, Any], output: Any, *, has_output: bool) -> Iterator[str]:
    """Yields what the run said and wrote, which may be long."""
    said = [run["shortMessage"], run["errorMessage"]]
    for text in dict.fromkeys(text for text in said if text) or [f"The run {_state(run)}."]:
        yield from _text_lines(text)
    if has_output:
        yield ""
        yield from _value_lines(output)


def _result_facts(run: Mapping[str, Any], environment: str, timezone: str) -> list[str]:
    """Returns the facts about a run that follow what it said. They are never cut."""
    ended = zoned_words(datetime.fromisoformat(run["endedAt"]), timezone)
    took = run["durationMs"]
    facts = [f"{label}: {foreign(value)}" for label, value in failure_facts(run, timezone)]
    if not facts:
        label, value = _cost_fact(run)
        facts = [f"{label}: {value}"]
    return [
        *facts,
        f"Duration: {'it never started' if took is None else duration_words(timedelta(milliseconds=took))}",
        f"Ended: {_state(run)} at {ended}",
        f"Trigger: {foreign(run['triggerName'])}",
        f"Environment: {foreign(environment)}",
    ]


def _cost_fact(run: Mapping[str, Any]) -> Fact:
    cost = run["costUsd"]
    return Own("Cost"), Own("not reported" if cost is None else dollars(cost))


def _state(run: Mapping[str, Any]) -> str:
    return str(run["status"]).replace("_", " ")


def _summary_title(told: dict[str, Any], environment: str) -> str:
    """Returns the counts of a summary in one line: `All 28 due, 28 succeeded (production)`."""
    due, runs = told["due"], told["runs"]
    troubles = [
        f", {count} {words}"
        for count, words in (
            (told["failures"]["total"], "failed"),
            (runs["canceled"], "canceled"),
            (told["withoutRun"]["total"], "without a run"),
            (runs["unfinished"], "not ended yet"),
        )
        if count
    ]
    succeeded, nothing_new = runs["succeeded"], runs.get("nothingNew")
    done = (
        f"{succeeded - nothing_new} had something new" if nothing_new else f"{succeeded} succeeded"
    )
    said = f"{due} due, {done}{''.join(troubles)}"
    if not troubles and not nothing_new:
        said = f"All {said}" if due else "Nothing was due"
    return f"{said} ({foreign(environment)})"


def _summary_lines(told: dict[str, Any], environment: str, most_items: int) -> Iterator[str]:
    """Yields the lines of a summary, with at most `most_items` items of a kind."""
    since, until = (datetime.fromisoformat(told[name]) for name in ("since", "until"))
    begun, ended = (zoned_words(moment, told["timezone"]) for moment in (since, until))
    runs = told["runs"]
    yield f"Environment: {foreign(environment)}"
    yield f"From {begun} until {ended}, {duration_words(until - since)}"
    nothing_new = runs.get("nothingNew")
    of_which = f" (in {nothing_new} nothing was new)" if nothing_new else ""
    yield f"Due: {told['due']}, of which {told['due'] - told['withoutRun']['total']} made a run"
    yield (
        f"Runs: {runs['succeeded']} succeeded{of_which}, {runs['failed']} failed, {runs['timedOut']} timed out,"
        f" {runs['canceled']} canceled, {runs['unfinished']} not ended yet"
    )
    yield f"Cost: {dollars(told['costUsd'])}"
    budgets = told["budgets"]
    for each in budgets["items"][:most_items]:
        yield f"Budget {foreign(each['name'])}: {_used(each)}"
    if (more := budgets["total"] - most_items) > 0:
        yield f"and {more} more"
    failures, without, waiting = (told[key] for key in ("failures", "withoutRun", "attention"))
    yield from _section(
        f"Failed ({failures['total']})", _failures(told), failures["total"], most_items
    )
    title = f"Due, but no run ({without['total']})"
    yield from _section(title, _without_run(told), without["groups"], most_items)
    items = ([f"- {_short(each['summary'])}", f"  {each['link']}"] for each in waiting["items"])
    title = f"Waits for somebody ({waiting['total']})"
    yield from _section(title, items, waiting["total"], most_items)


def _section(title: str, items: Iterable[list[str]], total: int, most: int) -> Iterator[str]:
    shown = list(items)[:most]
    if not total:
        return
    yield from ("", f"{title}:")
    for lines in shown:
        yield from lines
    if more := total - len(shown):
        yield f"and {more} more"


def _failures(told: dict[str, Any]) -> Iterator[list[str]]:
    for each in told["failures"]["items"]:
        at = zoned_words(datetime.fromisoformat(each["endedAt"]), told["timezone"])
        error = each["error"].strip().splitlines()
        said = f": {_short(error[0])}" if error else ""
        how = str(each["status"]).replace("_", " ")
        yield [
            f"- {_short(each['triggerName'])} {how} at {at}{_FAULTS.get(each['faultClass'], '')}{said}",
            f"  {each['link']}",
        ]


def _without_run(told: dict[str, Any]) -> Iterator[list[str]]:
    for each in told["withoutRun"]["items"]:
        first, last = (
            zoned_words(datetime.fromisoformat(each[name]), told["timezone"])
            for name in ("firstAt", "lastAt")
        )
        when = f"at {first}" if each["count"] == 1 else f"from {first} to {last}"
        due = f"{counted(each['count'], 'due time')} {when}, because {why_no_run(each['decision'])}"
        yield [f"- {_short(each['triggerName'])}: {due}", f"  {each['link']}"]


def _used(budget: dict[str, Any]) -> str:
    spent, limit, runs = dollars(budget["spentUsd"]), budget["limitUsd"], budget["limitRuns"]
    used = [f"{spent} of {dollars(limit)}"] if limit is not None else []
    used += [f"{budget['runs']} of {counted(runs, 'run')}"] if runs is not None else []
    words = ", ".join(used) or spent
    if budget["startsAt"] is None:
        return words
    begun = datetime.fromisoformat(budget["startsAt"]).astimezone(zone_of(budget["timezone"]))
    window = f"on {begun.day} {begun:%b %Y}" if budget["period"] == "day" else f"in {begun:%b %Y}"
    return f"{words} {window}"


def _fit(lines: Iterable[str], most: int, size: Callable[[str], int]) -> list[str]:
    """Returns as many of the first lines as fit into the size `most`. If some are left out, the last line says so."""
    kept: list[str] = []
    left = most - size(_CUT) - 1
    for line in lines:
        left -= size(line) + 1
        if left < 0:
            return [*kept, _CUT]
        kept.append(line)
    return kept


def _text_lines(text: str, indent: str = "") -> Iterator[str]:
    """Yields the lines of a text that a run or a user wrote."""
    for line in text[:_LONGEST_STRING].splitlines():
        safe = unlinked(line)
        for start in range(0, len(safe) or 1, _LONGEST_LINE):
            yield f"{indent}{safe[start : start + _LONGEST_LINE]}"


def _value_lines(value: Any, indent: str = "  ") -> Iterator[str]:
    """Yields a JSON value as indented lines: `key: value`, and `- value` for the items of a list."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _item_lines(f"{indent}{unlinked(key)[:_LONGEST_LINE]}:", item, indent)
    elif isinstance(value, list) and value:
        for item in value:
            yield from _item_lines(f"{indent}-", item, indent)
    elif isinstance(value, str):
        yield from _text_lines(value, indent)
    else:
        yield f"{indent}{json.dumps(value)}"


def _item_lines(head: str, item: Any, indent: str) -> Iterator[str]:
    """Returns the lines of an item: on the line of its head, or below the head if the item has several lines."""
    if isinstance(item, dict | list) and item:
        yield head
        yield from _value_lines(item, f"{indent}  ")
        return
    lines = list(_value_lines(item, "")) or [""]
    if len(lines) == 1:
        yield f"{head} {lines[0]}".rstrip()
        return
    yield head
    yield from (f"{indent}  {line}" for line in lines)


def _short(text: str) -> str:
    return _cut(unlinked(text))


def _cut(text: str, most: int = _LONGEST) -> str:
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"
