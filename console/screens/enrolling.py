"""The screens that add a machine, with a key, a code or a pairing, and that let a command line in.

A machine comes either as one worker, which registers with a `wrk_` key, or as a host, which enrolls with a code or by
pairing. The URL says which: `kind` is `api-keys` or `enrollments`, as in the API. A command line is paired like a host
(RFC 8628; its §5.4 is about phishing).
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
from console.pages import all_of, names_of, problem, screen, see_other, show

_PAYS = Look(
    "How its runs are paid for",
    choices=[("claude_max", "By a Claude subscription"), ("api_key", "By an API key")],
)
_LOOKS = {
    "api-keys": {"name": Look(help="What the machine is to be called.")},
    "enrollments": {
        "label": Look("Name", help="Empty: the machine says what it is called."),
        "authMode": _PAYS,
    },
}


@screen
def add_machine(request: HttpRequest, environment_id: UUID, kind: str) -> HttpResponse:
    """Makes the key of a worker or the code of a host, and shows, this once, the commands that contain it. A POST with
    `revoke` revokes a code instead.
    """
    if code := request.POST.get("revoke"):
        ask(request, "DELETE", f"environments/{environment_id}/enrollments/{code}")
        return see_other(request, request.path)
    looks, is_host = dict(_LOOKS[kind]), kind == "enrollments"
    if pools := names_of(request, environment_id, "pools"):
        looks["poolIds"] = Look("Pools", kind="choices", choices=list(pools.items()))
    form = Form("POST", f"environments/{environment_id}/{kind}", looks)
    prefix = {} if is_host else {"prefix": "wrk"}
    made = form.send(request, more=prefix)
    context: Json = {"kind": kind, "is_host": is_host}
    if made:
        context |= {"lines": _lines(request, made.data), "expires": made.data["expiresAt"]}
        return _show_arrival(request, environment_id, made.data["id"], "awaited", **context)
    if is_host:
        codes = all_of(request, environment_id, kind)
        context["codes"] = [each for each in codes if _state(each, None) == "awaited"]
        context["lines"] = _lines(request, {})
    context["form"] = form
    return show(request, environment_id, "machines", "add_machine", context, status=form.status)


def _lines(request: HttpRequest, made: Json) -> list[str]:
    """Returns the commands to paste on the machine, with the new key or code, or without one for pairing."""
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
    """Shows, for htmx, whether the machine with this key or code has come yet. htmx asks again until it has."""
    listed = {each["id"]: each for each in all_of(request, environment_id, kind)}
    entry = listed.get(str(entry_id))
    # A `pwk_` key is for programs, so no machine comes with it.
    if entry is None or entry.get("prefix", "wrk") != "wrk":
        return problem(request, 404, [])
    worker_id = entry["workerId"]
    worker = ask(request, "GET", f"workers/{worker_id}").data if worker_id else None
    state = _state(entry, worker)
    if request.GET.get("seen") == state and "HX-Request" in request.headers:
        return HttpResponse(status=204)  # htmx leaves the page as it is.
    return _show_arrival(request, environment_id, entry_id, state, kind=kind, machine=worker)


def _state(entry: Json, worker: Json | None) -> str:
    """Returns how far a key or a code was used: `awaited`, `registered`, `arrived`, or `over` if it works no more."""
    if worker:
        # A worker that registered again has been seen before, so only calls after this registration count.
        called = (worker["lastSeenAt"] or "") > entry["consumedAt"]
        return "arrived" if called else "registered"
    is_over = datetime.fromisoformat(entry["expiresAt"]) < datetime.now(UTC)
    return "over" if is_over or entry["revokedAt"] or entry["consumedAt"] else "awaited"


def _show_arrival(
    request: HttpRequest, environment_id: UUID, entry_id: UUID, state: str, **more: Any
) -> HttpResponse:
    path = reverse(f"console:{more['kind']}-arrival", args=[environment_id, entry_id])
    context = {"state": state, "arrival": path, **more}
    return show(request, environment_id, "machines", "arrival", context)


_CODE = Look(
    "Pairing code",
    help="Did somebody send you a link or a code? Then it is theirs, and not yours: go no further.",
)
_NOTHING_WAITS = "Nothing waits with this code. It is shown where you began, on the machine's screen or your own."
_ROLE = Look(
    "What it may do",
    help="At most what you may do yourself. Settings lists the key, and an admin revokes it there.",
    choices=[
        ("viewer", "viewer: look"),
        ("operator", "operator: also run, rerun and cancel"),
        ("admin", "admin: also apply files, and change triggers and settings"),
    ],
)


@screen
def pair(request: HttpRequest) -> HttpResponse:
    """Asks for a pairing's code, and shows what it would let in. A code in the URL is ignored, so that a person who
    follows a stranger's link must still read the code from a machine.
    """
    context: Json = {"account": ask(request, "GET", "auth/me").data["user"]}
    look = Form("POST", "pairings/look", {"userCode": _CODE}, catches={404})
    if (answer := look.send(request)) is None:
        if look.status == 404:
            look.errors = [_NOTHING_WAITS]
        releases = ask(request, "GET", "releases/latest").data
        context |= {"install": releases["pipedaiWorker"]["install"]}
        return _show_pairing(request, look, context)
    found, code, step = answer.data, request.POST["userCode"], request.POST.get("step")
    places = {
        each["id"]: f"{each['workspaceName']} / {each['name']}" for each in found["environments"]
    }
    chosen = {"role": _ROLE} if found["for"] == "command_line" else {"authMode": _PAYS}
    looks = {
        "userCode": Look(kind="hidden"),
        "environmentId": Look(
            "Environment", choices=[("", "Choose one…")] * (len(places) != 1) + [*places.items()]
        ),
        **chosen,
    }
    form = Form("POST", "pairings/approve", looks, values={"userCode": code}, catches={403, 404})
    context |= {"pairing": found, "code": code}
    if step == "deny":
        ask(request, "POST", "pairings/deny", body={"userCode": code})
        context["done"] = "denied"
    elif step == "approve" and form.send(request):
        context |= {"done": "approved", "place": places.get(request.POST["environmentId"])}
    return _show_pairing(request, form, context)


def _show_pairing(request: HttpRequest, form: Form, context: Json) -> HttpResponse:
    return render(request, "console/pair.html", {"form": form, **context}, status=form.status)
