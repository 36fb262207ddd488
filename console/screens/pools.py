"""The screens of a pool: its machines, what waits for them, and the forms that make, change and delete one."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import confirm, environment_of, screen, see_other
from console.screens.machines import MOST, workers_of

_LOOKS = {
    "name": Look(help="Such as Build machines."),
    "description": Look(help="What its machines have in common.", kind="area"),
}


@screen
def pool(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """Who is in it, and what waits for it? A POST puts the machine `add` into it, or takes `remove` out."""
    if request.method == "POST":
        method, name = ("PUT", "add") if "add" in request.POST else ("DELETE", "remove")
        ask(request, method, f"pools/{pool_id}/workers/{request.POST.get(name)}")
        return see_other(request, reverse("console:pool", args=[pool_id]))
    found = ask(request, "GET", f"pools/{pool_id}").data
    environment_id = found["environmentId"]
    members = workers_of(request, environment_id, poolId=found["id"])
    ids = {each["id"] for each in members}
    query = {"poolId": found["id"], "status": "queued", "limit": MOST}
    waiting = ask(request, "GET", f"environments/{environment_id}/runs", query=query).data
    context = {
        "environment": environment_of(request, environment_id),
        "menu": "machines",
        "pool": found,
        "machines": members,
        "others": [each for each in workers_of(request, environment_id) if each["id"] not in ids],
        "waiting": len(waiting["items"]),
        "uncounted": waiting["nextCursor"] is not None,
    }
    return render(request, "console/pool.html", context)


@screen
def new(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    environment = environment_of(request, environment_id)
    form = Form("POST", f"environments/{environment_id}/pools", _LOOKS)
    return _answer(request, environment, form, title="New pool", button="Make the pool")


@screen
def edit(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"pools/{pool_id}").data
    environment = environment_of(request, found["environmentId"])
    form = Form("PATCH", f"pools/{pool_id}", _LOOKS, values=found)
    back = reverse("console:pool", args=[pool_id])
    return _answer(
        request, environment, form, title=f"Edit {found['name']}", button="Save", back=back
    )


def _answer(request: HttpRequest, environment: Json, form: Form, **said: str) -> HttpResponse:
    if request.method == "POST" and (answer := form.send(request)):
        return see_other(request, reverse("console:pool", args=[answer.data["id"]]))
    back = reverse("console:machines", args=[environment["id"]])
    context = {"environment": environment, "menu": "machines", "form": form, "back": back, **said}
    return render(request, "console/form.html", context, status=form.status)


@screen
def delete(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"pools/{pool_id}").data
    if request.method == "POST":
        ask(request, "DELETE", f"pools/{pool_id}")
        return see_other(request, reverse("console:machines", args=[found["environmentId"]]))
    return confirm(
        request,
        environment_of(request, found["environmentId"]),
        menu="machines",
        title=f"Delete {found['name']}?",
        text="Its machines stay. Triggers that name it need another pool or a machine first.",
        button="Delete the pool",
        back=reverse("console:pool", args=[pool_id]),
    )
