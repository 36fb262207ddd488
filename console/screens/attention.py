"""The first screen of an environment, which says what needs somebody, and the list of its incidents."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.http import HttpRequest, HttpResponse

from console.asking import ask, ask_if_free, words_of
from console.pages import chosen, environment_of, safe_next, screen, see_other, show
from console.screens.run_words import page_of
from notices.states import NEEDS
from triggers.reasons import without_calls


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
    since = datetime.now(UTC) - timedelta(days=1)
    query = {"groupBy": "trigger", "from": since.isoformat()}
    context = {
        "items": sorted(found["items"], key=lambda each: each["quiet"]),
        "total": found["total"],
        "figures": ask(request, "GET", f"{path}/dashboard/overview").data,
        # The sums of the last day are left out while the API is too busy for them.
        "night": ask_if_free(request, "GET", f"{path}/stats", query=query).get("total"),
        "since": f"{since:%FT%H:%MZ}",
    }
    return show(request, environment, "attention", "attention", context)


@screen
def incidents(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """What was wrong, from when until when, and who was told of it?"""
    environment = environment_of(request, environment_id)
    query = chosen(request, "status", "kind", "triggerId")
    path = f"environments/{environment_id}/incidents"
    page = ask(request, "GET", path, query={**query, "limit": 25}).data
    for each in page["items"]:
        each["page"], _ = page_of(each["subject"], environment_id)
    context = {
        "incidents": page["items"],
        "statuses": ("open", "closed"),
        "kinds": words_of(path, "kind"),
        "filters": query,
    }
    return show(request, environment, "attention", "incidents", context, page)


@screen
def acknowledge(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    """Notes that somebody has seen the incident, and goes back to the page that the form names."""
    if request.method == "POST":
        ask(request, "POST", f"incidents/{incident_id}/acknowledge")
    return see_other(request, safe_next(request))
