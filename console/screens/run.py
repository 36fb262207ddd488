"""The screens of one run: why it waits or how it ended, what it tells as it works, rerunning and canceling it."""

import json
from typing import Any
from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask, ask_if_free, if_there
from console.pages import chosen, confirm, environment_of, screen, see_other, show
from console.screens.run_words import what_is_with, whether_retried
from console.templatetags.console import may

# An event is shown up to this many characters; console.js has the same number.
_LONGEST_EVENT = 2000
# The API's default for the length of a page.
_EVENTS = 50


@screen
def run(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Why does it wait, or how did it end?"""
    found = ask(request, "GET", f"runs/{run_id}").data
    environment = environment_of(request, found["environmentId"])
    # The script asks for the part above the events alone, since it appends the events itself. While the API is too busy
    # to explain, the part is refused, so that it stays as it is.
    is_part = "HX-Request" in request.headers
    path = f"runs/{run_id}/explain"
    explained = ask(request, "GET", path).data if is_part else ask_if_free(request, "GET", path)
    retry = explained.get("retry") or {}
    context = {
        "run": found,
        "said": what_is_with(found, explained),
        "retried": whether_retried(explained),
        "retry": retry,
        "event": explained.get("event"),
        "machine": if_there(request, f"workers/{found['workerId']}") if found["workerId"] else {},
        "calls": _tool_calls(request, found),
        # While it waits, what it waits for may change; afterwards only the run itself and its retry do.
        "follows": "" if found["status"] == "queued" else f"{run_id} {retry.get('runId') or ''}",
    }
    if found["scheduledFor"]:
        context["zone"] = if_there(request, f"triggers/{found['triggerId']}").get("timezone", "UTC")
    if may(environment, "operator") and not is_part:
        context["events"] = _events(request, found)
    return show(request, environment, "runs", "run", context)


@screen
def rerun(request: HttpRequest, run_id: UUID) -> HttpResponse:
    """Asks whether to do again what a run did, and shows what that may have changed. The form's key makes sure that a
    form which is sent twice makes one run.
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
        "effects": [each for each in _tool_calls(request, found) if each["effect"] != "none"],
        "errors": errors,
        "key": uuid4(),
    }
    return show(request, found["environmentId"], "runs", "rerun", context, status=status)


@screen
def cancel(request: HttpRequest, run_id: UUID) -> HttpResponse:
    back = reverse("console:run", args=[run_id])
    if request.method == "POST":
        ask(request, "POST", f"runs/{run_id}/cancel")
        return see_other(request, back)
    found = ask(request, "GET", f"runs/{run_id}").data
    text = "Its machine stops it as soon as it hears of that. What its tools have changed stays."
    if found["status"] == "queued":
        text = "It has not begun, and never will."
    if found["status"] == "waiting":
        text = "It stops where it is. The call that it asks for is not made."
    return confirm(
        request,
        found["environmentId"],
        menu="runs",
        title=f"Cancel this run of {found['triggerName']}?",
        text=text,
        button="Cancel the run",
        back=back,
    )


def _tool_calls(request: HttpRequest, found: Json) -> list[Json]:
    """Returns the tool calls of a run, which its machine lists when it ends."""
    if not found["endedAt"] or not found["toolCalls"] or not found["toolCalls"]["total"]:
        return []
    calls: list[Json] = ask(request, "GET", f"runs/{found['id']}/tool-calls").data["items"]
    return calls


def _events(request: HttpRequest, found: Json) -> Json:
    """Returns a page of what a run told: the first one, or what follows the event `after` of the page's URL."""
    query = chosen(request, "after", "limit")
    page = ask(request, "GET", f"runs/{found['id']}/events", query=query).data
    is_whole = query.get("limit") == "1"
    for each in page["items"]:
        text = _text_of(each)
        each["isCut"] = len(text) > _LONGEST_EVENT and not is_whole
        each["said"] = text[:_LONGEST_EVENT] if each["isCut"] else text
        each["before"] = each["seq"] - 1
    read = page["items"][-1]["seq"] if page["items"] else int(query.get("after", 0))
    return {
        **page,
        "read": read,
        "begin": bool(query),
        "more": read < page["lastSeq"],
        "end": max(page["lastSeq"] - _EVENTS, 0),
        "isLive": not (found["endedAt"] or is_whole or read < page["lastSeq"]),
    }


def _text_of(event: Json) -> str:
    """Returns an event's text, with the input of a tool call; without a text its data. console.js does the same."""
    text, data = event["text"] or "", event["data"]
    shown: Any = data.get("input") if isinstance(data, dict) else None
    if shown is None and not text:
        shown = data
    if shown is None:
        return text
    return f"{text} {json.dumps(shown, ensure_ascii=False, separators=(',', ':'))}".strip()
