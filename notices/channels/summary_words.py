"""Words a summary for people: first what counts, then what failed, what made no run, and what waits (SPEC §26)."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from pipedai.api.renderers import counted
from pipedai.clocks import zone_of
from pipedai.outgoing.mails import foreign, unlinked
from triggers.explain.answers import duration_words, zoned_words
from triggers.explain.due_times import why_no_run

_MAX_TITLE = 120


def summary_title(told: dict[str, Any], environment: str) -> str:
    """Returns what became of everything, in one line: `All 28 due, 28 succeeded (production)`."""
    due, runs = told["due"], told["runs"]
    troubles = [
        f", {count} {words}"
        for count, words in (
            (told["failures"]["total"], "failed"),
            (told["withoutRun"]["total"], "without a run"),
            (runs["unfinished"], "not ended yet"),
        )
        if count
    ]
    said = f"{due} due, {runs['succeeded']} succeeded{''.join(troubles)}"
    if not troubles:
        said = f"All {said}" if due else "Nothing was due"
    return f"{said} ({foreign(environment)})"


def summary_lines(told: dict[str, Any], environment: str, most_items: int) -> Iterator[str]:
    """Yields the lines of a summary, with at most `most_items` items of a kind."""
    since, until = (datetime.fromisoformat(told[name]) for name in ("since", "until"))
    begun, ended = (zoned_words(moment, told["timezone"]) for moment in (since, until))
    runs = told["runs"]
    yield f"Environment: {foreign(environment)}"
    yield f"From {begun} until {ended}, {duration_words(until - since)}"
    yield f"Due: {told['due']}, of which {told['due'] - told['withoutRun']['total']} made a run"
    yield (
        f"Runs: {runs['succeeded']} succeeded, {runs['failed']} failed, {runs['timedOut']} timed out,"
        f" {runs['canceled']} canceled, {runs['unfinished']} not ended yet"
    )
    yield f"Cost: ${told['costUsd']}"
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
            f"- {_short(each['triggerName'])} {how} at {at} ({each['faultClass']}){said}",
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
    spent, limit, runs = f"${budget['spentUsd']}", budget["limitUsd"], budget["limitRuns"]
    used = [f"{spent} of ${limit}"] if limit is not None else []
    used += [f"{budget['runs']} of {counted(runs, 'run')}"] if runs is not None else []
    words = ", ".join(used) or spent
    if budget["startsAt"] is None:
        return words
    begun = datetime.fromisoformat(budget["startsAt"]).astimezone(zone_of(budget["timezone"]))
    return f"{words} {f'on {begun:%Y-%m-%d}' if budget['period'] == 'day' else f'in {begun:%Y-%m}'}"


def _short(text: str) -> str:
    line = unlinked(text)
    return line if len(line) <= _MAX_TITLE else f"{line[: _MAX_TITLE - 1].rstrip()}…"
