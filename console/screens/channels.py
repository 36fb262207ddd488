"""The screens of channels: who is told of what, whether notices are delivered, and the notices of each channel."""

from dataclasses import replace
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.charts import STRIP, counted, strip
from console.forms import Form, Look, clauses
from console.json_rows import Ids
from console.pages import ResourceScreens, chosen, listed, names_of, screen, see_other
from console.screens.finding import MOST_CHOICES, Named
from console.screens.settings import show_settings
from console.templatetags.console import word
from notices.states import CHOICES, RECOVERED, RUN_ENDED, USUAL_EVENTS

_WHEN = [
    ("always", "Every end"),
    ("failed", "Those that failed or timed out"),
    ("", "Those for which these conditions hold"),
]
# The events of notices that nobody can choose for a channel, unlike those of CHOICES.
_OTHERS = {
    "channel.test": "A test",
    "channel.digest": "A digest",
    "channel.summary": "A summary",
    "address.confirm": "The question whether it wants these mails",
}
_DAYS = {
    "mon": "Monday",
    "tue": "Tuesday",
    "wed": "Wednesday",
    "thu": "Thursday",
    "fri": "Friday",
    "sat": "Saturday",
    "sun": "Sunday",
}
_KINDS = {"email": "mail", "slack": "Slack", "webhook": "webhook"}
# For each kind of channel, the fields of its target.
_TARGETS = {
    "email": {
        "emails": Look(
            "Addresses",
            help="One a line. Each is asked first whether it wants these mails, unless it is your own.",
            kind="list",
            required=True,
        )
    },
    "slack": {
        "url": Look(
            "Incoming webhook",
            help="Its URL, from Slack. It is encrypted, and shown to nobody.",
            required=True,
        )
    },
    "webhook": {
        "url": Look(required=True),
        "secret": Look(autocomplete="new-password", generates="whsec_"),
    },
}
# An encrypted value stays unless the visitor types a new one.
_SEALED = {
    "url": Look("New URL", help="Empty: the current one stays.", kind="password"),
    "secret": Look("New secret", help="Empty: the current one stays."),
}


def _looks(request: HttpRequest, row: Json) -> dict[str, Look]:
    targets = _TARGETS[row["kind"]]
    if "id" in row:
        targets = {name: _SEALED.get(name, look) for name, look in targets.items()}
    told = [each for each in CHOICES.items() if row["kind"] == "webhook" or each[0] != RUN_ENDED]
    # A chosen trigger stays a choice after it was deleted.
    triggers = {id_: id_ for id_ in row.get("triggerIds") or ()}
    triggers |= names_of(request, row["environmentId"], "triggers", limit=MOST_CHOICES + 1)
    ends_of = Look(kind="choices", choices=list(triggers.items()))
    if len(triggers) > MOST_CHOICES:
        found = Ids("Trigger", Named(request, row["environmentId"], "triggers"))
        ends_of = Look(kind="rows", row="Trigger", shape=found)
    summary = "Such as 07:00. It tells what became of everything since the last one. Empty: none."
    return {
        "name": Look(help="Such as On call."),
        **targets,
        "events": Look("Tells of", kind="choices", choices=told),
        "triggerIds": replace(ends_of, label="Ends of runs of", help="None: of all triggers."),
        "when": clauses("Which ends of runs", words=_WHEN),
        "summary.at": Look("A summary each day at", help=summary),
        "summary.timezone": Look("In the time zone", help="Such as Europe/Berlin."),
        "summary.weekdays": Look("On", kind="choices", choices=list(_DAYS.items())),
        "enabled": Look(
            "Active", kind="check", help="Otherwise the channel is paused, and tells of nothing."
        ),
    }


CHANNELS = ResourceScreens(
    noun="channel",
    menu="settings",
    looks=_looks,
    deleting="It tells of nothing any more, and what it has not sent yet is not sent.",
    listed="console:channels",
    page="console:channel",
    usual={
        "events": list(USUAL_EVENTS),
        "when": "always",
        "enabled": True,
        "summary": {"at": "", "timezone": "UTC", "weekdays": list(_DAYS)},
    },
    chooses="kind",
    choices=_KINDS,
)


@screen
def channels(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows who is told of what, and whether notices are delivered."""
    page = listed(request, environment_id, "channels", include="recent")
    for each in page["items"]:
        each |= _told_of(each, each["recent"])
    # Channels that deliver nothing come first.
    page["items"].sort(key=lambda each: (not each["failingSince"], not each["enabled"]))
    context = {"channels": page["items"], "kinds": _KINDS}
    return show_settings(request, environment_id, "channels", context, page)


def _told_of(channel: Json, notices: list[Json]) -> Json:
    """Returns what both pages show of a channel: its state, one word for each of its events, and a strip of its last
    notices, with the last delivered one.
    """
    state = "channel_dead" if channel["failingSince"] else "ok"
    kinds = dict.fromkeys(word(each.removesuffix(RECOVERED)) for each in channel["events"])
    arrived = [each for each in notices if each["status"] in {"delivered", "digested"}]
    return {
        "state": state if channel["enabled"] else "disabled",
        "said": _KINDS[channel["kind"]],
        "kinds": [*kinds, *(["Summary"] if channel["summary"] else [])],
        "strip": strip(
            [{"id": each["id"], "status": each["status"]} for each in notices], "notices"
        ),
        "counted": counted(notices),
        "silent": sum(
            each["standing"] not in {"member", "confirmed"} for each in channel["recipients"] or ()
        ),
        "last": {**arrived[-1], "what": _what(arrived[-1])} if arrived else None,
    }


def _what(notice: Json) -> str:
    event = notice["event"]
    return _OTHERS.get(event) or word(event.removesuffix(RECOVERED)) + ": over" * event.endswith(
        RECOVERED
    )


@screen
def channel(request: HttpRequest, channel_id: UUID) -> HttpResponse:
    """Shows whom the channel tells of what, and whether notices are delivered. A POST changes the channel."""
    found = CHANNELS.find(request, channel_id=channel_id)
    form = CHANNELS.form(request, found)
    if form.send(request):
        return see_other(request, request.path)
    return _show(request, found, form)


@screen
def test_channel(request: HttpRequest, channel_id: UUID) -> HttpResponse:
    """Sends a test, and opens the channel's page, which shows whether it is delivered."""
    if request.method == "POST":
        try:
            ask(request, "POST", f"channels/{channel_id}/test")
        except Refused as refused:
            if refused.status != 409:
                raise
            found = CHANNELS.find(request, channel_id=channel_id)
            form = CHANNELS.form(request, found)
            form.status, form.errors = 409, refused.sentences
            return _show(request, found, form)
    return see_other(request, reverse("console:channel", args=[channel_id]))


def _show(request: HttpRequest, found: Json, form: Form) -> HttpResponse:
    query = {**chosen(request), "limit": STRIP}
    notices = ask(request, "GET", f"channels/{found['id']}/notices", query=query).data
    for each in notices["items"]:
        each["what"] = _what(each)
        each["last"] = each["attempts"][-1] if each["attempts"] else None
    context = {
        "channel": {**found, **_told_of(found, notices["items"][::-1])},
        "notices": notices["items"],
        "isSending": any(each["status"] == "pending" for each in notices["items"]),
        "form": form,
    }
    where, status = found["environmentId"], form.status
    return show_settings(
        request, where, "channels", context, notices, template="channel", status=status
    )
