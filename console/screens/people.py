"""The screens of who may act in an environment: its members, and who is invited."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import HOME, chosen, destroy, environment_of, screen, see_other
from console.screens.settings import found_in, show_settings
from console.templatetags.console import may

_ROLES = [
    ("viewer", "Viewer: sees everything"),
    ("operator", "Operator: also runs triggers, and cancels and reruns runs"),
    ("admin", "Admin: also changes triggers, machines, people and keys"),
    ("owner", "Owner: also makes owners, and may delete the environment"),
]


@screen
def people(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Who may act here? A POST invites somebody."""
    environment = environment_of(request, environment_id)
    return (
        _invite(request, environment) if request.method == "POST" else _show(request, environment)
    )


@screen
def resend(request: HttpRequest, environment_id: UUID, invitation_id: UUID) -> HttpResponse:
    """Replaces an invitation by a new one like it, since the link of the former one is shown nowhere any more."""
    environment = environment_of(request, environment_id)
    if request.method != "POST":
        return see_other(request, _page(environment_id))
    ask(request, "DELETE", f"environments/{environment_id}/invitations/{invitation_id}")
    return _invite(request, environment)


def _invite(request: HttpRequest, environment: Json) -> HttpResponse:
    form = _invitation(environment)
    if (answer := form.send(request)) is None:
        return _show(request, environment, form=form)
    return _show(request, environment, invited=answer.data)


@screen
def revoke_invitation(
    request: HttpRequest, environment_id: UUID, invitation_id: UUID
) -> HttpResponse:
    path = f"environments/{environment_id}/invitations"
    found = found_in(request, path, invitation_id)
    return destroy(
        request,
        environment_id,
        f"{path}/{invitation_id}",
        menu="settings",
        title=f"Revoke the invitation of {found.get('email', 'this address')}?",
        text="Its link does not work any more.",
        button="Revoke it",
        back=_page(environment_id),
    )


@screen
def change_role(request: HttpRequest, environment_id: UUID, user_id: UUID) -> HttpResponse:
    if request.method == "POST":
        form = Form("PATCH", f"environments/{environment_id}/members/{user_id}", {"role": Look()})
        if form.send(request) is None:
            # The row has no place for what the API says, so it stands above the list.
            wrong = [*form.errors, *(each for field in form.fields for each in field.errors)]
            environment = environment_of(request, environment_id)
            return _show(request, environment, status=form.status, problems=wrong)
    return see_other(request, _page(environment_id))


@screen
def remove(request: HttpRequest, environment_id: UUID, user_id: UUID) -> HttpResponse:
    path = f"environments/{environment_id}/members"
    found = found_in(request, path, user_id, "userId")
    return destroy(
        request,
        environment_id,
        f"{path}/{user_id}",
        menu="settings",
        title=f"Remove {found.get('email', 'this member')}?",
        text="They lose access at once. API keys that they made stay valid: revoke those that they must not have.",
        button="Remove",
        back=_page(environment_id),
    )


@screen
def leave(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    environment = environment_of(request, environment_id)
    me = ask(request, "GET", "auth/me").data["user"]
    return destroy(
        request,
        environment,
        f"environments/{environment_id}/members/{me['id']}",
        menu="settings",
        title=f"Leave {environment['name']}?",
        text="You lose access at once. Somebody who may invite people can let you in again.",
        button="Leave",
        keep="Stay",
        back=_page(environment_id),
        to=HOME,
    )


def _page(environment_id: UUID) -> str:
    return reverse("console:settings", args=[environment_id])


def _roles(environment: Json) -> list[tuple[str, str]]:
    """Returns the roles that the visitor may grant."""
    return _ROLES if may(environment, "owner") else _ROLES[:-1]


def _invitation(environment: Json) -> Form:
    looks = {
        "email": Look("E-mail address", kind="email"),
        "role": Look(choices=_roles(environment)),
    }
    return Form("POST", f"environments/{environment['id']}/invitations", looks)


def _show(
    request: HttpRequest,
    environment: Json,
    *,
    form: Form | None = None,
    status: int = 200,
    **said: Any,
) -> HttpResponse:
    path = f"environments/{environment['id']}"
    page = ask(request, "GET", f"{path}/members", query=chosen(request)).data
    invitations = []
    if may(environment, "admin"):
        form = form or _invitation(environment)
        status = max(status, form.status)
        invitations = ask(request, "GET", f"{path}/invitations", query={"limit": 200}).data["items"]
    for each in invitations:
        each["isOver"] = datetime.fromisoformat(each["expiresAt"]) <= datetime.now(UTC)
    roles = [value for value, _ in _roles(environment)]
    said |= {"members": page["items"], "invitations": invitations, "roles": roles, "form": form}
    return show_settings(request, environment, "people", said, page, status=status)
