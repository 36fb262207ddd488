"""The screens of channels: who is told of what, whether it arrives, and the notices of each."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.forms import Form, Look
from console.pages import chosen, delete_page, environment_of, form_page, screen, see_other
from console.screens.machines import all_of
from console.screens.settings import show_settings
from notices.states import CHOICES, RUN_ENDED, USUAL_EVENTS

# The notices that no channel is asked for, besides CHOICES.
_OTHERS = {
    "channel.test": "A test",
    "channel.digest": "A digest",
    "channel.summary": "A summary",
    "address.confirm": "The question whether it wants these mails",
}
_NAME = Look(help="Such as On call.")
_ON = Look("Switched on", kind="check")
_TOLD = Look(
    "Tells of", kind="choices", choices=[each for each in CHOICES.items() if each[0] != RUN_ENDED]
)
_DAYS = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
# What all kinds have last. The environment's triggers are added to the choices when the form is shown.
_LAST = {
    "triggerIds": Look("Ends of runs of", help="None: of all triggers.", kind="choices"),
    "when": Look(
        "Which ends of runs",
        help='always, failed, or clauses as JSON: [{"path": "/output/found", "op": "gt", "value": 0}]. All must hold.',
        kind="clauses",
    ),
    "summary.at": Look(
        "A summary each day at",
        help="Such as 07:00. It tells what became of everything since the last one. Empty: none.",
    ),
    "summary.timezone": Look("In the time zone", help="Such as Europe/Berlin."),
    "summary.weekdays": Look("On", kind="choices", choices=list(_DAYS.items())),
    "enabled": _ON,
}
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
        **_LAST,
    },
    "slack": {
        "name": _NAME,
        "url": Look(
            "Incoming webhook", help="Its URL, from Slack. It is sealed, and shown to nobody."
        ),
        "events": _TOLD,
        **_LAST,
    },
    "webhook": {
        "name": _NAME,
        "url": Look(),
        "secret": Look(autocomplete="new-password"),
        "events": replace(_TOLD, choices=CHOICES.items()),
        **_LAST,
    },
}
# What is sealed stays unless somebody types it anew.
_SEALED = {
    "url": Look("New URL", help="Empty: the present one stays.", kind="password"),
    "secret": Look("New secret", help="Empty: the present one stays."),
}
_NO_SUMMARY = {"at": "", "timezone": "UTC", "weekdays": list(_DAYS)}
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
    return show_settings(request, environment, "channels", context, page)


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
    usual = {"events": list(USUAL_EVENTS), "when": "always", "enabled": True, "kind": kind}
    looks = {**_looks(request, environment_id, _LOOKS[kind]), "kind": Look(kind="hidden")}
    form = Form("POST", path, looks, values={**usual, "summary": _NO_SUMMARY})
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
    form = _form(request, found)
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
            form = _form(request, found)
            form.status, form.errors = 409, refused.sentences
            return _show(request, found, form)
    return see_other(request, reverse("console:channel", args=[channel_id]))


@screen
def delete_channel(request: HttpRequest, channel_id: UUID) -> HttpResponse:
    path = f"channels/{channel_id}"
    found = ask(request, "GET", path).data
    text = "It tells of nothing any more, and what it has not sent yet is not sent."
    return delete_page(request, found, path, "console:channels", text, menu="settings")


def _form(request: HttpRequest, found: Json) -> Form:
    looks = {name: _SEALED.get(name, look) for name, look in _LOOKS[found["kind"]].items()}
    looks = _looks(request, found["environmentId"], looks, found["triggerIds"] or ())
    values = {**found, "summary": found["summary"] or _NO_SUMMARY}
    return Form("PATCH", f"channels/{found['id']}", looks, values=values)


def _looks(
    request: HttpRequest,
    environment_id: UUID | str,
    looks: Mapping[str, Look],
    chosen: Iterable[str] = (),
) -> dict[str, Look]:
    """Returns the looks with the triggers to choose from, and with those chosen that are not among them any more."""
    triggers = all_of(request, environment_id, "triggers")
    choices = {id_: id_ for id_ in chosen} | {each["id"]: each["name"] for each in triggers}
    return {**looks, "triggerIds": replace(looks["triggerIds"], choices=list(choices.items()))}


def _show(request: HttpRequest, found: Json, form: Form) -> HttpResponse:
    query = {**chosen(request), "limit": 10}
    notices = ask(request, "GET", f"channels/{found['id']}/notices", query=query).data
    for each in notices["items"]:
        each["what"] = {**CHOICES, **_OTHERS}.get(each["event"], each["event"])
        each["last"] = each["attempts"][-1] if each["attempts"] else None
    context = {
        "channel": {**found, "state": _state_of(found)},
        "notices": notices["items"],
        "isSending": any(each["status"] == "pending" for each in notices["items"]),
        "form": form,
    }
    environment = environment_of(request, found["environmentId"])
    status = form.status
    return show_settings(
        request, environment, "channels", context, notices, template="channel", status=status
    )
