"""Does to the rows of a list that somebody has chosen what a button says, one after another, and asks before what can't
be undone. What is refused of one leaves the others as they are.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4, uuid5

from django.http import HttpRequest, HttpResponse
from django.urls import reverse

from console.asking import Json, Refused, ask, role_of
from console.pages import screen, see_other, show


@dataclass(frozen=True, kw_only=True)
class _Act:
    """What a button does to each row: the call of the API, and the question before it, if it needs one."""

    method: str
    path: str
    body: Json | None = None
    title: str = ""
    text: str = ""
    button: str = ""


_ACTS = {
    "triggers": {
        "pause": _Act(method="PATCH", path="triggers/{}", body={"enabled": False}),
        "resume": _Act(method="PATCH", path="triggers/{}", body={"enabled": True}),
        "delete": _Act(
            method="DELETE",
            path="triggers/{}",
            title="Delete {} triggers?",
            text="They do not run any more, and can't be brought back. Their runs stay listed.",
            button="Delete them",
        ),
    },
    "runs": {
        "rerun": _Act(
            method="POST",
            path="runs/{}/rerun",
            title="Rerun {} runs?",
            text="What they may have changed outside, the new ones may change once more.",
            button="Rerun them",
        )
    },
}
# A page of a list has so many rows.
_MOST = 50


@screen
def change_several(request: HttpRequest, environment_id: UUID, kind: str) -> HttpResponse:
    """Does what the button `do` says to each `id`. The question's own form says that it was answered."""
    back = reverse(f"console:{kind}", args=[environment_id])
    act = _ACTS[kind].get(request.POST.get("do", ""))
    ids = list(dict.fromkeys(request.POST.getlist("id")))[:_MOST]
    if request.method != "POST" or act is None or not ids:
        return see_other(request, back)
    said: Json = {"ids": ids, "do": request.POST["do"], "back": back, "keep": "Leave them"}
    key = request.POST.get("key", "")
    if act.title and not key:
        said |= {"title": act.title.format(len(ids)), "text": act.text, "button": act.button}
        needs = role_of(act.method, act.path.format(ids[0]))
        said["key"] = uuid4()
        return show(request, environment_id, kind, "several", said, needs=needs)
    refused = []
    for each in ids:
        more: dict[str, Any] = {"key": str(uuid5(UUID(key), each))} if act.method == "POST" else {}
        try:
            ask(request, act.method, act.path.format(each), body=act.body, **more)
        except Refused as error:
            if error.status not in {404, 409, 429, 503}:
                raise
            refused += error.sentences
    if not refused:
        return see_other(request, back)
    done = len(ids) - len(refused)
    said |= {"title": f"{done} of {len(ids)} done", "problems": sorted(set(refused)), "ids": []}
    return show(request, environment_id, kind, "several", said, status=409)
