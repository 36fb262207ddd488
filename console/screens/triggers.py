"""The screens of triggers: their list, and each one with its due times and runs."""

from datetime import UTC, datetime
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from console.asking import Refused, ask
from console.pages import chosen, environment_of, older, screen

_HEALTH = ("failing", "late", "ok", "paused", "idle")


@screen
def triggers(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Which triggers are well, which are not, when is each due, and what does it cost?"""
    environment = environment_of(request, environment_id)
    query = chosen(request, "health", "enabled", "name")
    page = ask(request, "GET", f"environments/{environment_id}/triggers", query=query).data
    costs = _costs_this_month(request, environment_id)
    for each in page["items"]:
        each["cost"] = costs.get(each["id"])
    # What is wrong comes first, and else the API's order stays.
    page["items"].sort(key=lambda each: _HEALTH.index(each["health"]))
    context = {
        "environment": environment,
        "menu": "triggers",
        "triggers": page["items"],
        "filters": query,
        "healths": _HEALTH,
        "older": older(request, page),
    }
    return render(request, "console/triggers.html", context)


def _costs_this_month(request: HttpRequest, environment_id: UUID) -> dict[str, str]:
    """Returns what each trigger has cost this month, by its id. It is empty while the API is too busy to sum it up."""
    since = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    query = {"groupBy": "trigger", "from": since.isoformat()}
    try:
        stats = ask(request, "GET", f"environments/{environment_id}/stats", query=query).data
    except Refused as refused:
        if refused.status not in {429, 503}:
            raise
        return {}
    return {each["key"]: each["costUsd"] for each in stats["items"]}
