"""The screens by which a machine is added: a key or a code, the lines to paste there, and the page that shows it come.

A machine comes either as one worker, which registers with a `wrk_` key, or as a host, which enrolls with a code. The
URL says which: `kind` is `api-keys` or `enrollments`, as in the API.
"""

import shlex
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, ask
from console.forms import Form, Look
from console.pages import environment_of, problem, screen, see_other
from console.screens.machines import all_of
from console.screens.pairing import PAYS

_LOOKS = {
    "api-keys": {"name": Look(help="What the machine is to be called.")},
    "enrollments": {
        "label": Look("Name", help="Empty: the host says what it is called."),
        "authMode": PAYS,
    },
}


@screen
def new(request: HttpRequest, environment_id: UUID, kind: str) -> HttpResponse:
    """Makes the key of a worker, or the code of a host, and shows this once the lines that it is in. A POST with
    `revoke` revokes a code instead.
    """
    if code := request.POST.get("revoke"):
        ask(request, "DELETE", f"environments/{environment_id}/enrollments/{code}")
        return see_other(request, request.path)
    looks, is_host = dict(_LOOKS[kind]), kind == "enrollments"
    if pools := all_of(request, environment_id, "pools"):
        choices = [(each["id"], each["name"]) for each in pools]
        looks["poolIds"] = Look("Pools", kind="choices", choices=choices)
    form = Form("POST", f"environments/{environment_id}/{kind}", looks)
    prefix = {} if is_host else {"prefix": "wrk"}
    made = form.send(request, more=prefix) if request.method == "POST" else None
    context: Json = {"kind": kind, "is_host": is_host}
    if made:
        context |= {"lines": _lines(request, made.data), "expires": made.data["expiresAt"]}
        return _show(request, environment_id, made.data["id"], "awaited", **context)
    if is_host:
        codes = all_of(request, environment_id, kind)
        context["codes"] = [each for each in codes if _state(each, None) == "awaited"]
        context["lines"] = _lines(request, {})
    context |= {"environment": environment_of(request, environment_id), "menu": "machines"}
    context["form"] = form
    return render(request, "console/add_machine.html", context, status=form.status)


def _lines(request: HttpRequest, made: Json) -> list[str]:
    """Returns what to paste on the machine: with a new key or code, or without one, for pairing."""
    releases = ask(request, "GET", "releases/latest").data
    install, at = releases["pipedaiWorker"]["install"], f"--api-url {settings.PUBLIC_URL}"
    if "token" in made:
        register = f"pipedai-worker register {at} --label {shlex.quote(made['name'])}"
        token = f"PIPEDAI_REGISTRATION_TOKEN={made['token']}"
        return [install, f"{token} {register}", "pipedai-worker run"]
    orchestrator = f"@pipedai/orchestrator@{releases['pipedaiOrchestrator']['latest']}"
    connect = f"pipedai-orchestrator connect {at}"
    code = f" <<< {made['code']}" if made else ""
    return [f"npm install --global {orchestrator}", install, connect + code]


@screen
def arrival(request: HttpRequest, environment_id: UUID, entry_id: UUID, kind: str) -> HttpResponse:
    """Has the machine come that was given this key or code? htmx asks again and again, and says what it has seen."""
    listed = {each["id"]: each for each in all_of(request, environment_id, kind)}
    entry = listed.get(str(entry_id))
    # A key for programs brings no machine.
    if entry is None or entry.get("prefix", "wrk") != "wrk":
        return problem(request, 404, [])
    worker_id = entry["workerId"]
    worker = ask(request, "GET", f"workers/{worker_id}").data if worker_id else None
    state = _state(entry, worker)
    if request.GET.get("seen") == state and "HX-Request" in request.headers:
        return HttpResponse(status=204)  # htmx leaves the page as it is.
    return _show(request, environment_id, entry_id, state, kind=kind, machine=worker)


def _state(entry: Json, worker: Json | None) -> str:
    """Returns how far a key or a code has led: `waiting`, `registered`, `arrived`, or `over` if it leads nowhere."""
    if worker:
        # A worker that has registered again was seen before.
        called = (worker["lastSeenAt"] or "") > entry["consumedAt"]
        return "arrived" if called else "registered"
    is_over = datetime.fromisoformat(entry["expiresAt"]) < datetime.now(UTC)
    return "over" if is_over or entry["revokedAt"] or entry["consumedAt"] else "awaited"


def _show(
    request: HttpRequest, environment_id: UUID, entry_id: UUID, state: str, **more: Any
) -> HttpResponse:
    path = reverse(f"console:{more['kind']}-arrival", args=[environment_id, entry_id])
    environment = environment_of(request, environment_id)
    context = {"environment": environment, "menu": "machines", "state": state, "arrival": path}
    return render(request, "console/arrival.html", {**context, **more})
