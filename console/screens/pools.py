"""The screens of a pool: its machines, what is queued for them, and the forms that make, change and delete one."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import ask
from console.forms import Form, Look
from console.pages import delete_page, edit_page, environment_of, form_page, screen, see_other, show
from console.screens.machines import MOST, all_of

_LOOKS = {
    "name": Look(help="Such as Build machines."),
    "description": Look(help="What its machines have in common.", kind="area"),
}


@screen
def pool(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    """Who is in it, and what is queued for it? A POST puts the machine `add` into it, or takes `remove` out."""
    if request.method == "POST":
        method, name = ("PUT", "add") if "add" in request.POST else ("DELETE", "remove")
        ask(request, method, f"pools/{pool_id}/workers/{request.POST.get(name)}")
        return see_other(request, reverse("console:pool", args=[pool_id]))
    found = ask(request, "GET", f"pools/{pool_id}").data
    environment_id = found["environmentId"]
    workers = all_of(request, environment_id, "workers")
    queued = all_of(request, environment_id, "runs", poolId=found["id"], status="queued")
    context = {
        "pool": found,
        "machines": all_of(request, environment_id, "workers", poolId=found["id"]),
        "others": [each for each in workers if found["id"] not in each["poolIds"]],
        "queued": len(queued),
        "uncounted": len(queued) == MOST,
    }
    return show(request, environment_id, "machines", "pool", context)


@screen
def new(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    environment = environment_of(request, environment_id)
    form = Form("POST", f"environments/{environment_id}/pools", _LOOKS)
    said = {"title": "New pool", "button": "Make the pool", "menu": "machines"}
    back = reverse("console:machines", args=[environment_id])
    return form_page(request, environment, form, "console:pool", back=back, **said)


@screen
def edit(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"pools/{pool_id}").data
    form = Form("PATCH", f"pools/{pool_id}", _LOOKS, values=found)
    return edit_page(request, found, form, "console:pool", menu="machines")


@screen
def delete(request: HttpRequest, pool_id: UUID) -> HttpResponse:
    path = f"pools/{pool_id}"
    found = ask(request, "GET", path).data
    text = "Its machines stay. Triggers that name it need another pool or a machine first."
    return delete_page(request, found, path, "console:machines", text, menu="machines")
