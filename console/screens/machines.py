"""The screens of machines and pools: which can work, which runs are queued for them, and what a person can do."""

from collections import Counter
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask
from console.charts import load, slots
from console.forms import Look
from console.pages import (
    MOST,
    Chip,
    ResourceScreens,
    all_of,
    chips_of,
    chosen,
    listed,
    screen,
    see_other,
    show,
)
from console.screens.finding import Named

_CHIPS: tuple[Chip, ...] = (
    ("Offline", {"status": "offline"}, ["offline"]),
    ("Online", {"status": "online"}, ["online"]),
    ("With a problem", {"hasProblems": "true"}, ["withProblems"]),
)
# For each button of a machine's page, the call of the API: the method, the rest of the path, and the body.
_ACTS: dict[str, tuple[str, str, Json]] = {
    "pause": ("PATCH", "", {"disabled": True}),
    "resume": ("PATCH", "", {"disabled": False}),
    "lift": ("PATCH", "", {"limitedUntil": None}),
    "approve": ("POST", "/approve", {}),
    "revoke": ("POST", "/revoke-token", {}),
}
MACHINES = ResourceScreens(
    noun="worker",
    menu="machines",
    looks=lambda *_: {
        "label": Look("Name"),
        "maxConcurrency": Look("Slots", help="So many runs it may execute at once."),
    },
    deleting="Its token is dead at once, and what it executes is lost. Its runs stay listed.",
    listed="console:machines",
    page="console:machine",
)
POOLS = ResourceScreens(
    noun="pool",
    menu="machines",
    looks=lambda *_: {
        "name": Look(help="Such as Build machines."),
        "description": Look(help="What its machines have in common.", kind="area"),
    },
    deleting="Its machines stay. Triggers that name it need another pool or a machine first.",
    listed="console:machines",
    page="console:pool",
)


@screen
def machines(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows which machines can work, what each does, which runs wait for them, and how to add one."""
    filters = ("status", "hasProblems")
    page = listed(request, environment_id, "workers", *filters, include="counts,recent")
    pools = all_of(request, environment_id, "pools")
    runs = all_of(request, environment_id, "runs", status="queued,claimed,running,waiting")
    queued = [each for each in runs if each["status"] == "queued"]
    for_worker = Counter(each["workerId"] for each in queued)
    for_pool = Counter(each["poolId"] for each in queued)
    names = {each["id"]: each["name"] for each in pools}
    for each in page["items"]:
        each["queued"] = for_worker[each["id"]]
        each["pools"] = [names[pool] for pool in each["poolIds"] if pool in names]
        each["slots"] = slots(each["heldRuns"], each["maxConcurrency"])
        each["load"] = load(each["recent"])
        each["does"] = [run for run in runs if _is_held(run, each)]
    for each in pools:
        each["queued"] = for_pool[each["id"]]
    # Silent machines come first even if they hold runs, because these runs are about to be lost.
    page["items"].sort(
        key=lambda each: (
            each["status"] == "online" or each["disabled"],
            not each["problems"],
            not each["disabled"],
            -each["queued"],
        )
    )
    working = [each for each in page["items"] if each["status"] == "online"]
    silent = [
        each for each in page["items"] if each["status"] == "offline" and not each["disabled"]
    ]
    context = {
        "machines": page["items"],
        "silent": silent,
        "taken": sum(each["heldRuns"] for each in working),
        "slots": sum(each["maxConcurrency"] for each in working),
        "waiting": len(queued),
        "pools": sorted(pools, key=lambda each: each["workers"]["online"] > 0),
        "chips": chips_of(request, _CHIPS, page["counts"]),
        "isFiltered": bool(chosen(request, *filters)),
        "uncounted": len(runs) == MOST,  # There may be more than these.
    }
    return show(request, environment_id, "machines", "machines", context, page)


def _is_held(run: Json, worker: Json) -> bool:
    return run["workerId"] == worker["id"] and run["status"] in {"claimed", "running"}


@screen
def machine(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    """Shows whether the machine can work, its runs, and those queued for it. A POST does what its button `do` says."""
    if request.method == "POST":
        if act := _ACTS.get(request.POST.get("do", "")):
            ask(request, act[0], f"workers/{worker_id}{act[1]}", body=act[2])
        return see_other(request, reverse("console:machine", args=[worker_id]))
    found = MACHINES.find(request, worker_id=worker_id)
    environment_id, ids = found["environmentId"], found["poolIds"]
    unfinished = {"workerId": found["id"], "status": "claimed,running,queued,waiting"}
    runs = all_of(request, environment_id, "runs", **unfinished, limit=25)
    context = {
        "machine": found,
        "pools": [each for each in all_of(request, environment_id, "pools") if each["id"] in ids],
        # Held runs come before queued and waiting ones.
        "runs": sorted(runs, key=lambda each: each["status"] in {"queued", "waiting"}),
    }
    return show(request, environment_id, "machines", "machine", context)


@screen
def delete_machine(request: HttpRequest, worker_id: UUID) -> HttpResponse:
    """Asks before a machine is deleted, and which other machine gets its triggers."""
    found = MACHINES.find(request, worker_id=worker_id)
    workers = all_of(request, found["environmentId"], "workers")
    machines = Named(request, found["environmentId"], "workers")
    heirs = machines.among([each for each in workers if each["id"] != found["id"]])
    return MACHINES.ask_to_delete(request, found, heirs=heirs, read=machines.sent)


@screen
def pool(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """Shows the pool's machines and queued runs. A POST puts the machine `add` into it, or takes `remove` out."""
    found = POOLS.find(request, pool_id=pool_id)
    environment_id = found["environmentId"]
    named = Named(request, environment_id, "workers")
    if request.method == "POST":
        method, name = ("PUT", "add") if "add" in request.POST else ("DELETE", "remove")
        ask(request, method, f"pools/{pool_id}/workers/{named.sent(request.POST.get(name, ''))}")
        return see_other(request, reverse("console:pool", args=[pool_id]))
    workers = all_of(request, environment_id, "workers")
    queued = all_of(request, environment_id, "runs", poolId=found["id"], status="queued")
    machines = all_of(request, environment_id, "workers", poolId=found["id"], include="recent")
    hours = [sum(hour) for hour in zip(*(each["recent"] for each in machines), strict=True)]
    context = {
        "pool": found,
        "machines": [
            {**each, "slots": slots(each["heldRuns"], each["maxConcurrency"])} for each in machines
        ],
        "others": named.among([each for each in workers if found["id"] not in each["poolIds"]]),
        "queued": len(queued),
        "ended": sum(hours),
        "load": load(hours) if hours else "",
        "uncounted": len(queued) == MOST,
    }
    return show(request, environment_id, "machines", "pool", context)
