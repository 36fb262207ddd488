"""The page that finds what somebody types a part of, and what a field offers as they type."""

from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, ask
from console.pages import MENU, screen, show

# What the API finds, in the order of the page, with the page of one and what it is called.
_KINDS = {
    "triggers": ("console:trigger", "Trigger"),
    "workers": ("console:machine", "Machine"),
    "pools": ("console:pool", "Pool"),
    "connections": ("console:connection", "Connection"),
    "runs": ("console:run", "Run"),
}


@screen
def find(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Where is it? Also the pages of the menu are found by a part of their names."""
    text = request.GET.get("q", "").strip()
    found = [
        {"name": name.capitalize(), "kind": "Page", "page": reverse(f"console:{name}", args=[environment_id])}
        for name in MENU
        if text.lower() in name
    ]  # fmt: skip
    for kind, rows in searched(request, environment_id, text).items():
        page, said = _KINDS[kind]
        found += [
            {"name": _name_of(each), "kind": said, "page": reverse(page, args=[each["id"]]), **each}
            for each in rows
        ]
    context: Json = {"found": found, "q": text}
    return show(request, environment_id, "", "find", context)


@screen
def options(request: HttpRequest, environment_id: UUID, kind: str) -> HttpResponse:
    """What a field offers whose list is too long for the page, for htmx. The field's own value comes as its name."""
    (text, *_) = [*request.GET.dict().values(), ""]
    rows = searched(request, environment_id, text.strip()).get(kind, [])
    return render(request, "console/options.html", {"names": map(_name_of, rows)})


def searched(request: HttpRequest, environment_id: UUID | str, text: str) -> dict[str, Any]:
    """Returns what the API finds by the text, by its kind."""
    if not text:
        return {}
    path = f"environments/{environment_id}/search"
    return ask(request, "GET", path, query={"q": text[:200]}).data


def _name_of(row: Json) -> str:
    return str(row.get("triggerName") or row["name"])
