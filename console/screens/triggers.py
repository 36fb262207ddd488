"""The screens of triggers: which are well, what became of one's due times, what can be done with it, its revisions, and
the forms that make and change one.
"""

import json
from difflib import unified_diff
from urllib.parse import urlencode
from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, Refused, ask, ask_if_free, if_there
from console.charts import STRIP, counted, outcomes, strip
from console.forms import Form, Look
from console.pages import (
    ResourceScreens,
    all_of,
    chosen,
    listed,
    names_of,
    screen,
    see_other,
    show,
)
from console.templatetags.console import ending, word

# The chips of the list: what each says, and its filters.
_CHIPS: dict[str, dict[str, str]] = {
    "Failing": {"health": "failing"},
    "Late": {"health": "late"},
    "Paused": {"enabled": "false"},
}
_FILTERS = ("health", "enabled", "search")
# The columns by which the list may be sorted: what trouble there is comes first.
_SORTS = ("attention", "name", "nextDueAt", "-costThisMonth")
# How many due times the line shows: those about which something was decided, and those to come.
_DECIDED, _TO_COME = 5, 5
_RUN_STATES = {
    "All": "",
    "Failed": "failed,timed_out",
    "Succeeded": "succeeded",
    "Not ended": "queued,claimed,running,waiting",
}
_ON_A_PAGE = 20
_ON_A_LIST = 50
# How many lines of a difference a page shows, and around each change how many that are the same.
_MOST_LINES, _CONTEXT = 60, 2
# Comparing takes more than the square of the lines that differ. Above so many, the old ones stand before the new ones.
_MOST_COMPARED = 200

Lines = list[tuple[str, str]]
# So many fields of a form come first; the others have good defaults, and are folded.
_FIRST = 10


@screen
def triggers(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Which triggers are healthy, which are not, when is each due, and what does it cost?"""
    sort = request.GET.get("sort", "")
    sort = sort if sort in _SORTS else _SORTS[0]
    asked = {"sort": sort, "include": "total,recent", "limit": _ON_A_LIST}
    page = listed(request, environment_id, "triggers", *_FILTERS, **asked)
    month = _this_month(request, environment_id)
    machines = names_of(request, environment_id, "workers")
    machines |= names_of(request, environment_id, "pools")
    for each in page["items"]:
        sums = month.get(each["id"], {})
        each |= {"cost": sums.get("costUsd"), "took": sums.get("p50DurationMs")}
        each["machine"] = machines.get(each["poolId"] or each["workerId"], "–")
        each["strip"] = strip(each["recent"])
    filters = chosen(request, *_FILTERS)
    context = {
        "triggers": page["items"],
        "total": page["total"],
        "filters": {name: value for name, value in filters.items() if name != "cursor"},
        "chips": _chips(request, environment_id, filters),
        "sort": sort,
    }
    return show(request, environment_id, "triggers", "triggers", context, page)


def _chips(request: HttpRequest, environment_id: UUID, filters: Json) -> list[Json]:
    """Returns the filters by which most people look, with how many triggers each keeps."""
    chips: list[Json] = [{"said": "All", "query": {}, "is_chosen": not filters}]
    for said, query in _CHIPS.items():
        found = listed(request, environment_id, "triggers", limit=1, include="total", **query)
        chips.append({"said": said, "query": query, "count": found["total"]})
        chips[-1]["is_chosen"] = query.items() <= filters.items()
    return [{**each, "query": urlencode(each["query"])} for each in chips]


def _this_month(request: HttpRequest, environment_id: UUID) -> dict[str, Json]:
    """Returns the sums of each trigger's runs of this month, by its id. It is empty while the API is too busy to add
    them up.
    """
    query = {"groupBy": "trigger", "period": "month"}
    stats = ask_if_free(request, "GET", f"environments/{environment_id}/stats", query=query)
    return {each["key"]: each for each in stats.get("items", ())}


@screen
def trigger(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Did it run when it was due, and if not, why?"""
    return _show(request, trigger_id, _run_form(trigger_id))


@screen
def run(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Runs the trigger now, or lets its machine only look, and opens the run. The form has a key, so one that is sent
    twice makes one run.
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
        "payload": Look(help="JSON that the run gets beside the prompt.", kind="json"),
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
        "listens_to": [_listening(request, entry) for entry in found["on"]],
        "heard_by": all_of(request, found["environmentId"], "triggers", listensTo=found["id"]),
        "runs_on": _runs_on(request, found),
        **_due_times(request, found, newest["items"]),
        "form": form,
        "key": uuid4(),
        "runs": runs["items"],
        "chips": [{"said": said, "status": status} for said, status in _RUN_STATES.items()],
        "status": query.get("status", ""),
    }
    if newest["items"]:
        context["outcomes"] = outcomes(newest["items"][::-1])
        context["counted"] = counted(newest["items"])
    return show(
        request, found["environmentId"], "triggers", "trigger", context, runs, status=form.status
    )


def _why(found: Json, why: Json, runs: list[Json]) -> Json:
    """Returns what to say about the trigger's state: a `sentence`, and the last `run` if it is about that one. What the
    API explains is about the last due time, which is another matter for a trigger that fails.
    """
    if not found["enabled"]:
        return {"sentence": "It is paused: it runs when somebody resumes it."}
    if found["health"] == "failing":
        ended = [each for each in runs if each["status"] in {"succeeded", "failed", "timed_out"}]
        failed = next((n for n, each in enumerate(ended) if each["status"] == "succeeded"), None)
        number = len(ended) if failed is None else failed
        said = "The last run failed." if number == 1 else f"The last {number} runs failed."
        return {"sentence": said, "run": ended[0] if ended else None}
    return {"sentence": "" if why.get("decision") == "fired" else why.get("message")}


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
        _coming(request, found["environmentId"], found["schedule"], found["timezone"])
        if found["schedule"]
        else {}
    )
    if found["enabled"]:
        times = {each["at"] for each in coming.get("times", ())}
        times |= {found["runOnceAt"]} - {None}
        line += [{"at": at, "state": "coming"} for at in sorted(times)]
    return {"line": line, "words": coming.get("description")}


def _coming(
    request: HttpRequest,
    environment_id: str,
    schedule: str | None,
    timezone: str,
    once: str | None = None,
) -> Json:
    """Returns a schedule's `description` and the next due times, with the single one. It returns nothing while the API
    works out another preview.
    """
    body = {"schedule": schedule, "timezone": timezone, "runOnceAt": once, "count": _TO_COME}
    path = f"environments/{environment_id}/schedule-preview"
    return ask_if_free(request, "POST", path, body=body, changes=False)


# The fields of a rule for approvals.
_RULE = {
    "tools": Look(
        help="One a line, as the MCP server names them, such as send_mail. * is all of them.",
        kind="names",
    ),
    "when": Look(
        "Wait before",
        choices=[
            ("always", "Each call"),
            ("possible_effect", "Calls that may change something, as the server says"),
        ],
    ),
    "approverRole": Look(
        "Who may approve",
        choices=[
            ("operator", "Operators and above"),
            ("admin", "Admins and owners"),
            ("owner", "Owners"),
        ],
    ),
    "notRequester": Look("But not who requested the run or changed the trigger"),
    "expiresAfterSeconds": Look(
        "Wait for a decision, in seconds", help="3600 is an hour, 86400 a day. Then the run fails."
    ),
}


def _looks(request: HttpRequest, row: Json) -> dict[str, Look]:
    machines, found_pools, found_connections = (
        all_of(request, row["environmentId"], kind) for kind in ("workers", "pools", "connections")
    )
    if "id" not in row and len(machines) == 1 and not found_pools:
        # Where there is one machine, a new trigger has it.
        row["workerId"] = machines[0]["id"]
    none = ("", "None")
    workers = [none, *((each["id"], f"{each['label']} ({each['status']})") for each in machines)]
    pools = [none, *((each["id"], each["name"]) for each in found_pools)]
    connections = [none]
    connections += [
        (each["id"], f"{each['name']} ({word(each['status'])})") for each in found_connections
    ]
    return {
        "name": Look(),
        "prompt": Look(help="What the agent is to do.", kind="area"),
        "mcpUrl": Look(
            "URL of the MCP server",
            help="The server whose tools the agent uses. Empty for none, or for that of the connection.",
        ),
        "connectionId": Look(
            "Connection",
            help="The credentials for a server that triggers share.",
            choices=connections,
        ),
        "mcpHeaders": Look(
            "Headers for the MCP server",
            help="One a line, as in Authorization: Bearer … They are encrypted, and shown to nobody.",
            kind="headers",
        ),
        "schedule": Look(
            help="Minute, hour, day, month, weekday, as in 0 6 * * mon-fri. Without one it runs when you say."
        ),
        "timezone": Look("Time zone", help="Such as Europe/Berlin."),
        "runOnceAt": Look("Once, at (UTC)", help="A single time, with a schedule or without."),
        "workerId": Look("Machine", choices=workers),
        "poolId": Look("Pool", help="Any machine of it may take a run.", choices=pools),
        "description": Look(),
        "model": Look(help="Empty: the machine's own choice."),
        "timeoutSeconds": Look("A run may take, in seconds"),
        "maxCostUsd": Look("A run may cost, in US dollars"),
        "maxRetries": Look("Retries after a fault of the infrastructure"),
        "retryMode": Look(
            "A retry", choices=[("restart", "begins anew"), ("resume", "goes on where it was")]
        ),
        "retryAfterEffects": Look("Retry also what may have changed something"),
        "overlapPolicy": Look(
            "Due while a run is unfinished",
            choices=[("queue", "Queue another run"), ("skip", "Skip it")],
        ),
        "maxConcurrentRuns": Look("Runs at once, at most"),
        "preferSeconds": Look("Seconds for which the machine comes before its pool"),
        "startDeadlineSeconds": Look("A run must be taken within, in seconds"),
        "alertAfterFailures": Look("Failing after so many failures in a row", help="Empty: never."),
        "successDeadlineSeconds": Look(
            "Late if no run succeeded within, in seconds",
            help="Counted from each due time. Empty: never.",
        ),
        "recordEvents": Look("Show what happens during a run"),
        "outputSchema": Look("Schema of the output", help="A JSON Schema 2020-12.", kind="json"),
        "on": Look(
            "Listens to",
            help="JSON: the sources and triggers whose events start it, as API.md explains under on.",
            kind="json",
        ),
        "approvals": Look(
            "Calls that somebody has to approve",
            help="Without a rule the agent calls its tools by itself.",
            kind="rows",
            row="Rule",
            looks=_RULE,
        ),
        "before.tool": Look(
            "Only when something is new: look with this tool",
            help="The machine calls it before it starts the agent. If nothing is new, the run ends at once and costs"
            " nothing. It must only read, as its server says. Empty: the agent always starts.",
        ),
        "before.arguments": Look("With these arguments", help="A JSON object. All members see it."),
        "before.runIf": Look(
            "Start the agent if",
            help="changed: the result is another than before. Or clauses as JSON, which all have to hold for it.",
            kind="clauses",
        ),
        "carry": Look(
            "From the run before, the agent gets",
            choices=[("none", "nothing"), ("output", "the output, if that had something new")],
        ),
        "allowHostTools": Look(
            "With such rules, the machine’s own tools for shell, web and files too"
        ),
        "failOnDenied": Look("A run that was denied a call fails"),
        "webhookUrl": Look(),
        "webhookSecret": Look(autocomplete="new-password"),
        "enabled": Look("Runs when it is due"),
    }


class _Triggers(ResourceScreens):
    """The form also shows the next due times, has rules as rows, and folds most of its fields."""

    def answer(self, request: HttpRequest, row: Json, form: Form, said: Json) -> HttpResponse:
        changed, coming = form.changes_rows(request), Json()
        if "preview" in request.POST:  # Without JavaScript a button shows the next due times.
            form.read(request)
            coming = _preview(request, row["environmentId"])
        elif not changed and (answer := form.send(request)):
            return see_other(request, self.page_of(answer.data))
        others = form.fields[_FIRST:]
        said |= {"form": form, "first": form.fields[:_FIRST], "others": others, "coming": coming}
        said |= {"row": row, "open": changed or any(each.is_wrong for each in others)}
        where = row["environmentId"]
        return show(request, where, self.menu, "trigger_form", said, status=form.status)


TRIGGERS = _Triggers(
    noun="trigger",
    menu="triggers",
    looks=_looks,
    deleting="It does not run any more, and can't be brought back. Its runs stay listed.",
    listed="console:triggers",
    page="console:trigger",
    complete=True,
)


@screen
def schedule_preview(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """The part of a form that says when its trigger is next due, for htmx."""
    coming = _preview(request, str(environment_id))
    return render(request, "console/coming.html", {"coming": coming})


def _preview(request: HttpRequest, environment_id: str) -> Json:
    """Returns the schedule in words and its next due times, or what is wrong with it."""
    schedule, zone, once = (
        request.POST.get(name, "").strip() for name in ("schedule", "timezone", "runOnceAt")
    )
    if not schedule and not once:
        return {}
    # The browser's field for a time knows no zone; its label says UTC.
    single = f"{once}Z" if once else None
    try:
        coming = _coming(request, environment_id, schedule or None, zone or "UTC", single)
    except Refused as refused:
        if refused.status != 400:
            raise
        return {"wrong": " ".join(each for said in refused.fields.values() for each in said)}
    return {**coming, "zone": zone or "UTC"}


@screen
def revisions(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """What did the trigger ask for before, and who changed it?"""
    trigger = ask(request, "GET", f"triggers/{trigger_id}").data
    page = _revisions(request, trigger_id)
    items = page["items"]
    before = [*items[1:], None]
    if page["nextCursor"]:
        # What the last one changed is told by the first one of the next page.
        query = {"cursor": page["nextCursor"], "limit": 1}
        path = f"triggers/{trigger_id}/revisions"
        before[-1] = next(iter(ask(request, "GET", path, query=query).data["items"]), None)
    for each, former in zip(items, before, strict=True):
        each["changes"] = _changes(former or {}, each)
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
        "keep": "Keep the present one",
        "back": reverse("console:revisions", args=[trigger_id]),
        "changes": _changes(trigger, found),
    }
    return show(request, trigger["environmentId"], "triggers", "restore", context)


def _revisions(request: HttpRequest, trigger_id: UUID) -> Json:
    query = {**chosen(request), "limit": _ON_A_PAGE}
    return ask(request, "GET", f"triggers/{trigger_id}/revisions", query=query).data


def _changes(old: Json, new: Json) -> list[Json]:
    """Returns what differs between two versions: of each field its name, and its lines with `+`, `-` or a space."""
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
            found.append(
                {"name": name, "lines": lines[:_MOST_LINES], "more": len(lines) - _MOST_LINES}
            )
    return found


def _lines_of(value: Json | str | None) -> list[str]:
    if value is None:
        return []
    return (value if isinstance(value, str) else json.dumps(value, indent=2)).split("\n")


def _compared(old: list[str], new: list[str]) -> Lines:
    """Returns the lines that were removed and added, with some around them."""
    shared = min(len(old), len(new))
    start = next((n for n in range(shared) if old[n] != new[n]), shared)
    most = shared - start
    end = next((n for n in range(most) if old[-1 - n] != new[-1 - n]), most)
    was, now = old[start : len(old) - end], new[start : len(new) - end]
    if max(len(was), len(now)) > _MOST_COMPARED:
        return [*(("-", line) for line in was), *(("+", line) for line in now)]
    before, after = old[max(start - _CONTEXT, 0) : start], old[len(old) - end :][:_CONTEXT]
    found = unified_diff([*before, *was, *after], [*before, *now, *after], n=_CONTEXT, lineterm="")
    # The first three lines are headings, and the other headings stand where lines are left out.
    return [(" ", "…") if line.startswith("@@") else (line[0], line[1:]) for line in [*found][3:]]
