"""The page that finds what somebody types a part of, and what a field offers as they type."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, Refused, ask, if_there
from console.pages import MENU, screen, see_other, show

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
    """Where is it? Also the pages of the menu are found by a part of their names. With `go` the first one is opened."""
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
    if text and found and "go" in request.GET:
        return see_other(request, found[0]["page"])
    context: Json = {"found": found, "q": text}
    return show(request, environment_id, "", "find", context)


@dataclass(frozen=True)
class Named:
    """Finds a row of the environment by its name, for a form or a filter. `kind` is its path in the API."""

    request: HttpRequest
    environment_id: UUID | str
    kind: str

    @property
    def options(self) -> str:
        return reverse(f"console:options-{self.kind}", args=[self.environment_id])

    def name_of(self, row_id: str) -> str:
        try:
            UUID(row_id)
        except ValueError:
            return row_id
        row = if_there(self.request, f"{self.kind}/{row_id}")
        name = str(row.get("label") or row.get("name") or row_id)
        # Where several are called so, only the id says which one is meant.
        with suppress(ValueError):
            return name if self.id_of(name) == row_id else row_id
        return row_id

    def id_of(self, text: str) -> str:
        with suppress(ValueError):
            return str(UUID(text))
        rows = searched(self.request, self.environment_id, text).get(self.kind, [])
        ids = [str(each["id"]) for each in rows if each["name"] == text]
        if len(ids) == 1:
            return ids[0]
        raise ValueError(
            "Several have this name: type the id of one." if ids else "Nothing has this name."
        )

    def among(self, rows: list[Json]) -> Json:
        """Returns what a field without a form offers: the rows, or, if they are many, how one is found."""
        return {"rows": rows} if len(rows) <= MOST_CHOICES else {"options": self.options}

    def sent(self, text: str) -> str:
        """Returns the id that such a field sent, as itself or as a name. Raises Refused unless one row has it."""
        try:
            return self.id_of(text)
        except ValueError as error:
            raise Refused(400, {"error": str(error), "code": "validation_error"}) from None


# A longer list is not shown whole: its field finds one by name.
MOST_CHOICES = 20


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
