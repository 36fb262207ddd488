"""The page that finds rows by a part of their name, and the suggestions of a field."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse

from console.asking import Json, Refused, ask, if_there
from console.pages import MENU, screen, see_other, show

# The kinds of rows that the API finds, in the order of the page, with the page of one row and the word for it.
_KINDS = {
    "triggers": ("console:trigger", "Trigger"),
    "workers": ("console:machine", "Machine"),
    "pools": ("console:pool", "Pool"),
    "connections": ("console:connection", "Connection"),
    "runs": ("console:run", "Run"),
}


@screen
def find(request: HttpRequest, environment_id: UUID) -> HttpResponse:
    """Shows the rows, and the pages of the menu, whose names contain the text. With `go` opens the first one."""
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
        """The path of the page that suggests matching names."""
        return reverse(f"console:options-{self.kind}", args=[self.environment_id])

    def name_of(self, row_id: str) -> str:
        """Returns the name of a row, or the id itself if no row has it or several have the name."""
        try:
            UUID(row_id)
        except ValueError:
            return row_id
        row = if_there(self.request, f"{self.kind}/{row_id}")
        name = str(row.get("label") or row.get("name") or row_id)
        with suppress(ValueError):
            return name if self.id_of(name) == row_id else row_id
        return row_id

    def id_of(self, text: str) -> str:
        """Returns the id that was typed, or of the row with this name. Raises ValueError with a message unless exactly
        one row has the name.
        """
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
        """Returns what a field outside a form offers: the rows, or, if they are too many, how to find one."""
        return {"rows": rows} if len(rows) <= MOST_CHOICES else {"options": self.options}

    def sent(self, text: str) -> str:
        """Returns the id for what such a field sent, an id or a name. Raises Refused unless exactly one row has it."""
        try:
            return self.id_of(text)
        except ValueError as error:
            raise Refused(400, {"error": str(error), "code": "validation_error"}) from None


# A longer list is not shown. Its field finds a row by name instead.
MOST_CHOICES = 20


@screen
def options(request: HttpRequest, environment_id: UUID, kind: str) -> HttpResponse:
    """Returns, for htmx, the suggestions of a field with a long list. The field's own value is returned as its name."""
    (text, *_) = [*request.GET.dict().values(), ""]
    rows = searched(request, environment_id, text.strip()).get(kind, [])
    return render(request, "console/options.html", {"names": map(_name_of, rows)})


def searched(request: HttpRequest, environment_id: UUID | str, text: str) -> dict[str, Any]:
    """Returns the rows that the API finds by the text, by their kind."""
    if not text:
        return {}
    path = f"environments/{environment_id}/search"
    return ask(request, "GET", path, query={"q": text[:200]}).data


def _name_of(row: Json) -> str:
    return str(row.get("triggerName") or row["name"])
