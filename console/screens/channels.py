"""The screens of channels: who is told of what, whether it arrives, and the notices of each."""

from dataclasses import replace
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.forms import Form, Look
from console.pages import chosen, delete_page, environment_of, form_page, screen, see_other
from console.screens.settings import show

_EVENTS = {
    "trigger_failing": "A trigger fails",
    "trigger_failing.recovered": "It succeeds again",
    "trigger_late": "A trigger is late",
    "trigger_late.recovered": "It is on time again",
    "worker_offline": "A machine is offline",
    "worker_offline.recovered": "It is back",
    "pool_offline": "A pool has no machine",
    "pool_offline.recovered": "It has one again",
    "webhook_dead": "A trigger’s webhook was given up",
    "webhook_dead.recovered": "It arrives again",
    "budget_reached": "A budget is reached",
    "budget_reached.recovered": "It has room again",
    "approval_requested": "A run asks for a decision",
}
_RUN_ENDED = {"run.ended": "Every run that has ended"}
_OTHERS = {
    "channel.test": "A test",
    "channel.digest": "A digest",
    "address.confirm": "The question whether it wants these mails",
}
_NAME = Look(help="Such as On call.")
_ON = Look("Switched on", kind="check")
_TOLD = Look("Tells of", kind="choices", choices=list(_EVENTS.items()))
# The fields of each kind's form.
_LOOKS = {
    "email": {
        "name": _NAME,
        "emails": Look(
            "Addresses",
            help="One a line. Each is asked first whether it wants these mails, unless it is your own.",
            kind="list",
        ),
        "events": _TOLD,
        "enabled": _ON,
    },
    "slack": {
        "name": _NAME,
        "url": Look(
            "Incoming webhook", help="Its URL, from Slack. It is sealed, and shown to nobody."
        ),
        "events": _TOLD,
        "enabled": _ON,
    },
    "webhook": {
        "name": _NAME,
        "url": Look("URL", help="It is sealed, and shown to nobody."),
        "secret": Look(
            help="Signs what is sent, so that the receiver knows that it is ours. 16 characters or more.",
            kind="password",
            autocomplete="new-password",
        ),
        "events": replace(_TOLD, choices=[*_EVENTS.items(), *_RUN_ENDED.items()]),
        "enabled": _ON,
    },
}
# What is sealed stays unless somebody types it anew.
_SEALED = {
    "url": Look("New URL", help="Empty: the present one stays.", kind="password"),
    "secret": Look("New secret", help="Empty: the present one stays.", kind="password"),
}
_KINDS = {"email": "mail channel", "slack": "Slack channel", "webhook": "webhook channel"}


@screen
def channels(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Who is told, of what, and does it arrive?"""
    environment = environment_of(request, environment_id)
    path = f"environments/{environment_id}/channels"
    page = ask(request, "GET", path, query=chosen(request)).data
    for each in page["items"]:
        each["state"] = _state_of(each)
    context = {"channels": page["items"], "kinds": _KINDS}
    return show(request, environment, "channels", context, page)


def _state_of(channel: Json) -> str:
    if not channel["enabled"]:
        return "disabled"
    return "channel_dead" if channel["failingSince"] else "ok"


@screen
def new_channel(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    environment = environment_of(request, environment_id)
    path = f"environments/{environment_id}/channels"
    kind = request.GET.get("kind", "")
    kind = kind if kind in _LOOKS else "email"
    usual = {"events": list(_EVENTS), "enabled": True, "kind": kind}
    form = Form("POST", path, {**_LOOKS[kind], "kind": Look(kind="hidden")}, values=usual)
    for each in form.fields:
        # The API can't say so, since which of the two it needs depends on the kind.
        each.required |= each.name in {"url", "emails"}
    return form_page(
        request,
        environment,
        form,
        "console:channel",
        menu="settings",
        title=f"New {_KINDS[kind]}",
        button="Make the channel",
        back=reverse("console:channels", args=[environment_id]),
    )


@screen
def channel(request: HttpRequest, channel_id: UUID) -> HttpResponse:
    """Does it arrive, and whom does it tell of what? A POST changes the channel."""
    found = ask(request, "GET", f"channels/{channel_id}").data
    form = _form(found)
    if request.method == "POST" and form.send(request):
        return see_other(request, request.path)
    return _show(request, found, form)


@screen
def test_channel(request: HttpRequest, channel_id: UUID) -> HttpResponse:
    """Sends a test, and goes on to the channel's page, which shows what becomes of it."""
    if request.method == "POST":
        try:
            ask(request, "POST", f"channels/{channel_id}/test")
        except Refused as refused:
            if refused.status != 409:
                raise
            found = ask(request, "GET", f"channels/{channel_id}").data
            form = _form(found)
            form.status, form.errors = 409, refused.sentences
            return _show(request, found, form)
    return see_other(request, reverse("console:channel", args=[channel_id]))


@screen
def delete_channel(request: HttpRequest, channel_id: UUID) -> HttpResponse:
    path = f"channels/{channel_id}"
    found = ask(request, "GET", path).data
    text = "It tells of nothing any more, and what it has not sent yet is not sent."
    return delete_page(request, found, path, "console:channels", text, menu="settings")


def _form(found: Json) -> Form:
    looks = {name: _SEALED.get(name, look) for name, look in _LOOKS[found["kind"]].items()}
    return Form("PATCH", f"channels/{found['id']}", looks, values=found)


def _show(request: HttpRequest, found: Json, form: Form) -> HttpResponse:
    query = {**chosen(request), "limit": 10}
    notices = ask(request, "GET", f"channels/{found['id']}/notices", query=query).data
    for each in notices["items"]:
        each["what"] = (_EVENTS | _RUN_ENDED | _OTHERS).get(each["event"], each["event"])
        each["last"] = each["attempts"][-1] if each["attempts"] else None
    context = {
        "channel": {**found, "state": _state_of(found)},
        "notices": notices["items"],
        "isSending": any(each["status"] == "pending" for each in notices["items"]),
        "form": form,
    }
    environment = environment_of(request, found["environmentId"])
    status = form.status
    return show(
        request, environment, "channels", context, notices, template="channel", status=status
    )
