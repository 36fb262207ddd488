"""The screens of triggers: which are healthy, how the runs of one ended, what people can do with it, its revisions."""

import json
from collections import Counter
from difflib import unified_diff
from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask, ask_if_free, if_there
from console.charts import STRIP, counted, outcomes, strip
from console.forms import Form, Look
from console.json_rows import Values
from console.pages import (
    Chip,
    all_of,
    chips_of,
    chosen,
    listed,
    names_of,
    screen,
    see_other,
    show,
)
from console.screens.trigger_forms import coming_times
from console.templatetags.console import ending

_CHIPS: tuple[Chip, ...] = (
    ("Failing", {"health": "failing"}, ["failing"]),
    ("Late", {"health": "late"}, ["late"]),
    ("Paused", {"enabled": "false"}, ["disabled"]),
)
_FILTERS = ("health", "enabled", "search")
# The columns by which the list may be sorted. The first one puts triggers with trouble first.
_SORTS = ("attention", "name", "nextDueAt", "-costThisMonth")
# The line shows this many past due times, about which a scheduler has decided.
_DECIDED = 5
_RUN_STATES: tuple[Chip, ...] = (
    ("Failed", {"status": "failed,timed_out"}, ()),
    ("Succeeded", {"status": "succeeded"}, ()),
    ("Not ended", {"status": "queued,claimed,running,waiting"}, ()),
)
_ON_A_PAGE = 20
_ON_A_LIST = 50
# A page shows this many lines of a difference, and around each change this many unchanged ones.
_MOST_LINES, _CONTEXT = 60, 2
# Comparing takes more than the square of the differing lines. Above this number the old ones precede the new ones.
_MOST_COMPARED = 200

Lines = list[tuple[str, str]]


@screen
def triggers(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows which triggers are healthy and which are not, when each is due, and what it costs."""
    sort = request.GET.get("sort", "")
    sort = sort if sort in _SORTS else _SORTS[0]
    asked = {"sort": sort, "include": "total,counts,recent", "limit": _ON_A_LIST}
    page = listed(request, environment_id, "triggers", *_FILTERS, **asked)
    month = _this_month(request, environment_id)
    machines = names_of(request, environment_id, "workers")
    machines |= names_of(request, environment_id, "pools")
    for each in page["items"]:
        sums = month.get(each["id"], {})
        each |= {"cost": sums.get("costUsd"), "took": sums.get("p50DurationMs")}
        each["machine"] = machines.get(each["poolId"] or each["workerId"], "–")
        last = each["lastRun"]
        going = [{**last, "durationMs": None}] if last and not last["endedAt"] else []
        each["strip"] = strip([*each["recent"], *going])
    filters = chosen(request, *_FILTERS)
    context = {
        "triggers": page["items"],
        "total": page["total"],
        "filters": {name: value for name, value in filters.items() if name != "cursor"},
        "chips": chips_of(request, _CHIPS, page["counts"]),
        "sort": sort,
    }
    return show(request, environment_id, "triggers", "triggers", context, page)


def _this_month(request: HttpRequest, environment_id: UUID) -> dict[str, Json]:
    """Returns the sums of each trigger's runs of this month, by its id; nothing while the API is too busy."""
    query = {"groupBy": "trigger", "period": "month"}
    stats = ask_if_free(request, "GET", f"environments/{environment_id}/stats", query=query)
    return {each["key"]: each for each in stats.get("items", ())}


@screen
def trigger(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Shows whether the trigger ran when it was due, and if not, why."""
    return _show(request, trigger_id, _run_form(trigger_id))


@screen
def run(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Runs the trigger now, or lets its machine only look, and opens the run. The form's key makes sure that it makes
    only one run when it is sent twice.
    """
    form = _run_form(trigger_id)
    if request.method != "POST":
        return see_other(request, reverse("console:trigger", args=[trigger_id]))
    more = {"lookOnly": True} if request.POST.get("lookOnly") else {}
    if made := form.send(request, more=more, key=request.POST.get("key", "")):
        return see_other(request, reverse("console:run", args=[made.data["id"]]))
    return _show(request, trigger_id, form)


@screen
def switch(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Pauses the trigger, or resumes it, as the button says."""
    if request.method == "POST":
        body = {"enabled": request.POST.get("enabled") == "true"}
        ask(request, "PATCH", f"triggers/{trigger_id}", body=body)
    return see_other(request, reverse("console:trigger", args=[trigger_id]))


def _run_form(trigger_id: UUID) -> Form:
    looks = {
        "payload": Look(
            help="What the run gets beside the prompt.", kind="rows", row="Value", shape=Values()
        ),
        "force": Look("Start the agent also if nothing is new"),
    }
    return Form("POST", f"triggers/{trigger_id}/run", looks)


def _show(request: HttpRequest, trigger_id: UUID, form: Form) -> HttpResponse:
    path = f"triggers/{trigger_id}"
    found = ask(request, "GET", path).data
    query = chosen(request, "status")
    newest = ask(request, "GET", f"{path}/runs", query={"limit": STRIP}).data
    runs = newest
    if query:
        runs = ask(request, "GET", f"{path}/runs", query={**query, "limit": STRIP}).data
    why = ask_if_free(request, "GET", f"{path}/explain")
    context = {
        "trigger": found,
        "state": found["health"] if found["enabled"] else "disabled",
        "why": _why(found, why, newest["items"]),
        "last_event": why.get("lastEvent"),
        "times": why.get("times"),
        "listens_to": [_listening(request, entry) for entry in found["on"]],
        "heard_by": all_of(request, found["environmentId"], "triggers", listensTo=found["id"]),
        "runs_on": _runs_on(request, found),
        **_due_times(request, found, newest["items"]),
        "form": form,
        "key": uuid4(),
        "runs": runs["items"],
        "chips": chips_of(request, _RUN_STATES, {}),
        "status": query.get("status", ""),
    }
    if newest["items"]:
        context["outcomes"] = outcomes(newest["items"][::-1])
        context["counted"] = counted(newest["items"])
    return show(
        request, found["environmentId"], "triggers", "trigger", context, runs, status=form.status
    )


def _why(found: Json, why: Json, runs: list[Json]) -> Json:
    """Returns what to say about the trigger's state: a `sentence`, and the last `run` if the sentence is about it. The
    API's explanation is about the last due time, which is a different matter if the trigger fails.
    """
    if not found["enabled"]:
        return {"sentence": "It is paused: it runs when somebody resumes it."}
    if found["health"] == "failing":
        ended = [each for each in runs if each["status"] in {"succeeded", "failed", "timed_out"}]
        # A run that was queued later may have ended earlier.
        ended.sort(key=lambda each: each["endedAt"], reverse=True)
        failed = next((n for n, each in enumerate(ended) if each["status"] == "succeeded"), None)
        number = len(ended) if failed is None else failed
        said = f"The last {number} runs failed." if number > 1 else "The last run failed."
        return {"sentence": said, "run": ended[0] if ended else None}
    of_due_time = "" if why.get("decision") == "fired" else why.get("message")
    return {"sentence": why.get("healthMessage") or of_due_time}


def _runs_on(request: HttpRequest, found: Json) -> Json:
    """Returns the machine, or the pool, on which the trigger runs, with the path of its page."""
    for kind, path in (("pool", "pools"), ("worker", "workers")):
        if id_ := found[f"{kind}Id"]:
            row = if_there(request, f"{path}/{id_}")
            page = reverse("console:machine" if kind == "worker" else "console:pool", args=[id_])
            name = row.get("label") or row.get("name", "?")
            return {"name": name, "page": page, "state": row.get("status")}
    return {}


def _listening(request: HttpRequest, entry: Json) -> Json:
    """Returns an entry of `on` with the name of what it listens to."""
    of_trigger = "triggerId" in entry
    path = f"triggers/{entry['triggerId']}" if of_trigger else f"sources/{entry['sourceId']}"
    return {**entry, "name": if_there(request, path).get("name", "?")}


def _due_times(request: HttpRequest, found: Json, runs: list[Json]) -> Json:
    """Returns the line of due times, the earliest first, and the schedule in words. A due time that made a run has the
    state of the run, if that is among the given ones.
    """
    states = {each["id"]: ending(each) for each in runs}
    ticks = ask(request, "GET", f"triggers/{found['id']}/ticks", query={"limit": _DECIDED}).data
    line = [
        {
            "at": each["tickAt"],
            "state": states.get(each["runId"], each["decision"]),
            "more": max(each["missedCount"] - 1, 0),
        }
        for each in reversed(ticks["items"])
    ]
    coming = (
        coming_times(request, found["environmentId"], found["schedule"], found["timezone"])
        if found["schedule"]
        else {}
    )
    if found["enabled"]:
        times = {each["at"] for each in coming.get("times", ())}
        times |= {found["runOnceAt"]} - {None}
        line += [{"at": at, "state": "coming"} for at in sorted(times)]
    return {"line": line, "words": coming.get("description")}


@screen
def revisions(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Shows the trigger's earlier revisions, and who changed it."""
    trigger = ask(request, "GET", f"triggers/{trigger_id}").data
    page = _revisions(request, trigger_id)
    items = page["items"]
    before = [*items[1:], None]
    if page["nextCursor"]:
        # The last revision is compared with the first one of the next page.
        query = {"cursor": page["nextCursor"], "limit": 1}
        path = f"triggers/{trigger_id}/revisions"
        before[-1] = next(iter(ask(request, "GET", path, query=query).data["items"]), None)
    for each, former in zip(items, before, strict=True):
        each["changes"] = _changes(former or {}, each)
        each["strip"], each["counted"] = strip(each["recent"]), counted(each["recent"])
    context = {
        "trigger": trigger,
        "revisions": items,
        "cursor": request.GET.get("cursor", ""),
    }
    return show(request, trigger["environmentId"], "triggers", "revisions", context, page)


@screen
def restore(request: HttpRequest, trigger_id: UUID, revision_id: UUID) -> HttpResponse:
    """Asks whether to restore a revision, with what that changes, and does it on a POST."""
    if request.method == "POST":
        ask(request, "POST", f"triggers/{trigger_id}/revisions/{revision_id}/restore", body={})
        return see_other(request, reverse("console:trigger", args=[trigger_id]))
    trigger = ask(request, "GET", f"triggers/{trigger_id}").data
    # The link to this page names the page of the list that has the revision.
    items = _revisions(request, trigger_id)["items"]
    found = next((each for each in items if each["id"] == str(revision_id)), None)
    if found is None:
        raise Refused(404, {"error": "There is no such revision.", "code": "not_found"})
    context = {
        "title": f"Restore this revision of {trigger['name']}?",
        "text": "Runs from now on have what it says. All else of the trigger stays.",
        "button": "Restore it",
        "keep": "Keep the current one",
        "back": reverse("console:revisions", args=[trigger_id]),
        "changes": _changes(trigger, found),
    }
    return show(request, trigger["environmentId"], "triggers", "restore", context)


def _revisions(request: HttpRequest, trigger_id: UUID) -> Json:
    query = {**chosen(request), "limit": _ON_A_PAGE, "include": "recent"}
    return ask(request, "GET", f"triggers/{trigger_id}/revisions", query=query).data


def _changes(old: Json, new: Json) -> list[Json]:
    """Returns the differences between two versions: for each field its name, and its lines with `+`, `-` or a space."""
    found = []
    for field, name in (
        ("prompt", "Prompt"),
        ("model", "Model"),
        ("outputSchema", "Output schema"),
        ("before", "Only when something is new"),
        ("carry", "From the run before"),
    ):
        before, after = _lines_of(old.get(field)), _lines_of(new.get(field))
        if before != after:
            lines = _compared(before, after)
            marks = Counter(mark for mark, _ in lines)
            shown = {"lines": lines[:_MOST_LINES], "more": len(lines) - _MOST_LINES}
            found.append({"name": name, "added": marks["+"], "removed": marks["-"], **shown})
    return found


def _lines_of(value: Json | str | None) -> list[str]:
    if value is None:
        return []
    return (value if isinstance(value, str) else json.dumps(value, indent=2)).split("\n")


def _compared(old: list[str], new: list[str]) -> Lines:
    """Returns the removed and added lines, with some unchanged ones around them."""
    shared = min(len(old), len(new))
    start = next((n for n in range(shared) if old[n] != new[n]), shared)
    most = shared - start
    end = next((n for n in range(most) if old[-1 - n] != new[-1 - n]), most)
    was, now = old[start : len(old) - end], new[start : len(new) - end]
    if max(len(was), len(now)) > _MOST_COMPARED:
        return [*(("-", line) for line in was), *(("+", line) for line in now)]
    before, after = old[max(start - _CONTEXT, 0) : start], old[len(old) - end :][:_CONTEXT]
    found = unified_diff([*before, *was, *after], [*before, *now, *after], n=_CONTEXT, lineterm="")
    # The first three lines are headings. The other headings mark where lines are left out, and become an ellipsis.
    return [(" ", "…") if line.startswith("@@") else (line[0], line[1:]) for line in [*found][3:]]
