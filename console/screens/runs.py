"""The screens of runs: the list, why a run waits or how it ended, its events, rerunning and canceling it."""

from dataclasses import dataclass
from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask, ask_if_free, if_there
from console.pages import (
    Chip,
    chips_of,
    chosen,
    destroy,
    environment_of,
    names_of,
    screen,
    see_other,
    show,
)
from console.screens.finding import MOST_CHOICES, Named
from console.screens.traces import calls_of, events_of, trace_of
from console.templatetags.console import may
from pipedai.links import path_of_page
from triggers.reasons import ENDS, Why, end_code, without_calls

_CHIPS: tuple[Chip, ...] = tuple(
    (said, {"status": ",".join(statuses)}, statuses)
    for said, statuses in {
        "Failed": ["failed", "timed_out"],
        "Waiting": ["queued", "waiting"],
        "Running": ["claimed", "running"],
        "Succeeded": ["succeeded"],
        "Canceled": ["canceled"],
    }.items()
)
_SOURCES = {
    "schedule": "Schedule",
    "manual": "A person",
    "api": "A program",
    "event": "An event",
    "chain": "Another trigger",
    "retry": "Retry",
}


@screen
def runs(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows the runs of an environment, how they ended, and what they said."""
    machines = names_of(request, environment_id, "workers")
    offered: dict[str, tuple[str, dict[str, str]]] = {
        "triggerId": ("Trigger", {}),
        "workerId": ("Machine", machines),
        "source": ("Started by", _SOURCES),
        "from": ("From (UTC)", {}),
        "to": ("Until (UTC)", {}),
    }
    query, wrong = chosen(request, "status", *offered), dict[str, list[str]]()
    finders = {"triggerId": Named(request, environment_id, "triggers")}
    if len(machines) > MOST_CHOICES:
        finders["workerId"] = Named(request, environment_id, "workers")
    asked: Json = {**query, "include": "counts"}
    at = ""
    try:
        for at in finders.keys() & query.keys():
            asked[at] = finders[at].id_of(query[at])
            query[at] = finders[at].name_of(query[at])
        page = ask(request, "GET", f"environments/{environment_id}/runs", query=asked).data
    except ValueError as error:
        page, wrong = {"items": [], "nextCursor": None}, {at: [str(error)]}
    except Refused as refused:
        if refused.status != 400 or not refused.fields.keys() & {"status", *offered}:
            raise
        page, wrong = {"items": [], "nextCursor": None}, refused.fields
    for each in page["items"]:
        each["machine"] = machines.get(each["workerId"])
        each["why"] = _SOURCES.get(each["source"], each["source"])
    filters = []
    for name, (label, choices) in offered.items():
        value, errors = query.get(name, ""), wrong.get(name, [])
        if choices and value and value not in choices:
            choices = {**choices, value: "The one of the link"}
        filters.append(
            {"name": name, "label": label, "value": value, "choices": choices, "errors": errors}
        )
        if name in finders:
            filters[-1]["options"] = finders[name].options
    context = {
        "runs": page["items"],
        "first": filters[:2],
        "others": filters[2:],
        "unfolded": any(each["value"] for each in filters[2:]),
        "chips": chips_of(request, _CHIPS, page.get("counts", {}), keeps=True),
        "status": query.get("status", ""),
        "isFiltered": bool(query),
        "wrong": wrong,
    }
    status = 400 if wrong else 200
    return show(request, environment_id, "runs", "all_runs", context, page, status=status)


@screen
def run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Shows why the run waits, what it does, or how it ended."""
    found = ask(request, "GET", f"runs/{run_id}").data
    environment = environment_of(request, found["environmentId"])
    # If the API is too busy to explain, a request of htmx fails, so that the page keeps what it shows.
    is_part = "HX-Request" in request.headers
    path = f"runs/{run_id}/explain"
    explained = ask(request, "GET", path).data if is_part else ask_if_free(request, "GET", path)
    retry = explained.get("retry") or {}
    machine = if_there(request, f"workers/{found['workerId']}") if found["workerId"] else {}
    events: Json = {}
    if may(environment, "operator"):
        if not found["endedAt"] and not is_part:
            ask_if_free(request, "POST", f"runs/{run_id}/watch", changes=False)
        events = events_of(request, found)
    context = {
        "run": found,
        "said": _what_is_with(found, explained),
        "retried": _whether_retried(explained),
        "retry": retry,
        "event": explained.get("event"),
        "times": explained.get("times"),
        "advice": explained.get("advice", ()),
        "machine": machine,
        "source": _SOURCES.get(found["source"], found["source"]),
        "trace": trace_of(request, found, events, machine.get("label", "")),
        "events": events,
        # While the run is queued, other changes may affect it. Afterwards only those of the run and its retry do.
        "follows": "" if found["status"] == "queued" else f"{run_id} {retry.get('runId') or ''}",
    }
    return show(request, environment, "runs", "run", context)


@screen
def rerun(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Asks whether to repeat a run, and shows what the run may have changed outside. The form has a key, so that
    sending it twice makes only one run.
    """
    found = ask(request, "GET", f"runs/{run_id}").data
    errors: list[str] = []
    status = 200
    if request.method == "POST":
        try:
            key = request.POST.get("key", "")
            made = ask(request, "POST", f"runs/{run_id}/rerun", key=key).data
            return see_other(request, reverse("console:run", args=[made["id"]]))
        except Refused as refused:
            if refused.status not in {409, 429, 503}:
                raise
            errors, status = refused.sentences, refused.status
    context = {
        "run": found,
        "effects": [each for each in calls_of(request, found) if each["effect"] != "none"],
        "errors": errors,
        "key": uuid4(),
    }
    return show(request, found["environmentId"], "runs", "rerun", context, status=status)


@screen
def cancel(request: HttpRequest, run_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"runs/{run_id}").data
    text = "Its machine stops it as soon as it hears of that. What its tools have changed stays."
    if found["status"] == "queued":
        text = "It has not begun, and never will."
    if found["status"] == "waiting":
        text = "It stops where it is. The call that it asks for is not made."
    return destroy(
        request,
        found["environmentId"],
        f"runs/{run_id}/cancel",
        method="POST",
        menu="runs",
        title=f"Cancel this run of {found['triggerName']}?",
        text=text,
        button="Cancel the run",
        back=reverse("console:run", args=[run_id]),
    )


@dataclass(frozen=True)
class _Said:
    """A sentence, what to do about it, and the page to do that: its path, and the text of its link."""

    sentence: str
    remedy: str = ""
    path: str = ""
    link: str = ""


# The texts of links to pages where a person can act, by the type of the subject, and by the pages of ENDS.
_LINKS = {
    "trigger": "Open the trigger",
    "worker": "Open the machine",
    "pool": "Open the pool",
    "connection": "Open the connection",
    "channel": "Open the channel",
    "approval": "Open the call",
    "budget": "Open Money",
    "environment": "Open Settings",
    "machines": "Open Machines",
    "approvals": "Open Approvals",
}


def page_of(subject: Json, environment_id: object) -> tuple[str, str]:
    """Returns the path of the page about a subject, by its `type` and `id`, and the text of its link, or two empty
    texts.
    """
    if link := _LINKS.get(subject["type"], ""):
        return path_of_page(subject["type"], subject["id"], environment_id), link
    return "", ""


def _what_is_with(run: Json, explained: Json) -> list[_Said]:
    """Returns sentences on what a run waits for, those that a person must act on first; on who executes it; or on whose
    fault its end was. They are fewer without an explanation, for which the API may be too busy.
    """
    if run["status"] in {"succeeded", "failed", "timed_out"}:
        by = (explained.get("ended") or {}).get("by")
        why = ENDS.get(end_code(by, run["faultClass"]) or "", Why(""))
        sentence = why.because and f"{why.because[0].upper()}{why.because[1:]}."
        page = page_of({"type": why.page, "id": run["triggerId"]}, run["environmentId"])
        return [_Said(sentence, without_calls(why.remedy), *page)]
    told = []
    for each in explained.get("waitingFor", ()):
        subject, page = each["subject"], ("", "")
        if each["remedy"] and subject:
            page = page_of(subject, run["environmentId"])
        told.append(_Said(each["message"], without_calls(each["remedy"] or ""), *page))
    return told or [_Said(explained.get("summary", ""))]


def _whether_retried(explained: Json) -> str:
    """Returns a sentence on whether a failed run is retried. A retry that waits has a link and its due time instead."""
    retry = explained.get("retry") or {}
    is_told = retry.get("decision") == "due" or retry.get("code") in {"succeeded", "canceled"}
    return "" if is_told else str(retry.get("message", ""))
