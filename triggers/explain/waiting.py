"""Finds what a queued run waits for, from the conditions of the poll and the claim themselves (SPEC §13)."""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from pipedai.api.renderers import counted
from pipedai.links import link_to_page
from pipedai.sql import Row
from triggers.approvals.deciders import untold
from triggers.explain import machine_reasons
from triggers.explain.answers import Reason, Subject
from triggers.explain.budgets import budget_reasons
from triggers.explain.candidates import Candidates, find_candidates, hindrances, room_of
from triggers.explain.clock_words import moment_words
from triggers.explain.connections import connection_reason
from triggers.explain.queue_place import MOST_COUNTED, find_place
from triggers.reasons import WaitingFor
from triggers.runs.handout import headers_are_readable
from workspaces.roles import Role

_ORDER = list(WaitingFor)
# A run that waits for one of these has no place among the due runs of a worker.
_OF_THE_RUN = {
    WaitingFor.WORKER_UNAPPROVED,
    WaitingFor.WORKER_LACKS_APPROVALS,
    WaitingFor.FIRST_WORKER,
    WaitingFor.BUDGET_EXHAUSTED,
}


def reasons(run: Row, *, now: datetime | None) -> list[Reason]:
    """Returns what a queued run, a row of `triggers.explain.runs`, waits for, in the order of WaitingFor. If it is
    nothing, the next poll of an online worker returns the run, and that worker's claim succeeds.
    """
    found = find_candidates(run, now=now)
    told = list(_too_late(run, found)) or [
        *_of_run(run, found, now),
        *_of_workers(run, found, now),
        *_of_place(run, found, now),
    ]
    return sorted(told, key=lambda reason: _ORDER.index(reason.code))


def awaited_decision(run: Row) -> Reason:
    """Returns what a waiting run waits for: a decision, until a time, by somebody with a role."""
    until = moment_words(run["resume_until"], run["now"], to_the_second=True)
    role = run["approver_role"]
    who = "An owner" if role == Role.OWNER else f"An {role} or above"
    _, wrong, remedy = untold(run) or ("", "", "")
    return Reason(
        WaitingFor.AWAITING_APPROVAL,
        f"{who} has to approve or reject its call of {run['approval_tool']}. If nobody does by {until}, it ends as"
        f" failed. {wrong}".rstrip(),
        Subject("approval", run["approval_id"], run["approval_tool"]),
        since=run["approval_asked_at"],
        until=run["resume_until"],
        remedy=f"Decide on its page in the console, {link_to_page('approval', run['approval_id'])}. {remedy}".rstrip(),
    )


def _too_late(run: Row, found: Candidates) -> Iterator[Reason]:
    """Yields why nobody may take the run any more, so that the scheduler ends it."""
    if not found.run["is_in_time"]:
        deadline = moment_words(run["start_deadline_at"], run["now"], to_the_second=True)
        yield Reason(
            WaitingFor.START_DEADLINE,
            f"No worker claimed it before its start deadline at {deadline}, so a scheduler is about to end it.",
            _trigger(run),
            since=run["start_deadline_at"],
            remedy="Let later runs stay queued longer with PATCH /triggers/:id (startDeadlineSeconds).",
        )
    if not found.run["may_start"]:
        until = moment_words(run["resume_until"], run["now"], to_the_second=True)
        if run["spells"]:
            yield Reason(
                WaitingFor.APPROVAL_UNREACHABLE,
                f"Worker {run['worker_label']} had until {until} to continue it, since somebody has decided about its"
                " call. So a scheduler is about to end it.",
                _trigger(run),
                since=run["resume_until"],
            )
            return
        yield Reason(
            WaitingFor.HAD_EFFECTS,
            f"It could continue its session until {until}, and it must not be started anew, because the run before it"
            " may have changed something. So a scheduler is about to end it.",
            _trigger(run),
            since=run["resume_until"],
        )


def _of_run(run: Row, found: Candidates, now: datetime | None) -> Iterator[Reason]:
    """Yields the reasons that concern the run, whatever workers there are."""
    if run["worker_id"] is None and run["pool_id"] is None:
        yield Reason(
            WaitingFor.NO_WORKER,
            f"Trigger {run['trigger_name']} has neither a worker nor a pool.",
            _trigger(run),
            remedy="Give the trigger a worker or a pool with PATCH /triggers/:id (workerId, poolId): its queued runs go"
            " there too.",
        )
    if run["paused_at"] is not None:
        yield _paused(run)
    if not found.run["connection_is_ready"]:
        yield connection_reason(run, now=now)
    elif not headers_are_readable(run):
        yield Reason(
            WaitingFor.HEADERS_UNREADABLE,
            f"The MCP headers of trigger {run['trigger_name']} can't be decrypted.",
            _trigger(run),
            remedy="Set the headers anew with POST /triggers/:id/rotate-mcp-token, or those of its connection with"
            " PATCH /connections/:id, or let the operator restore the master key (manage.py check_keys).",
        )
    if not found.run["is_due"]:
        due = moment_words(run["available_at"], run["now"], to_the_second=True)
        yield Reason(
            WaitingFor.NOT_DUE,
            f"Attempt {run['attempt']} is due at {due}."
            if run["attempt"] > 1
            else f"It is due at {due}.",
            since=run["queued_at"],
            until=run["available_at"],
        )
    if not found.run["trigger_has_room"]:
        most = run["max_concurrent_runs"]
        held = most - found.run["free_in_trigger"]
        yield Reason(
            WaitingFor.TRIGGER_FULL,
            f"{counted(held, 'run')} of trigger {run['trigger_name']} {'is' if held == 1 else 'are'} held by workers,"
            f" and no more than {most} may be at once.",
            _trigger(run),
            remedy="Wait until one of them ends, or let more of them run at once with PATCH /triggers/:id"
            " (maxConcurrentRuns).",
        )


def _paused(run: Row) -> Reason:
    why = f" ({run['pause_reason']})" if run["pause_reason"] else ""
    return Reason(
        WaitingFor.ENVIRONMENT_PAUSED,
        f"Environment {run['environment_name']} is paused since {moment_words(run['paused_at'], run['now'])}{why}.",
        Subject("environment", run["environment_id"], run["environment_name"]),
        since=run["paused_at"],
        remedy="Resume it with PATCH /environments/:id (paused: false).",
    )


def _of_workers(run: Row, found: Candidates, now: datetime | None) -> Iterator[Reason]:
    """Yields why no worker can take the run: one by one for its own, in sum for its pool's; nothing if one can."""
    held_back = {
        worker["worker_id"]: hindrances(worker, is_due=found.run["is_due"])
        for worker in found.eligible
    }
    if not all(held_back.values()):
        return
    yield from _of_budgets(run, found, held_back, now)
    if found.own is not None:
        codes = held_back[found.own["worker_id"]]
        yield from machine_reasons.own_reasons(run, found.own, codes)
        if found.is_for_one:
            yield machine_reasons.why_only_one(run, found)
            return
    if run["pool_id"] is None:
        return
    if found.pool_is_empty:
        yield machine_reasons.empty(run)
    others = [(worker, held_back[worker["worker_id"]]) for worker in found.others]
    yield from machine_reasons.pool_reasons(
        run, [(worker, codes) for worker, codes in others if codes]
    )


def _of_budgets(
    run: Row, found: Candidates, held_back: dict[UUID, list[WaitingFor]], now: datetime | None
) -> Iterator[Reason]:
    """Yields which budgets have no room, for the first worker that they keep from the run; for others a subscription
    may pay. It removes the code from those of each worker, as a budget is told of once.
    """
    short = [id_ for id_, codes in held_back.items() if WaitingFor.BUDGET_EXHAUSTED in codes]
    for worker_id in short:
        held_back[worker_id].remove(WaitingFor.BUDGET_EXHAUSTED)
    if short or not (held_back or found.run["budgets_have_room"]):
        yield from budget_reasons(run, worker_id=short[0] if short else None, now=now)


def _of_place(run: Row, found: Candidates, now: datetime | None) -> Iterator[Reason]:
    conditions = ("is_due", "trigger_has_room", "connection_is_ready")
    can_go = all(found.run[each] for each in conditions) and run["paused_at"] is None
    if not can_go or not headers_are_readable(run):
        return
    held_back = [(worker, hindrances(worker, is_due=True)) for worker in found.eligible]
    workers = [worker for worker, codes in held_back if not {*codes} - {WaitingFor.WORKER_FULL}]
    if not workers and found.own is not None:
        # The worker can't poll now, but the run's place with it is still worth knowing.
        codes = hindrances(found.own, is_due=True)
        if not {*codes} & _OF_THE_RUN:
            workers = [found.own]
    if not workers:
        return
    place = find_place(run, workers, now=now)
    if place is None:
        return
    worker = place.worker
    least = "At least " if place.ahead == MOST_COUNTED else ""
    go = "goes" if place.ahead == 1 else "go"
    what = f"{least}{counted(place.ahead, 'due run')}" if place.ahead else "Other due runs"
    yield Reason(
        WaitingFor.BEHIND_OTHERS,
        f"{what} of worker {worker['label']} {go} first."
        if len(found.eligible) == 1
        else f"{what} {go} first at worker {worker['label']}, which will come to it before the other workers of pool"
        f" {run['pool_name']}.",
        Subject("worker", worker["worker_id"], worker["label"]),
        place=place.ahead + 1 if place.ahead else None,
        remedy=_more_room(run, found, room_of(worker) > place.ahead),
    )
    if found.is_for_one and not hindrances(worker, is_due=True):
        yield machine_reasons.why_only_one(run, found)


def _more_room(run: Row, found: Candidates, has_room: bool) -> str | None:
    """Returns how a run behind others gets out earlier. If the worker `has_room` for all, only a limit of the trigger
    can be changed.
    """
    if not has_room:
        return (
            "Let it hold more with PATCH /workers/:id (maxConcurrency), or"
            f" {machine_reasons.give_it_to_another(run)}"
        )
    if found.run["free_in_trigger"] is not None:
        return "Let more of them run at once with PATCH /triggers/:id (maxConcurrentRuns)."
    return None


def _trigger(run: Row) -> Subject:
    return Subject("trigger", run["trigger_id"], run["trigger_name"])
