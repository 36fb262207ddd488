"""The screens of a trigger's past: its revisions with what each changed, and restoring one."""

import json
from difflib import unified_diff
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask
from console.pages import chosen, screen, see_other, show

_ON_A_PAGE = 20
# How many lines of a difference a page shows, and around each change how many that are the same.
_MOST_LINES, _CONTEXT = 60, 2
# Comparing takes more than the square of the lines that differ. Above so many, the old ones stand before the new ones.
_MOST_COMPARED = 200

Lines = list[tuple[str, str]]


@screen
def revisions(request: HttpRequest, trigger_id: UUID) -> HttpResponse:
    """What did the trigger ask for before, and who changed it?"""
    trigger = ask(request, "GET", f"triggers/{trigger_id}").data
    page = _page(request, trigger_id)
    items = page["items"]
    before = [*items[1:], None]
    if page["nextCursor"]:
        # What the last one changed is told by the first one of the next page.
        query = {"cursor": page["nextCursor"], "limit": 1}
        path = f"triggers/{trigger_id}/revisions"
        before[-1] = next(iter(ask(request, "GET", path, query=query).data["items"]), None)
    for each, former in zip(items, before, strict=True):
        each["changes"] = _changes(former or {}, each)
    context = {
        "trigger": trigger,
        "revisions": items,
        "cursor": request.GET.get("cursor", ""),
    }
    return show(request, trigger["environmentId"], "triggers", "revisions", context, page)


@screen
def restore(request: HttpRequest, trigger_id: UUID, revision_id: UUID) -> HttpResponse:
    """Asks whether to restore a revision, with what that changes, and does it on a POST."""
    if request.method == "POST":
        ask(request, "POST", f"triggers/{trigger_id}/revisions/{revision_id}/restore", body={})
        return see_other(request, reverse("console:trigger", args=[trigger_id]))
    trigger = ask(request, "GET", f"triggers/{trigger_id}").data
    # The link to this page names the page of the list that has the revision.
    items = _page(request, trigger_id)["items"]
    found = next((each for each in items if each["id"] == str(revision_id)), None)
    if found is None:
        raise Refused(404, {"error": "There is no such revision.", "code": "not_found"})
    context = {
        "title": f"Restore this revision of {trigger['name']}?",
        "text": "Runs from now on have its prompt, its model and its output schema. All else of the trigger stays.",
        "button": "Restore it",
        "keep": "Keep the present one",
        "back": reverse("console:revisions", args=[trigger_id]),
        "changes": _changes(trigger, found),
    }
    return show(request, trigger["environmentId"], "triggers", "restore", context)


def _page(request: HttpRequest, trigger_id: UUID) -> Json:
    query = {**chosen(request), "limit": _ON_A_PAGE}
    return ask(request, "GET", f"triggers/{trigger_id}/revisions", query=query).data


def _changes(old: Json, new: Json) -> list[Json]:
    """Returns what differs between two versions: of each field its name, and its lines with `+`, `-` or a space."""
    found = []
    for field, name in (
        ("prompt", "Prompt"),
        ("model", "Model"),
        ("outputSchema", "Output schema"),
    ):
        before, after = _lines_of(old.get(field)), _lines_of(new.get(field))
        if before != after:
            lines = _compared(before, after)
            found.append(
                {"name": name, "lines": lines[:_MOST_LINES], "more": len(lines) - _MOST_LINES}
            )
    return found


def _lines_of(value: Json | str | None) -> list[str]:
    if value is None:
        return []
    return (value if isinstance(value, str) else json.dumps(value, indent=2)).split("\n")


def _compared(old: list[str], new: list[str]) -> Lines:
    """Returns the lines that were removed and added, with some around them."""
    shared = min(len(old), len(new))
    start = next((n for n in range(shared) if old[n] != new[n]), shared)
    most = shared - start
    end = next((n for n in range(most) if old[-1 - n] != new[-1 - n]), most)
    was, now = old[start : len(old) - end], new[start : len(new) - end]
    if max(len(was), len(now)) > _MOST_COMPARED:
        return [*(("-", line) for line in was), *(("+", line) for line in now)]
    before, after = old[max(start - _CONTEXT, 0) : start], old[len(old) - end :][:_CONTEXT]
    found = unified_diff([*before, *was, *after], [*before, *now, *after], n=_CONTEXT, lineterm="")
    # The first three lines are headings, and the other headings stand where lines are left out.
    return [(" ", "…") if line.startswith("@@") else (line[0], line[1:]) for line in [*found][3:]]
