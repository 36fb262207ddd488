"""The screen of one trigger: what became of its due times, its runs, and what can be done with it."""

from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask, ask_if_free, if_there
from console.forms import Form, Look
from console.pages import chosen, confirm, screen, see_other, show
from pipedai.api.pagination import MAX_LIMIT

# How many due times the line shows: those about which something was decided, and those to come.
_DECIDED, _TO_COME = 8, 5
_RUN_STATES = ("queued", "running", "waiting", "succeeded", "failed", "timed_out", "canceled")


@screen
def trigger(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Did it run when it was due, and if not, why?"""
    return _show(request, trigger_id, _run_form(trigger_id))


@screen
def run(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Runs the trigger now. The form's key makes sure that a form which is sent twice makes one run."""
    form = _run_form(trigger_id)
    if request.method == "POST" and form.send(request, key=request.POST.get("key", "")) is None:
        return _show(request, trigger_id, form)
    return see_other(request, reverse("console:trigger", args=[trigger_id]))


@screen
def switch(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """Pauses the trigger, or resumes it, as the button says."""
    if request.method == "POST":
        body = {"enabled": request.POST.get("enabled") == "true"}
        ask(request, "PATCH", f"triggers/{trigger_id}", body=body)
    return see_other(request, reverse("console:trigger", args=[trigger_id]))


@screen
def delete(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"triggers/{trigger_id}").data
    if request.method == "POST":
        ask(request, "DELETE", f"triggers/{trigger_id}")
        return see_other(request, reverse("console:triggers", args=[found["environmentId"]]))
    return confirm(
        request,
        found["environmentId"],
        menu="triggers",
        title=f"Delete {found['name']}?",
        text="It does not run any more, and can't be brought back. Its runs stay in the ledger.",
        button="Delete the trigger",
        back=reverse("console:trigger", args=[trigger_id]),
    )


def _run_form(trigger_id: UUID) -> Form:
    payload = Look(help="JSON that the run gets beside the prompt.", kind="json")
    return Form("POST", f"triggers/{trigger_id}/run", {"payload": payload})


def _show(request: HttpRequest, trigger_id: UUID, form: Form) -> HttpResponse:
    path = f"triggers/{trigger_id}"
    found = ask(request, "GET", path).data
    query = chosen(request, "status")
    runs = ask(request, "GET", f"{path}/runs", query={**query, "limit": 25}).data
    why = ask_if_free(request, "GET", f"{path}/explain")
    context = {
        "trigger": found,
        "why": why.get("message"),
        "last_event": why.get("lastEvent"),
        "listens_to": [_listening(request, entry) for entry in found["on"]],
        "heard_by": ask(
            request,
            "GET",
            f"environments/{found['environmentId']}/triggers",
            query={"listensTo": found["id"], "limit": MAX_LIMIT},
        ).data,
        **_due_times(request, found, runs["items"]),
        "form": form,
        "key": uuid4(),
        "runs": runs["items"],
        "statuses": _RUN_STATES,
        "filters": query,
    }
    return show(
        request, found["environmentId"], "triggers", "trigger", context, runs, status=form.status
    )


def _listening(request: HttpRequest, entry: Json) -> Json:
    """Returns an entry of `on` with the name of what it listens to."""
    of_trigger = "triggerId" in entry
    path = f"triggers/{entry['triggerId']}" if of_trigger else f"sources/{entry['sourceId']}"
    return {**entry, "name": if_there(request, path).get("name", "?")}


def _due_times(request: HttpRequest, found: Json, runs: list[Json]) -> Json:
    """Returns the line of due times, the earliest first, and the schedule in words. A due time that made a run has the
    state of the run, if that is among the given ones.
    """
    states = {each["id"]: each["status"] for each in runs}
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
        preview(request, found["environmentId"], found["schedule"], found["timezone"])
        if found["schedule"]
        else {}
    )
    if found["enabled"]:
        times = {each["at"] for each in coming.get("times", ())}
        times |= {found["runOnceAt"]} - {None}
        line += [{"at": at, "state": "coming"} for at in sorted(times)]
    return {"line": line, "words": coming.get("description")}


def preview(
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
