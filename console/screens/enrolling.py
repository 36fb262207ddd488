"""The screens by which a machine is added: a key or a code, the lines to paste there, and the page that shows it come.

A machine comes either as one worker, which registers with a `wrk_` key, or as a host, which enrolls with a code.
"""

import shlex
from datetime import UTC, datetime
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import environment_of, problem, screen, see_other
from console.screens.machines import MOST, pools_of


@screen
def new(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Makes the key of one worker."""
    looks = {"name": Look(help="What the machine is to be called.")}
    form = _form(request, environment_id, "api-keys", looks)
    answer = form.send(request, more={"prefix": "wrk"}) if request.method == "POST" else None
    if answer is None:
        return _show(request, environment_id, form, "console/add_machine.html")
    install = _releases(request)["pipedaiWorker"]["install"]
    token, label = answer.data["token"], shlex.quote(answer.data["name"])
    register = f"pipedai-worker register --api-url {settings.PUBLIC_URL} --label {label}"
    lines = [install, f"PIPEDAI_REGISTRATION_TOKEN={token} {register}", "pipedai-worker run"]
    hint = (
        "If an API key pays for Claude there, add --auth-mode api_key to the second line. The last "
        "line works until you stop it; docs/hosts.md shows how to make it a service of the machine."
    )
    return _paste(request, environment_id, "api-keys", answer.data, lines, hint=hint)


@screen
def new_host(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Makes the code of a host, and lists the codes that nobody has redeemed yet."""
    payments = [("claude_max", "By a Claude subscription"), ("api_key", "By an Anthropic API key")]
    looks = {
        "label": Look("Name", help="Empty: the host says what it is called."),
        "authMode": Look("How its runs are paid for", choices=payments),
    }
    path = f"environments/{environment_id}/enrollments"
    form = _form(request, environment_id, "enrollments", looks)
    answer = form.send(request) if request.method == "POST" else None
    releases = _releases(request)
    connect = f"pipedai-orchestrator connect --api-url {settings.PUBLIC_URL}"
    lines = [
        f"npm install --global @pipedai/orchestrator@{releases['pipedaiOrchestrator']['latest']}",
        releases["pipedaiWorker"]["install"],
    ]
    if answer is None:
        issued = ask(request, "GET", path, query={"limit": MOST}).data["items"]
        context = {
            "codes": [
                each
                for each in issued
                if not each["consumedAt"] and _state(each, None) == "waiting"
            ]
        }
        context["lines"] = [*lines, connect]
        return _show(request, environment_id, form, "console/add_host.html", **context)
    lines.append(f"{connect} <<< {answer.data['code']}")
    return _paste(request, environment_id, "enrollments", answer.data, lines)


@screen
def revoke_code(request: HttpRequest, environment_id: UUID, entry_id: UUID) -> HttpResponse:
    if request.method == "POST":
        ask(request, "DELETE", f"environments/{environment_id}/enrollments/{entry_id}")
    return see_other(request, reverse("console:add-host", args=[environment_id]))


@screen
def arrival(request: HttpRequest, environment_id: UUID, entry_id: UUID, kind: str) -> HttpResponse:
    """Has the machine come that was given this key or code? htmx asks again and again, and says what it has seen."""
    path = f"environments/{environment_id}/{kind}"
    listed = ask(request, "GET", path, query={"limit": MOST}).data["items"]
    entry = next((each for each in listed if each["id"] == str(entry_id)), None)
    if entry is None:
        return problem(request, 404, [])
    worker_id = entry["workerId"]
    worker = ask(request, "GET", f"workers/{worker_id}").data if worker_id else None
    state = _state(entry, worker)
    if request.GET.get("seen") == state and "HX-Request" in request.headers:
        return HttpResponse(status=204)  # htmx leaves the page as it is.
    context = {
        "environment": environment_of(request, environment_id),
        "menu": "machines",
        "state": state,
        "machine": worker,
        "arrival": reverse(f"console:{kind}-arrival", args=[environment_id, entry_id]),
    }
    return render(request, "console/arrival.html", context)


def _state(entry: Json, worker: Json | None) -> str:
    """Returns how far a key or a code has led: `waiting`, `registered`, `arrived`, or `over` if it leads nowhere."""
    if worker:
        # A worker that has registered again was seen before.
        called = (worker["lastSeenAt"] or "") > entry["consumedAt"]
        return "arrived" if called else "registered"
    is_over = datetime.fromisoformat(entry["expiresAt"]) < datetime.now(UTC)
    return "over" if entry["revokedAt"] or is_over else "waiting"


def _form(request: HttpRequest, environment_id: UUID, kind: str, looks: dict[str, Look]) -> Form:
    pools = [(each["id"], each["name"]) for each in pools_of(request, environment_id)]
    if pools:
        looks["poolIds"] = Look("Pools", kind="choices", choices=pools)
    return Form("POST", f"environments/{environment_id}/{kind}", looks)


def _releases(request: HttpRequest) -> Json:
    return ask(request, "GET", "releases/latest").data


def _show(
    request: HttpRequest, environment_id: UUID, form: Form, template: str, **more: object
) -> HttpResponse:
    environment = environment_of(request, environment_id)
    context = {"environment": environment, "menu": "machines", "form": form, **more}
    return render(request, template, context, status=form.status)


def _paste(
    request: HttpRequest,
    environment_id: UUID,
    kind: str,
    entry: Json,
    lines: list[str],
    hint: str = "",
) -> HttpResponse:
    """Shows the lines to paste, with the secret in them, this once."""
    context = {
        "environment": environment_of(request, environment_id),
        "menu": "machines",
        "lines": lines,
        "hint": hint,
        "expires": entry["expiresAt"],
        "state": "waiting",
        "arrival": reverse(f"console:{kind}-arrival", args=[environment_id, entry["id"]]),
    }
    return render(request, "console/paste.html", context)
