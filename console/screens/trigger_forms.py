"""The forms that make and change a trigger, in sections, with a preview of its due times."""

from dataclasses import dataclass
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from console.asking import Json, Refused, ask_if_free
from console.forms import Form, Look, clauses
from console.json_rows import Schema, Values
from console.pages import ResourceScreens, all_of, names_of, screen, see_other, show
from console.screens.finding import MOST_CHOICES, Named
from console.templatetags.console import word

# This many future due times are shown.
_TO_COME = 5
# The schedules that most people want, with their names.
_PRESETS = {
    "Every hour": "0 * * * *",
    "Every day at 09:00": "0 9 * * *",
    "Weekdays at 09:00": "0 9 * * mon-fri",
    "Mondays at 09:00": "0 9 * * mon",
    "None": "",
}


@dataclass(frozen=True)
class _Section:
    """A section of the form: its heading, the fields that most people fill in, and the folded ones."""

    name: str
    said: str
    first: tuple[str, ...]
    rare: tuple[str, ...]


# Fields that no section names are folded in the last section.
_SECTIONS = (
    _Section(
        "What",
        "What the agent is to do.",
        ("name", "prompt"),
        ("description", "model", "outputSchema", "key"),
    ),
    _Section(
        "Tools",
        "The server whose tools the agent uses, and the calls that wait for somebody.",
        ("connectionId", "mcpUrl", "mcpHeaders", "approvals"),
        ("allowHostTools", "failOnDenied"),
    ),
    _Section(
        "When",
        "By the clock, by an event, or only when somebody says so.",
        ("schedule", "timezone", "on"),
        ("runOnceAt", "overlapPolicy", "enabled"),
    ),
    _Section(
        "Only when something is new",
        "The machine looks with a tool that only reads, and starts the agent if it tells something new.",
        ("before.tool", "before.arguments", "before.runIf"),
        ("carry",),
    ),
    _Section(
        "Where",
        "The machine that executes its runs.",
        ("workerId", "poolId"),
        ("preferSeconds", "startDeadlineSeconds", "maxConcurrentRuns"),
    ),
    _Section(
        "Limits",
        "What a run may take, and how often it is tried.",
        ("timeoutSeconds", "maxCostUsd", "maxRetries"),
        ("retryMode", "retryAfterEffects"),
    ),
    _Section(
        "Telling",
        "When somebody is told, and what is kept.",
        ("alertAfterFailures", "successDeadlineSeconds", "recordEvents"),
        ("webhookUrl", "webhookSecret"),
    ),
)


def _sections(form: Form) -> list[Json]:
    fields = {each.name: each for each in form.fields}
    named = {name for each in _SECTIONS for name in (*each.first, *each.rare)}
    others = tuple(name for name in fields if name not in named)
    found = []
    for each in _SECTIONS:
        rare = each.rare + (others if each is _SECTIONS[-1] else ())
        first, folded = ([fields[name] for name in names] for names in (each.first, rare))
        about = ", ".join(_small(field.label) for field in folded[:3])
        found.append(
            {
                "name": each.name,
                "said": each.said,
                "first": first,
                "folded": folded,
                "about": about,
                "open": any(field.is_wrong or field.focused for field in folded),
                "wrong": sum(field.is_wrong for field in (*first, *folded)),
            }
        )
    return found


def _small(label: str) -> str:
    return label[0].lower() + label[1:] if label[1:2].islower() else label


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
        "Wait for a decision",
        help="3600 is an hour, 86400 a day. Then the run fails.",
        unit="seconds",
    ),
}


def _heard(request: HttpRequest, row: Json) -> dict[str, Look]:
    """Returns the fields of what the trigger listens to, with the names of sources and triggers."""
    sources = names_of(request, row["environmentId"], "sources")
    return {
        "sourceId": Look("A source", choices=[("", "–"), *sources.items()]),
        "types": Look("Types of its events", help="One a line. Empty: all."),
        "triggerId": Look("Or a trigger", finder=Named(request, row["environmentId"], "triggers")),
        "outcome": Look("When its run has"),
        "where": clauses("Only if"),
        "fields": Look(
            "What the run gets of it",
            help="Names, and the paths of their values. Without any it gets all.",
            kind="headers",
            row="Field",
        ),
        "coalesce.windowSeconds": Look("Join those that come within", unit="seconds"),
        "coalesce.path": Look("And have the same at", help="A path, such as /number."),
        "coalesce.keep": Look(
            "Of these the run gets", choices=[("last", "the last one"), ("all", "all")]
        ),
    }


def _looks(request: HttpRequest, row: Json) -> dict[str, Look]:
    machines, found_pools, found_connections = (
        all_of(request, row["environmentId"], kind) for kind in ("workers", "pools", "connections")
    )
    if "id" not in row and len(machines) == 1 and not found_pools:
        # If there is only one machine, the form of a new trigger proposes it.
        row["workerId"] = machines[0]["id"]
    if source := "id" not in row and request.GET.get("source"):
        row["on"] = [{"sourceId": source}]
    workers = [(each["id"], f"{each['label']} ({each['status']})") for each in machines]
    pools = [(each["id"], each["name"]) for each in found_pools]
    connections = [
        (each["id"], f"{each['name']} ({word(each['status'])})") for each in found_connections
    ]

    def one_of(kind: str, choices: list[tuple[str, str]], label: str, said: str = "") -> Look:
        if len(choices) > MOST_CHOICES:
            return Look(label, said, finder=Named(request, row["environmentId"], kind))
        return Look(label, said, choices=[("", "None"), *choices])

    return {
        "name": Look(),
        "prompt": Look(kind="area"),
        "mcpUrl": Look(
            "URL of the MCP server",
            help="The server whose tools the agent uses. Empty for none, or for that of the connection.",
        ),
        "connectionId": one_of(
            "connections",
            connections,
            "Connection",
            "The credentials for a server that triggers share.",
        ),
        "mcpHeaders": Look(
            "Headers for the MCP server",
            help="They are encrypted, and shown to nobody.",
            kind="headers",
        ),
        "schedule": Look(
            help="Minute, hour, day, month, weekday, as in 0 6 * * mon-fri. Without one it runs only when somebody says"
            " so."
        ),
        "timezone": Look("Time zone", help="Such as Europe/Berlin."),
        "runOnceAt": Look("Once, at (UTC)", help="A single time, with a schedule or without."),
        "workerId": one_of("workers", workers, "Machine"),
        "poolId": one_of("pools", pools, "Pool", "Any machine of it may take a run."),
        "description": Look(kind="area"),
        "model": Look(help="Empty: the machine's own choice."),
        "timeoutSeconds": Look("A run may take", unit="seconds"),
        "maxCostUsd": Look("A run may cost", help="Empty: no limit.", unit="US dollars"),
        "maxRetries": Look("Retries after a fault of the infrastructure", unit="at most"),
        "retryMode": Look(
            "A retry", choices=[("restart", "starts over"), ("resume", "goes on where it was")]
        ),
        "retryAfterEffects": Look("Retry also what may have changed something"),
        "overlapPolicy": Look(
            "Due while a run is unfinished",
            choices=[("queue", "Queue another run"), ("skip", "Skip it")],
        ),
        "maxConcurrentRuns": Look("Runs at once, at most"),
        "preferSeconds": Look("The machine comes before its pool for", unit="seconds"),
        "startDeadlineSeconds": Look("A run must be taken within", unit="seconds"),
        "alertAfterFailures": Look("Failing after", help="Empty: never.", unit="failures in a row"),
        "successDeadlineSeconds": Look(
            "Late if no run succeeded within",
            help="Counted from each due time. Empty: never.",
            unit="seconds",
        ),
        "recordEvents": Look(
            "Record the events of",
            choices=[("failures", "failed runs"), ("always", "all runs"), ("never", "no runs")],
        ),
        "outputSchema": Look(
            "Fields of the output",
            help="What a run hands over besides its words. A JSON Schema 2020-12 is made of them.",
            kind="rows",
            row="Field",
            shape=Schema(),
        ),
        "on": Look(
            "Events that start it",
            help="An event of a source, or the end of another trigger’s run, starts it.",
            kind="rows",
            row="Event",
            looks=_heard(request, row),
        ),
        "approvals": Look(
            "Calls that somebody has to approve",
            help="Without a rule the agent calls its tools by itself.",
            kind="rows",
            row="Rule",
            looks=_RULE,
        ),
        "before.tool": Look(
            "Look with this tool",
            help="As the MCP server names it. If nothing is new, the run ends at once and costs nothing. Empty: the"
            " agent always starts.",
        ),
        "before.arguments": Look(
            "With these arguments",
            help="All members see them.",
            kind="rows",
            row="Argument",
            shape=Values(),
        ),
        "before.runIf": clauses(
            "Start the agent if",
            words=[
                ("changed", "the result differs from the last one"),
                ("", "these conditions hold for it"),
            ],
        ),
        "carry": Look(
            "From the run before, the agent gets",
            choices=[("none", "nothing"), ("output", "the output, if that had something new")],
        ),
        "allowHostTools": Look(
            "With such rules, the machine’s own tools for shell, web and files too"
        ),
        "failOnDenied": Look("A run that was denied a call fails"),
        "webhookUrl": Look(),
        "webhookSecret": Look(autocomplete="new-password", generates="whsec_"),
        "enabled": Look("Active", help="Otherwise the trigger is paused, and does not run."),
    }


class _Triggers(ResourceScreens):
    """The screens of triggers. Their form has sections, and shows the next due times."""

    def answer(self, request: HttpRequest, row: Json, form: Form, said: Json) -> HttpResponse:
        coming = Json()
        if "preview" in request.POST:  # Without JavaScript a button shows the next due times.
            form.read(request)
            coming = _preview(request, row["environmentId"])
        elif answer := form.send(request):
            return see_other(request, self.page_of(answer.data))
        said |= {"form": form, "sections": _sections(form), "coming": coming, "row": row}
        said["presets"] = _PRESETS
        where, needs = row["environmentId"], form.needs
        return show(
            request, where, self.menu, "trigger_form", said, status=form.status, needs=needs
        )


TRIGGERS = _Triggers(
    noun="trigger",
    menu="triggers",
    looks=_looks,
    deleting="It does not run any more, and can't be brought back. Its runs stay listed.",
    listed="console:triggers",
    page="console:trigger",
    complete=True,
)


def coming_times(
    request: HttpRequest,
    environment_id: str,
    schedule: str | None,
    timezone: str,
    once: str | None = None,
) -> Json:
    """Returns a schedule's `description` and its next due times, `runOnceAt` among them. Returns nothing while the API
    works out another preview.
    """
    body = {"schedule": schedule, "timezone": timezone, "runOnceAt": once, "count": _TO_COME}
    path = f"environments/{environment_id}/schedule-preview"
    return ask_if_free(request, "POST", path, body=body, changes=False)


@screen
def schedule_preview(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Returns, for htmx, the part of a form that shows when its trigger is next due."""
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
        coming = coming_times(request, environment_id, schedule or None, zone or "UTC", single)
    except Refused as refused:
        if refused.status != 400:
            raise
        return {"wrong": " ".join(each for said in refused.fields.values() for each in said)}
    return {**coming, "zone": zone or "UTC"}
