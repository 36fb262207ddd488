"""Does what a button says to the chosen rows of a list, and asks before it does what can't be undone. If the API
refuses one row, the others are changed all the same.
"""

from dataclasses import dataclass
from uuid import UUID, uuid4

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, ask, role_of
from console.pages import screen, see_other, show


@dataclass(frozen=True)
class _Question:
    """The question that is asked before rows are changed."""

    title: str
    text: str
    button: str


# The buttons of each list, which are actions of the API, with the question for those that need one.
_ACTIONS: dict[str, dict[str, _Question | None]] = {
    "triggers": {
        "pause": None,
        "resume": None,
        "delete": _Question(
            "Delete {} triggers?",
            "They do not run any more, and can't be brought back. Their runs stay listed.",
            "Delete them",
        ),
    },
    "runs": {
        "rerun": _Question(
            "Rerun {} runs?",
            "What they may have changed outside, the new ones may change once more.",
            "Rerun them",
        ),
        "cancel": _Question(
            "Cancel {} runs?",
            "What is queued never begins. Machines stop the others as soon as they hear of that, and what their tools"
            " have changed stays.",
            "Cancel them",
        ),
    },
}
# A page of a list has this many rows.
_MOST = 50


@screen
def change_several(request: HttpRequest, environment_id: UUID, kind: str) -> HttpResponse:
    """Does what the button `do` says to each row `id`. The question's own form says that it was answered."""
    back, action = reverse(f"console:{kind}", args=[environment_id]), request.POST.get("do", "")
    ids = list(dict.fromkeys(request.POST.getlist("id")))[:_MOST]
    if request.method != "POST" or action not in _ACTIONS[kind] or not ids:
        return see_other(request, back)
    path, key = f"environments/{environment_id}/{kind}/bulk", request.POST.get("key", "")
    said: Json = {"ids": ids, "do": action, "back": back, "keep": "Leave them"}
    if (asked := _ACTIONS[kind][action]) and not key:
        said |= {"title": asked.title.format(len(ids)), "text": asked.text, "button": asked.button}
        said["key"] = uuid4()
        needs = role_of("POST", path)
        return show(request, environment_id, kind, "several", said, needs=needs)
    items = ask(request, "POST", path, body={"ids": ids, "action": action}, key=key).data["items"]
    if not (refused := {each["error"] for each in items if not each["done"]}):
        return see_other(request, back)
    done = sum(each["done"] for each in items)
    said |= {"title": f"{done} of {len(ids)} done", "problems": sorted(refused), "ids": []}
    return show(request, environment_id, kind, "several", said, status=409)
