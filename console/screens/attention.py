"""The first screen of an environment, which shows its attention items, and the screens of incidents and approvals."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask, ask_if_free, words_of
from console.charts import Day, Part, by_day, by_hour, spark
from console.forms import text_of
from console.pages import (
    Chip,
    chips_of,
    chosen,
    environment_of,
    listed,
    midnight,
    overview_of,
    safe_next,
    screen,
    see_other,
    show,
)
from console.screens.runs import page_of
from console.templatetags.console import word
from notices.states import NEEDS
from triggers.reasons import without_calls

# Other rows that are `pending` will be sent. A pending approval waits for a person, so it has a word of its own.
_UNDECIDED = {"pending": "undecided"}
# The kinds of runs in the chart by hour. The last hour also has those that are still waiting.
_ENDED = {"good": "Succeeded", "bad": "Failed", "late": "Timed out", "open": "Not ended"}
# The first screen shows the cost of this many days.
_DAYS = 14


@screen
def attention(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows what went wrong, since when and why, who was told of it, and what to do."""
    environment = environment_of(request, environment_id)
    path = f"environments/{environment_id}"
    found = ask(request, "GET", f"{path}/attention").data
    for each in found["items"]:
        each["quiet"] = each["acknowledgedAt"] is not None or NEEDS[each["kind"]].is_quiet
        each["page"], _ = page_of(each["subject"], environment_id)
        each["remedy"] = without_calls(each["remedy"]["text"])
    context = {
        "items": sorted(found["items"], key=lambda each: each["quiet"]),
        "total": found["total"],
        "times": found["times"],
        "figures": overview_of(request, environment_id),
        **_pictures(request, path, overview_of(request, environment_id)),
    }
    return show(request, environment, "attention", "attention", context)


def _pictures(request: HttpRequest, path: str, figures: Json) -> Json:
    """Returns the charts of the last 24 hours and the last 14 days, or none if the API is too busy to add them up."""
    now = datetime.now(UTC)
    this_hour = now.replace(minute=0, second=0, microsecond=0)
    first = midnight(now.date() - timedelta(days=_DAYS - 1))
    hours, days = (
        ask_if_free(request, "GET", f"{path}/stats", query={"groupBy": group, "from": since})
        for group, since in (("hour", this_hour - timedelta(hours=23)), ("day", first))
    )
    context: Json = {}
    if hours:
        total = hours["total"]
        context["night"] = {**total, "bad": total["failed"] + total["timedOut"]}
        context["since"] = text_of(hours["from"], "time")
        bad = [each["failed"] + each["timedOut"] for each in hours["items"]]
        context["trends"] = {
            "good": spark([each["succeeded"] for each in hours["items"]]),
            "bad": spark(bad, bad=True),
        }
        if total["runs"]:
            shown: list[Json] = [
                {
                    "key": each["key"],
                    "good": each["succeeded"],
                    "bad": each["failed"],
                    "late": each["timedOut"],
                }
                for each in hours["items"]
            ]
            shown[-1]["open"] = sum(figures.get("waiting", {}).values())
            context["hours"] = by_hour("Runs that ended, by hour and outcome", shown, _ENDED)
    if days and days["total"]["costUsd"] != "0":
        spent = [
            Day(each["key"], {0: Part(Decimal(each["costUsd"]), Decimal(each["notionalUsd"]))})
            for each in days["items"]
        ]
        context |= {"days": by_day(spent), "spent": days["total"], "today": spent[-1].cost}
    return context


@screen
def incidents(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows what was wrong, from when until when, and who was told of it."""
    filters, path = ("status", "kind", "triggerId"), f"environments/{environment_id}/incidents"
    page = listed(request, environment_id, "incidents", *filters, limit=25)
    for each in page["items"]:
        each["page"], _ = page_of(each["subject"], environment_id)
    context = {
        "incidents": page["items"],
        "chips": chips_of(request, _states(("open", "closed")), {}, keeps=True),
        "kinds": words_of(path, "kind"),
        "filters": chosen(request, *filters),
    }
    return show(request, environment_id, "attention", "incidents", context, page)


def _states(names: Iterable[str]) -> list[Chip]:
    """Returns the chips of a list whose rows are in one of these states."""
    return [(word(_UNDECIDED.get(name, name)), {"status": name}, ()) for name in names]


@screen
def acknowledge(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    """Records that somebody has seen the incident, and returns to the page that the form names."""
    if request.method == "POST":
        ask(request, "POST", f"incidents/{incident_id}/acknowledge")
    return see_other(request, safe_next(request))


@screen
def approvals(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows which calls wait for a decision, and what was decided before."""
    page = listed(request, environment_id, "approvals", "status", limit=25)
    statuses = words_of(f"environments/{environment_id}/approvals", "status")
    context = {
        "approvals": [_with_state(each) for each in page["items"]],
        "chips": chips_of(request, _states(statuses), {}),
        "filters": chosen(request, "status"),
    }
    return show(request, environment_id, "approvals", "approvals", context, page)


@screen
def approval(request: HttpRequest, approval_id: UUID) -> HttpResponse:
    """Shows the call of a run, and decides about it on a POST. The call is shown as text, exactly as it will be."""
    errors: list[str] = []
    status, path = 200, f"approvals/{approval_id}"
    if request.method == "POST":
        decision = request.POST.get("decision", "")
        body = {"decision": decision, "reason": request.POST.get("reason", "").strip() or None}
        try:
            ask(request, "POST", f"{path}/decide", body=body)
            return see_other(request, reverse("console:approval", args=[approval_id]))
        except Refused as refused:
            if refused.status not in {400, 403, 409, 429, 503}:
                raise
            errors, status = refused.sentences, refused.status
    found = ask(request, "GET", path).data
    context = {
        "approval": _with_state(found),
        "reason": request.POST.get("reason", ""),
        "errors": errors,
    }
    return show(request, found["environmentId"], "approvals", "approval", context, status=status)


def _with_state(found: Json) -> Json:
    return {**found, "state": _UNDECIDED.get(found["status"], found["status"])}
