"""The screens of machines: who can work, what is queued for whom, and each machine with what can be done about it."""

from collections import Counter
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import chosen, delete_page, edit_page, environment_of, screen, see_other, show

# The most rows that the API puts on a page.
MOST = 200
_STATUSES = (("", "All"), ("offline", "Offline"), ("online", "Online"))
# What the buttons of a machine's page send to the API: the method, the rest of the path, and the body.
_ACTS: dict[str, tuple[str, str, Json]] = {
    "pause": ("PATCH", "", {"disabled": True}),
    "resume": ("PATCH", "", {"disabled": False}),
    "lift": ("PATCH", "", {"limitedUntil": None}),
    "approve": ("POST", "/approve", {}),
    "revoke": ("POST", "/revoke-token", {}),
}


def all_of(request: HttpRequest, environment_id: UUID | str, kind: str, **query: Any) -> list[Json]:
    """Returns what an environment has of a kind, such as `workers`: so many as the API puts on a page."""
    path = f"environments/{environment_id}/{kind}"
    found: list[Json] = ask(request, "GET", path, query={"limit": MOST, **query}).data["items"]
    return found


@screen
def machines(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Who can work, what is queued for whom, and how do I add a machine?"""
    environment = environment_of(request, environment_id)
    query = chosen(request, "status")
    page = ask(request, "GET", f"environments/{environment_id}/workers", query=query).data
    pools = all_of(request, environment_id, "pools")
    queued = all_of(request, environment_id, "runs", status="queued")
    for_worker = Counter(each["workerId"] for each in queued)
    for_pool = Counter(each["poolId"] for each in queued)
    names = {each["id"]: each["name"] for each in pools}
    for each in page["items"]:
        each["queued"] = for_worker[each["id"]]
        each["pools"] = [names[pool] for pool in each["poolIds"] if pool in names]
    for each in pools:
        each["queued"] = for_pool[each["id"]]
    # A silent machine comes first even if it holds runs, since these are about to be lost.
    page["items"].sort(
        key=lambda each: (
            each["status"] == "online" or each["disabled"],
            not each["disabled"],
            -each["queued"],
        )
    )
    context = {
        "machines": page["items"],
        "pools": sorted(pools, key=lambda each: each["workers"]["online"] > 0),
        "statuses": _STATUSES,
        "status": query.get("status", ""),
        "uncounted": len(queued) == MOST,  # There may be more than these.
    }
    return show(request, environment, "machines", "machines", context, page)


@screen
def machine(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    """Can it work, what does it do, and what is queued for it? A POST does what its button `do` says."""
    if request.method == "POST":
        if act := _ACTS.get(request.POST.get("do", "")):
            ask(request, act[0], f"workers/{worker_id}{act[1]}", body=act[2])
        return see_other(request, reverse("console:machine", args=[worker_id]))
    found = ask(request, "GET", f"workers/{worker_id}").data
    environment_id, ids = found["environmentId"], found["poolIds"]
    unfinished = {"workerId": found["id"], "status": "claimed,running,queued,waiting"}
    runs = all_of(request, environment_id, "runs", **unfinished, limit=25)
    context = {
        "machine": found,
        "pools": [each for each in all_of(request, environment_id, "pools") if each["id"] in ids],
        # What it does comes before what it does not do yet.
        "runs": sorted(runs, key=lambda each: each["status"] in {"queued", "waiting"}),
    }
    return show(request, environment_id, "machines", "machine", context)


@screen
def edit(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"workers/{worker_id}").data
    slots = Look("Slots", help="So many runs it may execute at once.")
    looks = {"label": Look("Name"), "maxConcurrency": slots}
    form = Form("PATCH", f"workers/{worker_id}", looks, values=found)
    return edit_page(request, found, form, "console:machine", menu="machines")


@screen
def delete(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    """Deregisters a machine, and gives its triggers to another one if somebody says so."""
    path = f"workers/{worker_id}"
    found = ask(request, "GET", path).data
    workers = all_of(request, found["environmentId"], "workers")
    heirs = [each for each in workers if each["id"] != found["id"]]
    text = "Its token is dead at once, and what it executes is lost. Its runs stay in the ledger."
    return delete_page(request, found, path, "console:machines", text, menu="machines", heirs=heirs)
