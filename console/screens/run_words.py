"""Says in a person's words why a run waits or how it ended, and what to do about it, from the API's explanation."""

from dataclasses import dataclass

from console.asking import Json


@dataclass(frozen=True)
class Said:
    """A sentence, what to do about it, and the page on which that is done: its path, and what its link says."""

    sentence: str
    remedy: str = ""
    path: str = ""
    link: str = ""


# What to do about each thing that a run waits for, and on which page. Time alone helps where there is none.
_REMEDIES = {
    "start_deadline": ("Let later runs of the trigger stay queued longer.", "trigger"),
    "no_worker": ("Choose a machine or a pool for the trigger.", "trigger"),
    "pool_empty": ("Add a machine to the pool.", "machines"),
    "environment_paused": ("Resume the environment.", "settings"),
    "worker_revoked": ("Add the machine anew, or choose another one for the trigger.", "machines"),
    "worker_disabled": (
        "Switch the machine on, or choose another one for the trigger.",
        "machines",
    ),
    "worker_offline": (
        "Start the worker program on the machine, or choose another one for the trigger.",
        "machines",
    ),
    "pool_offline": ("Start the worker program on a machine of the pool.", "machines"),
    "connection_not_ready": ("Sign in for the connection anew, if it needs that.", "connection"),
    "headers_unreadable": ("Type the headers of the trigger’s MCP server anew.", "trigger"),
    "worker_unapproved": ("Approve the machine, if you know it.", "machines"),
    "worker_lacks_approvals": ("Update the machine’s program, or choose another one.", "machines"),
    "awaiting_approval": ("See what it is to do, and approve or reject it.", "approval"),
    "worker_limited": ("Wait until then, or choose another machine for the trigger.", "trigger"),
    "trigger_full": ("Wait until one of them ends, or let more of them run at once.", "trigger"),
    "budget_exhausted": ("Raise the budget, or wait until its next period begins.", "money"),
    "worker_full": ("Wait until one of them ends, or let the machine do more at once.", "machines"),
    "pool_full": ("Wait until one of them ends, or add a machine to the pool.", "machines"),
    "behind_others": ("Wait, or add a machine that takes some of them.", "machines"),
}
# How a run ended without success: by which rule or through whose fault, and what to do.
_ENDS = {
    "lease": (
        "Its machine was lost: it fell silent in the middle of the run.",
        "See whether the machine is up and has a network.",
        "machines",
    ),
    "deadline": (
        "It took longer than its trigger allows.",
        "Let the trigger’s runs take longer, or ask for less in its prompt.",
        "trigger",
    ),
    "start_deadline": (
        "No machine took it in time.",
        "See which machines are there, or let the trigger’s runs stay queued longer.",
        "machines",
    ),
    "user": ("Somebody canceled it while no machine worked on it.", "", ""),
    "approval_expired": (
        "Nobody decided in time whether it may make its call.",
        "Decide sooner, or let the trigger’s runs wait longer. Then rerun it.",
        "approvals",
    ),
    "approval_unreachable": (
        "Its machine did not come back in time to go on after the decision.",
        "See whether the machine is up, then rerun it.",
        "machines",
    ),
    "had_effects": (
        "It could not go on where the attempt before stopped, and to begin anew might repeat what that did.",
        "See what the attempt before it has changed. Then rerun it if that is right.",
        "",
    ),
    "late_result": ("Nobody needed it: the attempt before it succeeded after all.", "", ""),
    "client": (
        "The fault is the trigger’s: its prompt, model, MCP server or a limit.",
        "Correct the trigger, then rerun.",
        "trigger",
    ),
    "infra": (
        "The fault is not the trigger’s: its machine, a network or a service that it needs has failed.",
        "Look at the machine and the message below.",
        "machines",
    ),
    "canceled": ("Somebody asked to cancel it while its machine worked on it.", "", ""),
}
# Why a run that failed is not tried again, where its end does not say so already.
_NO_RETRY = {
    "cancel_requested": "It is not retried, because somebody had asked to cancel it.",
    "retries_used": "It is not retried, because it was the last attempt that its trigger allows.",
    "had_effects": "It is not retried, because its tools may have changed something already.",
    "trigger_deleted": "It is not retried, because its trigger was deleted.",
    "trigger_disabled": "It is not retried, because its trigger is paused.",
    "retry_canceled": "Its retry was canceled before it began.",
    "settings_changed": "It was not retried, because of how the trigger was set when it ended.",
}
_LINKS = {
    "trigger": ("triggers/{triggerId}", "Open the trigger"),
    "connection": ("connections/{subject[id]}", "Open the connection"),
    "machines": ("environments/{environmentId}/machines", "Open Machines"),
    "money": ("environments/{environmentId}/money", "Open Money"),
    "settings": ("environments/{environmentId}/settings", "Open Settings"),
    "approval": ("approvals/{subject[id]}", "Open the call"),
    "approvals": ("environments/{environmentId}/approvals", "Open Approvals"),
}


def what_is_with(run: Json, explained: Json) -> list[Said]:
    """Returns what a run waits for, first what somebody must act on; who executes it; or whose fault its end was.
    Without an explanation, which the API may be too busy for, less is said.
    """
    if run["endedAt"]:
        by = (explained.get("ended") or {}).get("by", "worker")
        if run["status"] == "canceled" and by in {"worker", "lease"}:
            by = "canceled"
        elif by == "worker":
            by = run["faultClass"]
        return [_said(run, *_ENDS.get(by, ("", "", "")))]
    return [
        _said(
            {**run, "subject": each["subject"]},
            each["message"],
            *_REMEDIES.get(each["code"], ("", "")),
        )
        for each in explained.get("waitingFor", ())
    ] or [Said(explained.get("summary", ""))]


def whether_retried(explained: Json) -> str:
    """Returns whether a run that has ended is tried again. The link to its retry stands beside that."""
    retry = explained.get("retry") or {}
    if retry.get("decision") == "done":
        return str(retry["message"])
    return "" if retry.get("decision") == "due" else _NO_RETRY.get(retry.get("code", ""), "")


def _said(run: Json, sentence: str, remedy: str, place: str) -> Said:
    path, link = _LINKS.get(place, ("", ""))
    return Said(sentence, remedy, path and f"/console/{path.format(**run)}", link)
