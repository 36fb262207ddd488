"""The screens of sources: who may send events, which came, what each started or why it did not, and replaying them."""

import shlex
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask, words_of
from console.charts import Chart, by_hour, requests
from console.forms import Look
from console.pages import (
    Chip,
    ResourceScreens,
    all_of,
    chips_of,
    chosen,
    environment_of,
    listed,
    screen,
    see_other,
    show,
)
from console.screens.settings import show_settings
from console.templatetags.console import may, visible, word

# For each scheme, its name, and where its sender is told the URL and the secret.
_SCHEMES = {
    "github": (
        "GitHub",
        "Settings, Webhooks, Add webhook: the payload URL below, the content type application/json, and the secret.",
    ),
    "gitlab": ("GitLab", "Settings, Webhooks, Add new webhook: the URL below, and the secret as secret token."),
    "stripe": (
        "Stripe",
        "Workbench, Webhooks, Add destination: the endpoint URL below. Its signing secret (whsec_…) comes here.",
    ),
    "slack": (
        "Slack",
        "Your app, Event Subscriptions: the request URL below. The signing secret of its Basic Information comes here.",
    ),
    "standard": ("Standard Webhooks", "The sender takes the URL below. Its secret (whsec_…) comes here."),
    "hmac": ("Another HMAC-SHA256", "The sender posts to the URL below, and signs as you say here."),
    "bearer": ("A script", "It posts to the URL below, with the header Authorization: Bearer, and the secret."),
}  # fmt: skip
_LOOKS = {
    "name": Look(help="Such as the name of the repository."),
    "secrets": Look(
        "Secret",
        help="16 characters or more. It is encrypted, and shown to nobody. While you replace it: both, one a line.",
        kind="secrets",
        generates="",
    ),
    "hmac.header": Look("Header of the signature", help="Such as X-Signature.", required=True),
    "hmac.prefix": Look("Text before the signature", help="Such as sha256=."),
    "hmac.timestampHeader": Look("Header of the signed timestamp", help="Empty: none is signed."),
    "enabled": Look(
        "Active", kind="check", help="Otherwise the source is paused, and takes no events."
    ),
}


def _looks(_: HttpRequest, row: Json) -> dict[str, Look]:
    looks = {
        name: look
        for name, look in _LOOKS.items()
        if not name.startswith("hmac.") or row["scheme"] == "hmac"
    }
    if "id" in row:
        stays = "Empty: the current one stays."
        looks["secrets"] = replace(looks["secrets"], label="New secret", help=stays)
    return looks


SOURCES = ResourceScreens(
    noun="source",
    menu="settings",
    looks=_looks,
    deleting="Its URL takes nothing any more, and its secrets are removed.",
    listed="console:sources",
    page="console:source",
    usual={"enabled": True},
    chooses="scheme",
    choices={scheme: said for scheme, (said, _) in _SCHEMES.items()},
)


# The shell command that makes the signature of a body.
_SIGNED = """"$(printf %s "$BODY" | openssl dgst -sha256 -hmac "$SECRET" -r | cut -d ' ' -f 1)\""""


def _try_of(source: Json, url: str) -> list[str]:
    """Returns the shell lines that send an event, or none if the sender is a product that signs by itself. The secret
    is never shown, so the person who pastes them types it into the first line.
    """
    if source["scheme"] == "bearer":
        header, proof = "Authorization: Bearer ", '"$SECRET"'
    elif source["scheme"] == "hmac" and not source["hmac"]["timestampHeader"]:
        header, proof = f"{source['hmac']['header']}: {source['hmac']['prefix'] or ''}", _SIGNED
    else:
        return []
    return [
        "SECRET='the secret'",
        """BODY='{"hello": "world"}'""",
        f"""curl -H {shlex.quote(header)}{proof} -d "$BODY" {url}""",
    ]


# The API counts at most this many requests of an hour. The chart shows them by their result.
_MOST_IN_HOUR = 100
_CAME = {"good": "Started something", "open": "Started nothing", "bad": "Refused"}
# Why a request was refused, and what to do about it.
_REFUSED = {
    "unsigned": "No signature. Give the sender the secret, and look whether it signs as said above.",
    "bad_signature": "A wrong signature. Does the sender have the same secret?",
    "stale": "Without a timestamp, or with one that is more than five minutes off. Is the sender's clock right?",
    "disabled": "The source is paused.",
    "malformed": "The body was not JSON. Choose application/json at the sender.",
    "too_large": "The body was over 256 KiB. Can the sender send less?",
    "too_many": "More came at once than a source may send.",
}


@screen
def sources(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows who may send events, and when the last one came."""
    page = listed(request, environment_id, "sources", include="recent")
    found = [_shown(each) for each in page["items"]]
    # Sources that let nothing in come first, and then those that let most in.
    found.sort(
        key=lambda each: (
            not each["state"].endswith("shut"),
            -each["sums"]["taken"],
            not each["enabled"],
        )
    )
    context = {"sources": found, "schemes": SOURCES.choices}
    return show_settings(request, environment_id, "sources", context, page)


def _shown(source: Json) -> Json:
    said, how = _SCHEMES[source["scheme"]]
    sums: dict[str, int] = {name: sum(hours) for name, hours in source["recent"].items()}
    state = "ok" if source["lastEventAt"] else "unheard"
    if not source["enabled"]:
        state = "disabled"
    elif sums["refused"] > sums["taken"]:
        state = "mostly_shut" if sums["taken"] else "shut"
    told = {
        name: f"{sums[name]:,}{'+' * (max(hours) >= _MOST_IN_HOUR)}" if sums[name] else "–"
        for name, hours in source["recent"].items()
    }
    shown = {"said": said, "how": how, "state": state, "sums": sums, "told": told}
    return {**source, **shown, "strip": requests(source["recent"])}


def _hours(recent: Json) -> Chart:
    """Returns the chart of a source's last 24 hours."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    last = len(recent["taken"]) - 1
    hours = [
        {
            "key": (now - timedelta(hours=last - n)).isoformat(),
            "good": started,
            "open": taken - started,
            "bad": refused,
        }
        for n, (taken, started, refused) in enumerate(
            zip(recent["taken"], recent["started"], recent["refused"], strict=True)
        )
    ]
    return by_hour("Requests by hour, and what became of them", hours, _CAME)


@screen
def source(request: HttpRequest, source_id: UUID) -> HttpResponse:
    """Shows which events came, and what they started. A POST changes the source."""
    found = SOURCES.find(request, source_id=source_id)
    environment = environment_of(request, found["environmentId"])
    form = SOURCES.form(request, found)
    if form.send(request):
        return see_other(request, request.path)
    path = f"sources/{source_id}/events"
    filters = chosen(request, "decision")
    is_operator = may(environment, "operator")
    url = f"{settings.PUBLIC_URL}{found['url']}"
    events = ask(request, "GET", path, query={**filters, "limit": 25}).data if is_operator else None
    shown = _shown(found)
    decisions: list[Chip] = [
        (word(f"event_{each}"), {"decision": each}, ()) for each in words_of(path, "decision")
    ]
    context = {
        "source": shown,
        "hours": _hours(found["recent"])
        if shown["sums"]["taken"] or shown["sums"]["refused"]
        else None,
        "heard_by": all_of(request, found["environmentId"], "triggers", listensTo=found["id"]),
        "types": [visible(each) for each in found["typesSeen"]],
        "refused": [{**each, "said": _REFUSED[each["reason"]]} for each in found["refused"]],
        "url": url,
        "lines": _try_of(found, url),
        "form": form,
        "filters": filters,
        "chips": chips_of(request, decisions, {}),
        "events": events and events["items"],
    }
    return show_settings(
        request, environment, "sources", context, events, template="source", status=form.status
    )


@screen
def event(request: HttpRequest, event_id: UUID) -> HttpResponse:
    """Shows why an event started something, or nothing."""
    found = ask(request, "GET", f"events/{event_id}").data
    return show_settings(
        request, found["environmentId"], "sources", {"event": found}, template="source_event"
    )


@screen
def replay(request: HttpRequest, event_id: UUID) -> HttpResponse:
    """Asks before an event is replayed, and opens the page of the new event."""
    path = f"events/{event_id}"
    if request.method == "POST":
        made = ask(request, "POST", f"{path}/replay").data
        return see_other(request, reverse("console:event", args=[made["id"]]))
    found = ask(request, "GET", path).data
    said = {
        "title": "Decide the event anew?",
        "text": "What listens to its source today is started, also if the event has started it before.",
        "button": "Replay it",
        "keep": "Leave it",
        "back": reverse("console:event", args=[event_id]),
    }
    return show(request, found["environmentId"], "settings", "confirm", said)
