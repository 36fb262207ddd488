"""The screens for choosing or making a workspace and an environment."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import chosen, form_page, pages_beside, screen, see_other

# Each workspace costs a call to the API, so a page has only this many. Most people are in one or two.
_WORKSPACES = 20
_WORKSPACE = (
    "A workspace is your company or team. It holds environments, such as production, and each of these has its own"
    " people, machines and triggers."
)


@screen
def home(request: HttpRequest) -> HttpResponse:
    """Opens the visitor's environment if there is only one. Otherwise shows a list to choose from."""
    page = _workspaces(request)
    found = [each for workspace in page["items"] for each in workspace["environments"]]
    if len(found) == 1 and page["nextCursor"] is None:
        return see_other(request, reverse("console:environment", args=[found[0]["id"]]))
    return see_other(request, reverse("console:choose"))


@screen
def open_environment(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Opens the first screen of an environment."""
    return see_other(request, reverse("console:attention", args=[environment_id]))


@screen
def choose(request: HttpRequest) -> HttpResponse:
    page = _workspaces(request)
    if not page["items"] and "cursor" not in request.GET:
        return see_other(request, reverse("console:new-workspace"))
    context = {"workspaces": page["items"], **pages_beside(request, page)}
    return render(request, "console/choose.html", context)


def _workspaces(request: HttpRequest) -> Json:
    """Returns a page of the visitor's workspaces, each with its `environments`, and whether they `mayAdd` one."""
    page = ask(request, "GET", "workspaces", query={**chosen(request), "limit": _WORKSPACES}).data
    for each in page["items"]:
        path = f"workspaces/{each['id']}/environments"
        found = ask(request, "GET", path, query={"limit": 200}).data["items"]
        each["environments"] = found
        # Owners may make more environments. So may the workspace's creator, the only one who sees it without any.
        each["mayAdd"] = not found or any(one["role"] == "owner" for one in found)
    return page


@screen
def new_workspace(request: HttpRequest) -> HttpResponse:
    ask(
        request, "GET", "auth/me"
    )  # A visitor without a session is sent to sign in before they type.
    form = Form("POST", "workspaces", {"name": Look(help="Such as the name of your company.")})
    said = {"title": "New workspace", "button": "Make the workspace", "text": _WORKSPACE}
    return form_page(
        request, form, lambda made: reverse("console:new-environment", args=[made["id"]]), **said
    )


@screen
def new_environment(request: HttpRequest, workspace_id: UUID) -> HttpResponse:
    name = Look(help="Such as production. Its members, machines and triggers see no other one's.")
    path = f"workspaces/{workspace_id}/environments"
    # If the visitor can't see the workspace, they get the 404 before they type.
    ask(request, "GET", path, query={"limit": 1})
    form = Form("POST", path, {"name": name})
    said = {"title": "New environment", "button": "Make the environment"}
    return form_page(
        request, form, lambda made: reverse("console:environment", args=[made["id"]]), **said
    )
