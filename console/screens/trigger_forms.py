"""The forms by which a trigger is made and changed, with the next due times of its schedule as somebody types it."""

from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.forms import Form, Look
from console.pages import environment_of, screen, see_other, show
from console.screens.trigger import preview
from console.templatetags.console import word

Choices = list[tuple[str, str]]


# The fields of a rule for approvals.
_RULE = {
    "tools": Look(
        help="One a line, as the MCP server names them, such as send_mail. * is all of them.",
        kind="names",
    ),
    "when": Look(
        "Wait before",
        choices=[
            ("always", "Each call"),
            ("possible_effect", "Calls that may change something, as the server says"),
        ],
    ),
    "approverRole": Look(
        "Who may approve",
        choices=[
            ("operator", "Operators and above"),
            ("admin", "Admins and owners"),
            ("owner", "Owners"),
        ],
    ),
    "notRequester": Look("But not who requested the run or changed the trigger"),
    "expiresAfterSeconds": Look(
        "Wait for a decision, in seconds", help="3600 is an hour, 86400 a day. Then the run fails."
    ),
}


def _looks(workers: Choices, pools: Choices, connections: Choices) -> dict[str, Look]:
    return {
        "name": Look(),
        "prompt": Look(help="What the agent is to do.", kind="area"),
        "mcpUrl": Look(
            "URL of the MCP server",
            help="The server whose tools the agent uses. Empty with a connection, which has its own.",
        ),
        "connectionId": Look(
            "Connection",
            help="The credentials for a server that triggers share.",
            choices=connections,
        ),
        "mcpHeaders": Look(
            "Headers for the MCP server",
            help="One a line, as in Authorization: Bearer … They are sealed, and shown to nobody.",
            kind="headers",
        ),
        "schedule": Look(
            help="Minute, hour, day, month, weekday, as in 0 6 * * mon-fri. Without one it runs when you say."
        ),
        "timezone": Look("Time zone", help="Such as Europe/Berlin."),
        "runOnceAt": Look("Once, at (UTC)", help="A single time, with a schedule or without."),
        "workerId": Look("Machine", choices=workers),
        "poolId": Look("Pool", help="Any machine of it may take a run.", choices=pools),
        "description": Look(),
        "model": Look(help="Empty: the machine's own choice."),
        "timeoutSeconds": Look("A run may take, in seconds"),
        "maxCostUsd": Look("A run may cost, in US dollars"),
        "maxRetries": Look("Retries after a fault of the infrastructure"),
        "retryMode": Look(
            "A retry", choices=[("restart", "begins anew"), ("resume", "goes on where it was")]
        ),
        "retryAfterEffects": Look("Retry also what may have changed something"),
        "overlapPolicy": Look(
            "Due while a run is unfinished",
            choices=[("queue", "Queue another run"), ("skip", "Skip it")],
        ),
        "maxConcurrentRuns": Look("Runs at once, at most"),
        "preferSeconds": Look("Seconds for which the machine comes before its pool"),
        "startDeadlineSeconds": Look("A run must be taken within, in seconds"),
        "alertAfterFailures": Look("Failing after so many failures in a row", help="Empty: never."),
        "successDeadlineSeconds": Look(
            "Late if no run succeeded within, in seconds",
            help="Counted from each due time. Empty: never.",
        ),
        "recordEvents": Look("Show what happens during a run"),
        "outputSchema": Look("Schema of the output", help="A JSON Schema 2020-12.", kind="json"),
        "on": Look(
            "Listens to",
            help="JSON: the sources and triggers whose events start it, as API.md explains under on.",
            kind="json",
        ),
        "approvals": Look(
            "Calls that somebody has to approve",
            help="Without a rule the agent calls its tools by itself.",
            kind="rows",
            row="Rule",
            looks=_RULE,
        ),
        "allowHostTools": Look(
            "With such rules, the machine’s own tools for shell, web and files too"
        ),
        "failOnDenied": Look("A run that was denied a call fails"),
        "webhookUrl": Look(),
        "webhookSecret": Look(autocomplete="new-password"),
        "enabled": Look("Runs when it is due"),
    }


# So many fields come first; the others have good defaults, and are folded.
_FIRST = 10


@screen
def new(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    environment = environment_of(request, environment_id)
    rows = _rows(request, environment)
    # Where there is one machine, it is the one.
    workers, pools = rows[:2]
    usual = {"workerId": workers[1][0]} if (len(workers), len(pools)) == (2, 1) else None
    path = f"environments/{environment_id}/triggers"
    form = Form("POST", path, _looks(*rows), values=usual, complete=True)
    return _answer(request, environment, form, title="New trigger", button="Make the trigger")


@screen
def edit(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    found = ask(request, "GET", f"triggers/{trigger_id}").data
    environment = environment_of(request, found["environmentId"])
    looks = _looks(*_rows(request, environment))
    form = Form("PATCH", f"triggers/{trigger_id}", looks, values=found, complete=True)
    back = reverse("console:trigger", args=[trigger_id])
    title = f"Edit {found['name']}"
    return _answer(request, environment, form, title=title, button="Save", back=back, kept=found)


def _answer(request: HttpRequest, environment: Json, form: Form, **said: object) -> HttpResponse:
    changed, coming = form.changes_rows(request), Json()
    if "preview" in request.POST:  # Without JavaScript a button shows the next due times.
        form.read(request)
        coming = _preview(request, environment["id"])
    elif request.method == "POST" and not changed and (answer := form.send(request)):
        return see_other(request, reverse("console:trigger", args=[answer.data["id"]]))
    context = {
        "form": form,
        "first": form.fields[:_FIRST],
        "others": form.fields[_FIRST:],
        "open": changed or any(each.is_wrong for each in form.fields[_FIRST:]),
        "coming": coming,
        **said,
    }
    return show(request, environment, "triggers", "trigger_form", context, status=form.status)


@screen
def schedule_preview(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """The part of a form that says when its trigger is next due, for htmx."""
    coming = _preview(request, str(environment_id))
    return render(request, "console/coming.html", {"coming": coming})


def _preview(request: HttpRequest, environment_id: str) -> Json:
    """Returns the schedule in words and its next due times, or what is wrong with it."""
    schedule, zone, once = (
        request.POST.get(name, "").strip() for name in ("schedule", "timezone", "runOnceAt")
    )
    if not schedule and not once:
        return {}
    # The browser's field for a time knows no zone; its label says UTC.
    single = f"{once}Z" if once else None
    try:
        coming = preview(request, environment_id, schedule or None, zone or "UTC", single)
    except Refused as refused:
        if refused.status != 400:
            raise
        return {"wrong": " ".join(each for said in refused.fields.values() for each in said)}
    return {**coming, "zone": zone or "UTC"}


def _rows(request: HttpRequest, environment: Json) -> tuple[Choices, Choices, Choices]:
    """Returns the machines and the pools that may run a trigger, and the connections that it may have, as choices."""
    path, query = f"environments/{environment['id']}", {"limit": 200}
    workers = ask(request, "GET", f"{path}/workers", query=query).data["items"]
    pools, connections = (
        ask(request, "GET", f"{path}/{rows}", query=query).data["items"]
        for rows in ("pools", "connections")
    )
    return (
        [
            ("", "None"),
            *(
                (each["id"], f"{each['label'] or each['hostname']} ({each['status']})")
                for each in workers
            ),
        ],
        [("", "None"), *((each["id"], each["name"]) for each in pools)],
        [
            ("", "None"),
            *((each["id"], f"{each['name']} ({word(each['status'])})") for each in connections),
        ],
    )
