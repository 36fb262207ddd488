"""The screens of machines: who can work, what waits for whom, and each machine with what can be done about it."""

from collections import Counter
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.forms import Form, Look
from console.pages import chosen, confirm, environment_of, older, problem, screen, see_other

# The most rows that the API puts on a page.
MOST = 200
# What is wrong comes first.
_STATES = ("offline", "disabled", "busy", "online")
_POOL_STATES = ("empty", "offline", "taken", "online")
# What the buttons of a machine's page send to the API: the method, the rest of the path, and the body.
_ACTS: dict[str, tuple[str, str, Json]] = {
    "pause": ("PATCH", "", {"disabled": True}),
    "resume": ("PATCH", "", {"disabled": False}),
    "lift": ("PATCH", "", {"limitedUntil": None}),
    "approve": ("POST", "/approve", {}),
}


@screen
def machines(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Who can work, what waits for whom, and how do I add a machine?"""
    environment = environment_of(request, environment_id)
    path, query = f"environments/{environment_id}", chosen(request, "status", "poolId")
    page = ask(request, "GET", f"{path}/workers", query=query).data
    pools = pools_of(request, environment_id)
    waiting = ask(request, "GET", f"{path}/runs", query={"status": "queued", "limit": MOST}).data
    for_worker = Counter(each["workerId"] for each in waiting["items"])
    for_pool = Counter(each["poolId"] for each in waiting["items"])
    names = {each["id"]: each["name"] for each in pools}
    for each in page["items"]:
        each |= {
            "waiting": for_worker[each["id"]],
            "pools": [names.get(i) for i in each["poolIds"]],
        }
    for each in pools:
        each |= {"waiting": for_pool[each["id"]], "state": _pool_state(each["workers"])}
    context = {
        "environment": environment,
        "menu": "machines",
        "machines": sorted(
            page["items"],
            key=lambda each: (_STATES.index(each["derivedStatus"]), -each["waiting"]),
        ),
        "pools": sorted(pools, key=lambda each: _POOL_STATES.index(each["state"])),
        "filters": query,
        "older": older(request, page),
        # Only the newest are counted.
        "uncounted": waiting["nextCursor"] is not None,
    }
    return render(request, "console/machines.html", context)


def pools_of(request: HttpRequest, environment_id: UUID | str) -> list[Json]:
    path = f"environments/{environment_id}/pools"
    found: list[Json] = ask(request, "GET", path, query={"limit": MOST}).data["items"]
    return found


def workers_of(request: HttpRequest, environment_id: UUID | str, **query: str) -> list[Json]:
    path = f"environments/{environment_id}/workers"
    found: list[Json] = ask(request, "GET", path, query={"limit": MOST, **query}).data["items"]
    return found


def _pool_state(workers: dict[str, int]) -> str:
    if not workers["total"]:
        return "empty"
    if not workers["online"]:
        return "offline"
    return "online" if workers["free"] else "taken"


@screen
def machine(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    """Can it work, what does it do, and what waits for it? A POST does what its button `do` says."""
    if request.method == "POST":
        act = _ACTS.get(request.POST.get("do", ""))
        if act is None:
            return problem(request, 400, ["The page has no such button."])
        method, rest, body = act
        ask(request, method, f"workers/{worker_id}{rest}", body=body)
        return see_other(request, reverse("console:machine", args=[worker_id]))
    found = ask(request, "GET", f"workers/{worker_id}").data
    runs = {"workerId": found["id"], "status": "claimed,running,queued", "limit": 25}
    environment_id = found["environmentId"]
    page = ask(request, "GET", f"environments/{environment_id}/runs", query=runs).data
    context = {
        "environment": environment_of(request, environment_id),
        "menu": "machines",
        "machine": found,
        "pools": [
            each for each in pools_of(request, environment_id) if each["id"] in found["poolIds"]
        ],
        # What it does comes before what waits.
        "runs": sorted(page["items"], key=lambda each: each["status"] == "queued"),
        "more": page["nextCursor"] is not None,
    }
    return render(request, "console/machine.html", context)


@screen
def edit(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"workers/{worker_id}").data
    looks = {
        "label": Look("Name"),
        "maxConcurrency": Look("Slots", help="So many runs it may execute at once."),
    }
    form = Form("PATCH", f"workers/{worker_id}", looks, values=found)
    back = reverse("console:machine", args=[worker_id])
    if request.method == "POST" and form.send(request):
        return see_other(request, back)
    context = {
        "environment": environment_of(request, found["environmentId"]),
        "menu": "machines",
        "form": form,
        "title": f"Edit {found['label']}",
        "button": "Save",
        "back": back,
    }
    return render(request, "console/form.html", context, status=form.status)


@screen
def revoke(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    back = reverse("console:machine", args=[worker_id])
    if request.method == "POST":
        ask(request, "POST", f"workers/{worker_id}/revoke-token")
        return see_other(request, back)
    found = ask(request, "GET", f"workers/{worker_id}").data
    return confirm(
        request,
        environment_of(request, found["environmentId"]),
        menu="machines",
        title=f"Revoke the token of {found['label']}?",
        text="It can't call any more, and what it executes now is lost. It keeps its name, its triggers and its "
        "pools, and comes back when it registers again under the same hostname.",
        button="Revoke the token",
        back=back,
    )


@screen
def delete(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    """Deregisters a machine, and gives its triggers to another one if somebody says so."""
    found = ask(request, "GET", f"workers/{worker_id}").data
    environment_id, status, sentences = found["environmentId"], 200, list[str]()
    if request.method == "POST":
        heir = request.POST.get("reassignTo")
        try:
            ask(
                request,
                "DELETE",
                f"workers/{worker_id}",
                query={"reassignTo": heir} if heir else {},
            )
        except Refused as refused:
            if refused.status not in {400, 409}:
                raise
            status, sentences = refused.status, refused.sentences
        else:
            return see_other(request, reverse("console:machines", args=[environment_id]))
    context = {
        "environment": environment_of(request, environment_id),
        "menu": "machines",
        "title": f"Delete {found['label']}?",
        "text": "Its token is dead at once, and a run that it holds is lost. Its runs stay in the ledger.",
        "button": "Delete the machine",
        "back": reverse("console:machine", args=[worker_id]),
        "sentences": sentences,
        "heirs": [
            each for each in workers_of(request, environment_id) if each["id"] != found["id"]
        ],
    }
    return render(request, "console/delete_machine.html", context, status=status)
