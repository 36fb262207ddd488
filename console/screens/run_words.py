"""Says in a person's words why a run waits or how it ended, and what to do about it, from the API's explanation."""

from dataclasses import dataclass

from console.asking import Json
from triggers.reasons import ENDS, Why, end_code, without_calls


@dataclass(frozen=True)
class Said:
    """A sentence, what to do about it, and the page on which that is done: its path, and what its link says."""

    sentence: str
    remedy: str = ""
    path: str = ""
    link: str = ""


# The pages on which something is done, and what their links say: by the type of the subject, and by the pages of ENDS.
_PAGES = {
    "trigger": ("triggers/{id}", "Open the trigger"),
    "worker": ("machines/{id}", "Open the machine"),
    "pool": ("pools/{id}", "Open the pool"),
    "connection": ("connections/{id}", "Open the connection"),
    "channel": ("channels/{id}", "Open the channel"),
    "approval": ("approvals/{id}", "Open the call"),
    "budget": ("environments/{environment}/money", "Open Money"),
    "environment": ("environments/{environment}/settings", "Open Settings"),
    "machines": ("environments/{environment}/machines", "Open Machines"),
    "approvals": ("environments/{environment}/approvals", "Open Approvals"),
}


def page_of(subject: Json, environment_id: object) -> tuple[str, str]:
    """Returns the path of the page about a subject, by its `type` and `id`, and what a link to it says. Both are empty
    if there is none.
    """
    path, link = _PAGES.get(subject["type"], ("", ""))
    return path and f"/console/{path.format(id=subject['id'], environment=environment_id)}", link


def what_is_with(run: Json, explained: Json) -> list[Said]:
    """Returns what a run waits for, first what somebody must act on; who executes it; or whose fault its end was.
    Without an explanation, which the API may be too busy for, less is said.
    """
    if run["status"] in {"succeeded", "failed", "timed_out"}:
        by = (explained.get("ended") or {}).get("by")
        why = ENDS.get(end_code(by, run["faultClass"]) or "", Why(""))
        sentence = why.because and f"{why.because[0].upper()}{why.because[1:]}."
        page = page_of({"type": why.page, "id": run["triggerId"]}, run["environmentId"])
        return [Said(sentence, without_calls(why.remedy), *page)]
    told = []
    for each in explained.get("waitingFor", ()):
        subject, page = each["subject"], ("", "")
        if each["remedy"] and subject:
            page = page_of(subject, run["environmentId"])
        told.append(Said(each["message"], without_calls(each["remedy"] or ""), *page))
    return told or [Said(explained.get("summary", ""))]


def whether_retried(explained: Json) -> str:
    """Returns whether a run that failed is tried again. A retry that waits has a link and its due time instead."""
    retry = explained.get("retry") or {}
    is_told = retry.get("decision") == "due" or retry.get("code") in {"succeeded", "canceled"}
    return "" if is_told else str(retry.get("message", ""))
