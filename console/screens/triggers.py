"""The screen with the list of an environment's triggers."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse

from console.asking import ask, ask_if_free
from console.pages import chosen, environment_of, screen, show

# What is wrong comes first.
_HEALTH = ("failing", "late", "paused", "ok", "idle")


@screen
def triggers(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Which triggers are well, which are not, when is each due, and what does it cost?"""
    environment = environment_of(request, environment_id)
    query = chosen(request, "health", "enabled", "name")
    page = ask(request, "GET", f"environments/{environment_id}/triggers", query=query).data
    costs = _costs_this_month(request, environment_id)
    for each in page["items"]:
        each["cost"] = costs.get(each["id"])
    page["items"].sort(key=lambda each: _HEALTH.index(each["health"]))
    context = {
        "triggers": page["items"],
        "filters": query,
        "healths": _HEALTH,
    }
    return show(request, environment, "triggers", "triggers", context, page)


def _costs_this_month(request: HttpRequest, environment_id: UUID) -> dict[str, str]:
    """Returns what each trigger has cost this month, by its id. It is empty while the API is too busy to sum it up."""
    query = {"groupBy": "trigger", "period": "month"}
    stats = ask_if_free(request, "GET", f"environments/{environment_id}/stats", query=query)
    return {each["key"]: each["costUsd"] for each in stats.get("items", ())}
