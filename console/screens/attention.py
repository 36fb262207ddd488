"""The first screen of an environment, which says what needs somebody, its incidents, and the calls to decide about."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask, ask_if_free, words_of
from console.charts import Day, Part, by_day, by_hour, spark
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

# What is pending elsewhere is on its way. A call that is pending waits for somebody.
_UNDECIDED = {"pending": "undecided"}
# What the chart of an hour's runs has: those that wait now stand in the last one.
_ENDED = {"good": "Succeeded", "bad": "Failed", "late": "Timed out", "open": "Not ended"}
# So many days of cost the first screen shows.
_DAYS = 14


@screen
def attention(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """What did not happen, since when and why, who was told of it, and what is to be done?"""
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
    """Returns what the last 24 hours and the last 14 days looked like. The API may be too busy to add them up."""
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
        context["since"] = f"{datetime.fromisoformat(hours['from']):%FT%H:%MZ}"
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
    """What was wrong, from when until when, and who was told of it?"""
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
    """Notes that somebody has seen the incident, and goes back to the page that the form names."""
    if request.method == "POST":
        ask(request, "POST", f"incidents/{incident_id}/acknowledge")
    return see_other(request, safe_next(request))


@screen
def approvals(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """What do runs ask for, and what was decided before?"""
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
    """May the run make this call? A POST decides. What is shown comes from the API as text, just as it will be done."""
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
