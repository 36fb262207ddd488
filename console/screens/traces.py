"""The trace of a run, as rows on one time axis: its phases, its tool calls with their input and output, its texts."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from django.http import HttpRequest

from console.asking import Json, ask
from console.charts import Trace, moment
from console.pages import chosen
from console.templatetags.console import duration, indented, of_call, spaced, visible

# A text is shown up to this many characters, and a page has at most this many events.
_LONGEST, _EVENTS = 2000, 200
# What people read for each phase, with its icon and the class of its bar.
_PHASES = {
    "queued": ("Queued", "clock", "calm-mark"),
    "claimed": ("Claimed", "clock", "calm-mark"),
    "running": ("Running", "play", "busy-mark"),
    "waiting": ("Waits for approval", "pause", "hollow"),
}
_WORDS = {"message": "The agent", "thinking": "The agent thinks", "status": "Status"}


@dataclass(kw_only=True)
class Row:
    """One row of a trace: `kind` is `phase`, `call` or `words`. `parts` are folded below it, with their headings. If a
    text is too long for the page, `cut` is the number of the event before its event.
    """

    kind: str
    name: str
    icon: str
    since: datetime
    until: datetime | None = None
    mark: str = "good-mark"
    note: str = ""
    words: str = ""
    took: str = ""
    parts: list[tuple[str, str]] = field(default_factory=list)
    is_bad: bool = False
    cut: int | None = None
    id: str = ""
    bar: str = ""
    after: str = ""


def trace_of(request: HttpRequest, run: Json, events: Json, machine: str) -> Json:
    """Returns a run's trace: its `rows`, the words of its `axis`, and how many `calls` there are and `failed`."""
    now = datetime.now(UTC)
    phases = [_phase(each, machine) for each in run["phases"]]
    rows = _steps(events.get("items", []), calls_of(request, run))
    if run["endedAt"]:
        now = moment(run["endedAt"])
        for last in phases[-1:]:
            last.until = last.until or now
            last.is_bad = run["status"] in {"failed", "timed_out"}
            last.icon = "cross" if last.is_bad else last.icon
    begun = _beginning(phases, now)
    trace = Trace(begun, now, is_live=not run["endedAt"])
    for row in (shown := sorted([*phases, *rows], key=lambda each: each.since)):
        is_open = row.until is None and not run["endedAt"]
        until = row.until or (now if is_open or row.kind == "phase" else row.since)
        if row.kind != "words":
            mark = "hollow busy-mark" if is_open and row.kind == "call" else row.mark
            row.bar = trace.bar(row.since, until, f"{mark} live" if is_open else mark)
        if row.kind == "phase":
            row.took = duration(_milliseconds(until - row.since)) + (" so far" if is_open else "")
        row.after = trace.after(row.since)
    calls = [each for each in rows if each.kind == "call"]
    return {
        "rows": shown,
        "axis": trace.axis,
        "calls": len(calls),
        "failed": sum(each.is_bad for each in calls),
    }


def _beginning(phases: list[Row], now: datetime) -> datetime:
    """Returns where the axis begins. A time in the queue that was much longer than the rest is cut off, because
    otherwise the rest would be too short to be seen.
    """
    begun = phases[0].since if phases else now
    if len(phases) > 1:
        rest = now - phases[1].since
        begun = max(begun, phases[1].since - max(rest / 4, timedelta(seconds=1)))
    return begun


def _phase(phase: Json, machine: str) -> Row:
    name, icon, mark = _PHASES[phase["phase"]]
    name = f"{name} by {machine}" if machine and phase["phase"] == "claimed" else name
    until = phase["to"] and moment(phase["to"])
    return Row(
        kind="phase", name=name, icon=icon, mark=mark, since=moment(phase["from"]), until=until
    )


def calls_of(request: HttpRequest, run: Json) -> list[Json]:
    """Returns the tool calls of a run. Its machine sends this list when the run ends."""
    if not run["endedAt"] or not run["toolCalls"] or not run["toolCalls"]["total"]:
        return []
    found: list[Json] = ask(request, "GET", f"runs/{run['id']}/tool-calls").data["items"]
    return found


def _steps(events: list[Json], listed: list[Json]) -> list[Row]:
    """Returns a row for each call and each text of a run. The events have a call's input and output. The list of calls,
    which exists only after the run's end, has how long the call took and what it may have changed.
    """
    rows: list[Row] = []
    open_calls: dict[str, Row] = {}
    for event in events:
        data = event["data"] if isinstance(event["data"], dict) else {}
        key = str(data.get("callId") or "")
        if event["type"] == "tool_call":
            row = _call(str(data.get("tool") or event["text"]), event["at"])
            row.id = f"step-{event['seq']}"
            _fold(row, event, "Arguments", indented(data.get("input", data)))
            open_calls[key] = row
        elif event["type"] == "tool_result" and key in open_calls:
            row = open_calls[key]
            row.until = row.until or moment(event["at"])
            row.is_bad = data.get("isError") is True
            _fold(row, event, "Error" if row.is_bad else "Result", visible(event["text"]))
            continue
        else:
            row = _words(event, is_bad=data.get("isError") is True)
        rows.append(row)
    for each in listed:
        if each["callId"] in open_calls:
            row = open_calls[each["callId"]]
        else:
            row = _call(each["tool"], each["startedAt"])
            rows.append(row)
        if each["durationMs"] is not None:
            row.until = row.since + timedelta(milliseconds=each["durationMs"])
        row.is_bad = each["outcome"] == "error"
        notes = [of_call(each["outcome"])] if each["outcome"] != "ok" else []
        notes += [of_call(each["effect"])] if each["effect"] == "possible" else []
        row.note = ", ".join(notes)
    for row in rows:
        if row.kind == "call":
            row.took = (
                duration(_milliseconds(row.until - row.since)) if row.until else "no answer yet"
            )
            row.mark = "bad-mark" if row.is_bad else row.mark if row.until else "warn-mark"
            row.icon = "cross" if row.is_bad else row.icon
    return rows


def _call(tool: str, since: str) -> Row:
    return Row(kind="call", name=visible(tool), icon="check", since=moment(since))


def _fold(row: Row, event: Json, heading: str, text: str) -> None:
    if len(text) > _LONGEST and not event.get("isWhole"):
        row.cut = event["seq"] - 1
        text = f"{text[:_LONGEST]}…"
    row.parts.append((heading, text))


def _words(event: Json, *, is_bad: bool) -> Row:
    # An event without a text shows its data.
    data = event["data"]
    text = visible(
        event["text"] or (json.dumps(data, ensure_ascii=False) if data is not None else "")
    )
    row = Row(
        kind="words",
        name=_WORDS.get(event["type"], visible(spaced(event["type"])).capitalize()),
        icon="says",
        since=moment(event["at"]),
        is_bad=is_bad,
        words=text,
    )
    if len(text) > _LONGEST and not event.get("isWhole"):
        row.words, row.cut = text[:_LONGEST], event["seq"] - 1
    return row


def _milliseconds(time: timedelta) -> int:
    return max(round(time / timedelta(milliseconds=1)), 0)


def events_of(request: HttpRequest, run: Json) -> Json:
    """Returns a page of a run's events: those after the event `after` of the page's URL, or the first ones. For a run
    that still goes on, returns the last ones.
    """
    path = f"runs/{run['id']}/events"
    query: Json = {"limit": _EVENTS, **chosen(request, "after", "limit")}
    page = ask(request, "GET", path, query=query).data
    last = page["lastSeq"]
    if not run["endedAt"] and "after" not in query and last > _EVENTS:
        query["after"] = last - _EVENTS
        page = ask(request, "GET", path, query=query).data
    is_whole = query["limit"] == "1"
    for each in page["items"]:
        each["isWhole"] = is_whole
    read = page["items"][-1]["seq"] if page["items"] else int(query.get("after", 0))
    return {
        **page,
        "read": read,
        "begin": "after" in query,
        "more": read < last,
        "end": max(last - _EVENTS, 0),
        "isLive": not (run["endedAt"] or is_whole or read < last),
    }
