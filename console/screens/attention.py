"""The first screen of an environment, which says what needs somebody, and the list of its incidents."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask, ask_if_free
from console.pages import chosen, environment_of, safe_next, screen, see_other, show

# What did not happen comes first, and then what only somebody would not hear of, and what somebody has seen already.
_QUIET = ("budget_reached", "webhook_dead", "channel_dead", "connection_user_left")
_KINDS = (
    "trigger_failing",
    "trigger_late",
    "worker_offline",
    "pool_offline",
    "webhook_dead",
    "budget_reached",
    "connection_needs_login",
)
# What to do, by the API's reason, or by the kind of an item whose kind says all.
_REMEDIES = {
    "client_fault": "Read what the run said, and correct the trigger: its prompt, its model, or its MCP server."
    " Then rerun it.",
    "infra_fault": "Read what the run said, and look at its machine. Then rerun it.",
    "lease": "Its machine fell silent in the middle. See whether the machine is up, then rerun it.",
    "deadline": "It took longer than it may. Let its runs take longer or ask for less in the prompt, then rerun it.",
    "start_deadline": "No machine took it in time. See which machines are there, then rerun it.",
    "approval_expired": "Decide sooner, or let the trigger’s runs wait longer. Then rerun it.",
    "approval_unreachable": "Its machine did not come back to go on. See whether the machine is up, then rerun it.",
    "had_effects": "See what the run has changed already, before you rerun it.",
    "fired": "See what its run waits for, or how it ended.",
    "skipped_overlap": "The run before it is not over. Cancel that one if it hangs.",
    "skipped_missed": "Run it now.",
    "skipped_no_worker": "Choose a machine or a pool for it, then run it now.",
    "skipped_paused": "Run it now.",
    "pending": "Tell the people who run this service that it decides nothing. Run it yourself meanwhile.",
    "worker_offline": "Start the worker program on this machine, or give its triggers another one.",
    "worker_revoked": "Add this machine anew, or give its triggers another one.",
    "pool_offline": "Start the worker program on a machine of the pool.",
    "pool_empty": "Add a machine to the pool.",
    "budget_reached": "Raise the budget, or wait until its next period begins.",
    "connection_needs_login": "Connect it again. If it has a client secret and no login, give it another one.",
    "connection_failing": "See whether its server is up. The service keeps trying, and its runs go out by themselves.",
    "connection_user_left": "Connect it again as somebody who stays: who left can end it at its server.",
    "webhook_dead": "See whether its receiver works, and correct the webhook’s URL.",
    "approval": "Open it, see what it is to do, and approve or reject it.",
    "nobody_told": "Open it and decide, or tell somebody who may. Then see to it that a channel reaches them.",
    "nobody_may_decide": "Give that role to somebody else, or invite them, before its time is over.",
    "channel_dead": "Nobody hears of anything by this channel. Correct it, then send a test.",
}
# The page about each type of subject.
_PAGES = {
    "trigger": "trigger",
    "worker": "machine",
    "pool": "pool",
    "connection": "connection",
    "channel": "channel",
    "approval": "approval",
}


@screen
def attention(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """What did not happen, since when and why, who was told of it, and what is to be done?"""
    environment = environment_of(request, environment_id)
    path = f"environments/{environment_id}"
    found = ask(request, "GET", f"{path}/attention").data
    for each in found["items"]:
        each["quiet"] = each["acknowledgedAt"] is not None or each["kind"] in _QUIET
        each["page"] = _page_of(each["subject"], environment_id)
        each["remedy"] = _REMEDIES.get(
            each["reason"] or each["kind"], "See how its last runs ended."
        )
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
        each["page"] = _page_of(each["subject"], environment_id)
    context = {
        "incidents": page["items"],
        "statuses": ("open", "closed"),
        "kinds": _KINDS,
        "filters": query,
    }
    return show(request, environment, "attention", "incidents", context, page)


@screen
def acknowledge(request: HttpRequest, incident_id: UUID) -> HttpResponse:
    """Notes that somebody has seen the incident, and goes back to the page that the form names."""
    if request.method == "POST":
        ask(request, "POST", f"incidents/{incident_id}/acknowledge")
    return see_other(request, safe_next(request))


def _page_of(subject: Json, environment_id: UUID) -> str:
    if subject["type"] == "budget":
        return reverse("console:money", args=[environment_id])
    return reverse(f"console:{_PAGES[subject['type']]}", args=[subject["id"]])
