"""The screens of an environment's settings: who may act in it, its API keys, its audit log, and the environment."""

from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask, ask_if_free, words_of
from console.forms import Form, Look
from console.pages import (
    HOME,
    MOST,
    all_of,
    chosen,
    destroy,
    environment_of,
    listed,
    midnight,
    overview_of,
    screen,
    see_other,
    show,
)
from console.templatetags.console import may

# The roles of members and keys, as people choose them.
_ROLES = [
    ("viewer", "Viewer: sees everything"),
    ("operator", "Operator: also runs triggers, and cancels and reruns runs"),
    ("admin", "Admin: also changes triggers, machines, people and keys"),
    ("owner", "Owner: also makes owners, and may delete the environment"),
]
# The roles of keys, and how many days one may live, as people choose them.
_KEY_ROLES = [
    ("viewer", "Viewer: reads"),
    ("operator", "Operator: also runs triggers, and cancels and reruns runs"),
    ("admin", "Admin: also changes triggers, machines and budgets"),
]
_DAYS = {"7": "7 days", "30": "30 days", "90": "90 days", "365": "A year"}


@screen
def people(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows who may act in the environment. A POST invites a person."""
    environment = environment_of(request, environment_id)
    return (
        _invite(request, environment)
        if request.method == "POST"
        else _show_people(request, environment)
    )


@screen
def resend(request: HttpRequest, environment_id: UUID, invitation_id: UUID) -> HttpResponse:
    """Replaces an invitation by an equal new one, because the link of the old one can't be shown again."""
    environment = environment_of(request, environment_id)
    if request.method != "POST":
        return see_other(request, _people(environment_id))
    ask(request, "DELETE", f"environments/{environment_id}/invitations/{invitation_id}")
    return _invite(request, environment)


def _invite(request: HttpRequest, environment: Json) -> HttpResponse:
    form = _invitation(environment)
    if (answer := form.send(request)) is None:
        return _show_people(request, environment, form=form)
    return _show_people(request, environment, invited=answer.data)


@screen
def revoke_invitation(
    request: HttpRequest, environment_id: UUID, invitation_id: UUID
) -> HttpResponse:
    found = _found_in(request, environment_id, "invitations", invitation_id)
    return destroy(
        request,
        environment_id,
        f"environments/{environment_id}/invitations/{invitation_id}",
        menu="settings",
        title=f"Revoke the invitation of {found.get('email', 'this e-mail address')}?",
        text="Its link does not work any more.",
        button="Revoke it",
        back=_people(environment_id),
    )


@screen
def change_role(request: HttpRequest, environment_id: UUID, user_id: UUID) -> HttpResponse:
    if request.method == "POST":
        form = Form("PATCH", f"environments/{environment_id}/members/{user_id}", {"role": Look()})
        if form.send(request) is None:
            # A row of the list has no place for errors, so they stand above the list.
            wrong = [*form.errors, *(each for field in form.fields for each in field.errors)]
            environment = environment_of(request, environment_id)
            return _show_people(request, environment, status=form.status, problems=wrong)
    return see_other(request, _people(environment_id))


@screen
def remove(request: HttpRequest, environment_id: UUID, user_id: UUID) -> HttpResponse:
    found = _found_in(request, environment_id, "members", user_id, "userId")
    return destroy(
        request,
        environment_id,
        f"environments/{environment_id}/members/{user_id}",
        menu="settings",
        title=f"Remove {found.get('email', 'this member')}?",
        text="They lose access at once. API keys that they made stay valid: revoke those that they must not have.",
        button="Remove",
        back=_people(environment_id),
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
        back=_people(environment_id),
        to=HOME,
    )


def _people(environment_id: UUID) -> str:
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


def _show_people(
    request: HttpRequest,
    environment: Json,
    *,
    form: Form | None = None,
    status: int = 200,
    **said: Any,
) -> HttpResponse:
    page = listed(request, environment["id"], "members")
    invitations = []
    if may(environment, "admin"):
        form = form or _invitation(environment)
        status = max(status, form.status)
        invitations = all_of(request, environment["id"], "invitations")
        _add_last_actions(request, environment, page["items"])
    people = {each["userId"]: each["name"] or each["email"] for each in page["items"]}
    for each in invitations:
        each["isOver"] = datetime.fromisoformat(each["expiresAt"]) <= datetime.now(UTC)
        each["by"] = people.get(each["invitedBy"])
    roles = [value for value, _ in _roles(environment)]
    said |= {"members": page["items"], "invitations": invitations, "roles": roles, "form": form}
    return show_settings(request, environment, "people", said, page, status=status)


def _add_last_actions(request: HttpRequest, environment: Json, members: list[Json]) -> None:
    """Adds to each member the `last` of their actions among the latest of all, or since when they did nothing."""
    query = {"actorType": "user", "limit": MOST}
    path = f"environments/{environment['id']}/audit-log"
    actions = ask_if_free(request, "GET", path, query=query).get("items", [])
    last: dict[str, Json] = {each["actor"]["id"]: each for each in reversed(actions)}
    for each in members:
        if found := last.get(each["userId"]):
            each["last"] = {"at": found["createdAt"], "done": _done(found["action"])}
        elif len(actions) == MOST:
            each["idleSince"] = actions[-1]["createdAt"]


@screen
def keys(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows which programs may act in the environment. A POST makes a key; only its answer shows the token."""
    environment = environment_of(request, environment_id)
    path = f"environments/{environment_id}/api-keys"
    looks = {
        "name": Look(help="What it is for, such as the name of the program."),
        "role": Look(choices=_KEY_ROLES),
        "expiresAt": Look(
            "Lifetime", kind="choice", choices=[*_DAYS.items(), ("", "Until it is revoked")]
        ),
    }
    usual = {"role": "operator", "expiresAt": "90"}
    form = Form("POST", path, looks, values=usual)
    if made := form.send(request, more=_more_of_key(request)):
        form = Form("POST", path, looks, values=usual)
    page = ask(request, "GET", path, query=chosen(request)).data
    for each in page["items"]:
        each["state"] = _state_of(each)
    page["items"].sort(key=lambda each: each["state"] != "valid")
    context = {"keys": page["items"], "form": form, "made": made and made.data}
    return show_settings(request, environment, "keys", context, page, status=form.status)


def _more_of_key(request: HttpRequest) -> Json:
    """Returns the fields of a new key's body that were not typed. Its lifetime is counted from now."""
    days = request.POST.get("expiresAt", "")
    expires = datetime.now(UTC) + timedelta(days=int(days)) if days in _DAYS else None
    return {"prefix": "pwk", **({"expiresAt": expires.isoformat()} if expires else {})}


def _state_of(key: Json) -> str:
    expires = key["expiresAt"]
    if key["revokedAt"]:
        return "revoked"
    if key["consumedAt"]:
        return "consumed"
    is_over = expires and datetime.fromisoformat(expires) <= datetime.now(UTC)
    return "expired" if is_over else "valid"


@screen
def revoke_key(request: HttpRequest, environment_id: UUID, key_id: UUID) -> HttpResponse:
    found = _found_in(request, environment_id, "api-keys", key_id)
    return destroy(
        request,
        environment_id,
        f"environments/{environment_id}/api-keys/{key_id}",
        menu="settings",
        title=f"Revoke {found.get('name', 'the key')}?",
        text="Programs that use it are refused from then on. This can’t be undone.",
        button="Revoke the key",
        back=reverse("console:keys", args=[environment_id]),
    )


# The choices of whose actions the audit log shows: the text, and the kinds of actors.
_WHO = {
    "people": ("People", "user,staff"),
    "programs": ("Programs", "api_key"),
    "machines": ("Machines", "worker"),
    "service": ("The service", "system"),
    "all": ("All", ""),
}


@screen
def audit(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows who did what, and when."""
    environment = environment_of(request, environment_id)
    path = f"environments/{environment_id}/audit-log"
    filters = chosen(request, "action", "actorId", "targetId", "from", "to")
    # `to` is the last day that is shown. A text that is not a day is sent to the API as it was typed, which refuses it.
    query: dict[str, Any] = dict(filters)
    for name, days in (("from", 0), ("to", 1)):
        with suppress(KeyError, ValueError, OverflowError):
            query[name] = midnight(date.fromisoformat(query[name]) + timedelta(days=days))
    usual = "all" if filters.keys() & {"targetId", "actorId"} else "people"
    who = request.GET.get("who", usual)
    who = who if who in _WHO else usual
    if kinds := _WHO[who][1]:
        query["actorType"] = kinds
    page = ask(request, "GET", path, query=query).data
    for each in page["items"]:
        each["done"] = _done(each["action"])
    groups: dict[str, list[tuple[str, str]]] = {}
    for each in sorted(words_of(path, "action")):
        groups.setdefault(_done(each.partition(".")[0]), []).append((each, _done(each)))
    members = all_of(request, environment_id, "members")
    context = {
        "entries": page["items"],
        "groups": groups,
        "members": [(each["userId"], each["name"] or each["email"]) for each in members],
        "filters": filters,
        "who": who,
        "chips": [(value, said) for value, (said, _) in _WHO.items()],
    }
    return show_settings(request, environment, "audit", context, page)


def _done(action: str) -> str:
    """Returns an action as people read it: `api key created` for `api-key.created`."""
    return action.translate(str.maketrans(".-", "  "))


@screen
def environment(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows the environment's name and state. A POST renames, pauses or resumes it, as its button `do` says."""
    shown = environment_of(request, environment_id)
    path = f"environments/{environment_id}"
    reason = Look("Why", help="Members see it on the first page.")
    cancel = Look("Also stop the runs that machines have begun", kind="check")
    forms = {
        "rename": Form("PATCH", path, {"name": Look()}, values=shown),
        "pause": Form("PATCH", path, {"pauseReason": reason, "cancelHeld": cancel}),
    }
    if request.method == "POST":
        do = request.POST.get("do", "")
        if do == "resume":
            ask(request, "PATCH", path, body={"paused": False})
        more = {"paused": True} if do == "pause" else {}
        if do not in forms or forms[do].send(request, more=more):
            return see_other(
                request, reverse("console:environment-settings", args=[environment_id])
            )
    status = max(form.status for form in forms.values())
    context = {**forms, "figures": overview_of(request, environment_id)}
    return show_settings(request, shown, "environment", context, status=status)


@screen
def delete_environment(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    shown = environment_of(request, environment_id)
    return destroy(
        request,
        shown,
        f"environments/{environment_id}",
        menu="settings",
        title=f"Delete {shown['name']}?",
        text="Its members lose it, and its keys are dead. Its triggers and machines must be deleted first.",
        button="Delete the environment",
        back=reverse("console:environment-settings", args=[environment_id]),
        to=HOME,
    )


def show_settings(
    request: HttpRequest,
    environment: Json | UUID | str,
    section: str,
    context: Json,
    page: Json | None = None,
    *,
    template: str = "",
    status: int = 200,
) -> HttpResponse:
    """Renders a page of the settings; `section` is its entry in their menu. `page` is the page of a list on it."""
    context["section"] = section
    return show(request, environment, "settings", template or section, context, page, status=status)


def _found_in(
    request: HttpRequest, environment_id: UUID, kind: str, wanted: UUID, field: str = "id"
) -> Json:
    """Returns the item of a list that has the id, or nothing if it is not among the first ones."""
    items = all_of(request, environment_id, kind)
    return next((each for each in items if each[field] == str(wanted)), {})
