"""Finds what a queued run waits for, by the same conditions as the poll and the claim.

If no condition holds the run back, other runs may go first. `choose_runs` tells whether they do, as in a poll.
"""

from collections.abc import Iterator
from datetime import datetime
from uuid import UUID

from pipedai.api.renderers import counted, money
from pipedai.links import link_to_page
from pipedai.sql import Row, fetch_all, fetch_row
from triggers.approvals.rules import untold
from triggers.budgets.spending import period_around, reached_budgets
from triggers.explain import candidates
from triggers.explain.answers import Reason, Subject, moment_words, without_scheduler
from triggers.explain.candidates import (
    Candidates,
    find_candidates,
    hindrances,
    limits_of_candidate,
    room_of,
)
from triggers.reasons import WaitingFor
from triggers.runs.conditions import about, first_due
from triggers.runs.handout import MOST_AT_ONCE, choose_runs, shut_triggers_of_environment
from triggers.runs.headers import opened_headers
from workspaces.connections.models import Connection
from workspaces.roles import Role

_ORDER = list(WaitingFor)

# What holds the run itself back. A run that waits for one of these has no place in the queue of a worker.
_OF_THE_RUN = {
    WaitingFor.WORKER_UNAPPROVED,
    WaitingFor.WORKER_LACKS_FEATURES,
    WaitingFor.FIRST_WORKER,
    WaitingFor.BUDGET_EXHAUSTED,
}


def reasons(run: Row, *, now: datetime | None) -> list[Reason]:
    """Returns what a queued run, a row of `triggers.explain.runs`, waits for, in the order of WaitingFor. If the list
    is empty, the next poll of an online worker returns the run, and that worker's claim succeeds.
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
    """Yields why no worker may take the run any more, so that the scheduler ends it."""
    if not found.run["is_in_time"]:
        deadline = moment_words(run["start_deadline_at"], run["now"], to_the_second=True)
        yield Reason(
            WaitingFor.START_DEADLINE,
            f"No machine took it before its start deadline at {deadline}, so a scheduler is about to end it.",
            _trigger(run),
            since=run["start_deadline_at"],
            remedy="Let later runs stay queued longer with PATCH /triggers/:id (startDeadlineSeconds).",
        )
    if not found.run["may_start"]:
        until = moment_words(run["resume_until"], run["now"], to_the_second=True)
        code = WaitingFor.HAD_EFFECTS
        why = (
            f"It could continue its session until {until}, and it must not be started anew, because the run before it"
            " may have changed something."
        )
        if run["spells"]:
            code = WaitingFor.APPROVAL_UNREACHABLE
            why = (
                f"Machine {run['worker_label']} had until {until} to continue it, since somebody has decided about its"
                " call."
            )
        words = f"{why} So a scheduler is about to end it."
        yield Reason(code, words, _trigger(run), since=run["resume_until"])


def _of_run(run: Row, found: Candidates, now: datetime | None) -> Iterator[Reason]:
    """Yields the reasons that come from the run, its trigger or its environment, not from a worker."""
    if run["worker_id"] is None and run["pool_id"] is None:
        yield Reason(
            WaitingFor.NO_WORKER,
            f"Trigger {run['trigger_name']} has neither a machine nor a pool.",
            _trigger(run),
            remedy="Give the trigger a machine or a pool with PATCH /triggers/:id (workerId, poolId): its queued runs"
            " go there too.",
        )
    if run["paused_at"] is not None:
        why = f" ({run['pause_reason']})" if run["pause_reason"] else ""
        since = moment_words(run["paused_at"], run["now"])
        yield Reason(
            WaitingFor.ENVIRONMENT_PAUSED,
            f"Environment {run['environment_name']} has been paused since {since}{why}.",
            Subject("environment", run["environment_id"], run["environment_name"]),
            since=run["paused_at"],
            remedy="Resume it with PATCH /environments/:id (paused: false).",
        )
    if not found.run["connection_is_ready"]:
        yield connection_reason(run, now=now)
    elif opened_headers(run) is None:
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
            f"{counted(held, 'run')} of trigger {run['trigger_name']} {'is' if held == 1 else 'are'} under way, and no"
            f" more than {most} may be at once.",
            _trigger(run),
            remedy="Wait until one of them ends, or let more of them run at once with PATCH /triggers/:id"
            " (maxConcurrentRuns).",
        )


def _of_workers(run: Row, found: Candidates, now: datetime | None) -> Iterator[Reason]:
    """Yields why no worker can take the run: each reason of its own, a sum for its pool's; nothing if one can."""
    held_back = {
        worker["worker_id"]: hindrances(worker, is_due=found.run["is_due"])
        for worker in found.eligible
    }
    if not all(held_back.values()):
        return
    yield from _of_budgets(run, found, held_back, now)
    if found.own is not None:
        codes = held_back[found.own["worker_id"]]
        yield from candidates.own_reasons(run, found.own, codes)
        if found.is_for_one:
            yield candidates.why_only_one(run, found)
            return
    if run["pool_id"] is None:
        return
    if found.pool_is_empty:
        yield candidates.empty(run)
    others = [(worker, held_back[worker["worker_id"]]) for worker in found.others]
    yield from candidates.pool_reasons(run, [(worker, codes) for worker, codes in others if codes])


def _of_budgets(
    run: Row, found: Candidates, held_back: dict[UUID, list[WaitingFor]], now: datetime | None
) -> Iterator[Reason]:
    """Yields which budgets have no room, for the first worker that they keep from the run. Another worker may have
    room, if a subscription pays for it. It removes the code from the codes of each worker, so that a budget is named
    once.
    """
    short = [id_ for id_, codes in held_back.items() if WaitingFor.BUDGET_EXHAUSTED in codes]
    for worker_id in short:
        held_back[worker_id].remove(WaitingFor.BUDGET_EXHAUSTED)
    if short or not (held_back or found.run["budgets_have_room"]):
        yield from budget_reasons(run, worker_id=short[0] if short else None, now=now)


def _of_place(run: Row, found: Candidates, now: datetime | None) -> Iterator[Reason]:
    conditions = ("is_due", "trigger_has_room", "connection_is_ready")
    can_go = all(found.run[each] for each in conditions) and run["paused_at"] is None
    if not can_go or opened_headers(run) is None:
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
    place = _find_place(run, workers, now=now)
    if place is None:
        return
    worker, ahead = place
    least = "At least " if ahead == MOST_COUNTED else ""
    go = "goes" if ahead == 1 else "go"
    what = f"{least}{counted(ahead, 'due run')}" if ahead else "Other due runs"
    yield Reason(
        WaitingFor.BEHIND_OTHERS,
        f"{what} of machine {worker['label']} {go} first."
        if len(found.eligible) == 1
        else f"{what} {go} first at machine {worker['label']}, which will come to it before the other machines of pool"
        f" {run['pool_name']}.",
        Subject("worker", worker["worker_id"], worker["label"]),
        place=ahead + 1 if ahead else None,
        remedy=_more_room(run, found, room_of(worker) > ahead),
    )
    if found.is_for_one and not hindrances(worker, is_due=True):
        yield candidates.why_only_one(run, found)


def _more_room(run: Row, found: Candidates, has_room: bool) -> str | None:
    """Returns how a run that waits behind others could start earlier. If the worker `has_room` for all of them, only a
    limit of the trigger can be changed.
    """
    if not has_room:
        return (
            "Let it hold more with PATCH /workers/:id (maxConcurrency), or"
            f" {candidates.give_it_to_another(run)}"
        )
    if found.run["free_in_trigger"] is not None:
        return "Let more of them run at once with PATCH /triggers/:id (maxConcurrentRuns)."
    return None


def _trigger(run: Row) -> Subject:
    return Subject("trigger", run["trigger_id"], run["trigger_name"])


Grant, Status = Connection.Grant, Connection.Status

_AUTHORIZE = "Sign in on the connection's page in the console, to which POST /connections/:id/authorize leads."

_NEW_SECRET = "Correct the client's secret with PATCH /connections/:id (clientSecret)."  # noqa: S105


def connection_reason(run: Row, *, now: datetime | None) -> Reason:
    """Returns the reason why a run, a row of `triggers.explain.runs`, waits for its trigger's connection. It takes one
    statement if a scheduler is to get the token.
    """
    name, status = run["connection_name"], run["connection_status"]
    is_code = run["connection_grant"] == Grant.AUTHORIZATION_CODE
    until = None
    remedy: str | None = _AUTHORIZE if is_code else _NEW_SECRET
    if status == Status.NEEDS_LOGIN:
        message = f"Connection {name} needs a new login. {run['connection_error']}"
    elif status == Status.UNAUTHORIZED and is_code:
        message = f"Nobody has signed in for connection {name} yet."
    else:
        message, until = _by_schedulers(run)
        if nobody := without_scheduler(now=now):
            message, remedy = f"{message[:-1]}, but {nobody}.", None
        elif status != Status.FAILING:
            remedy = None
    return Reason(
        WaitingFor.CONNECTION_NOT_READY,
        message,
        Subject("connection", run["connection_id"], name),
        until=until,
        remedy=remedy,
    )


def _by_schedulers(run: Row) -> tuple[str, datetime | None]:
    """Returns in words that schedulers ask for a token, and when they ask again after a failure."""
    name, again = run["connection_name"], run["connection_refresh_at"]
    if run["connection_error"] is None:
        return f"A scheduler is getting a fresh token for connection {name}.", None
    words = f"Connection {name} gets no fresh token. {run['connection_error']}"
    if again <= run["now"]:
        return words, None
    at = moment_words(again, run["now"], to_the_second=True)
    return f"{words[:-1]}; schedulers try again at {at}.", again


def budget_reasons(run: Row, *, worker_id: UUID | None, now: datetime | None) -> Iterator[Reason]:
    """Yields a reason for each budget that has no room for the run, a row of `triggers.explain.runs`, if this worker
    claims it. `until` is when the budget's next window begins; None if no window has room for it.
    """
    for budget in reached_budgets(run_id=run["id"], worker_id=worker_id, now=now):
        _, end = period_around(budget["now"], budget["period"], budget["timezone"])
        until = None if budget["never_has_room"] else budget["ends_at"] or end
        yield Reason(
            WaitingFor.BUDGET_EXHAUSTED,
            _message(budget, until),
            Subject("budget", budget["id"], budget["name"]),
            until=until,
            remedy=_remedy(budget),
        )


def _message(budget: Row, until: datetime | None) -> str:
    name, period = budget["name"], budget["period"]
    words = f"Budget {name} has no room for it"
    if budget["runs_are_used_up"]:
        words += f": its {counted(budget['limit_runs'], 'run')} of this {period} are used up"
    else:
        left = max(0, budget["limit_usd"] - budget["spent"] - budget["reserved"])
        words += (
            f": of its ${money(budget['limit_usd'])} for this {period}, ${money(budget['spent'])} is spent"
            f" and ${money(budget['reserved'])} reserved"
        )
        if left:
            words += f", and the run would reserve ${money(budget['amount'])}"
    if until is None:
        return f"{words}. It never has room for this run."
    return f"{words}. The next {period} begins at {moment_words(until, budget['now'])}."


def _remedy(budget: Row) -> str:
    limit = "limitRuns" if budget["runs_are_used_up"] else "limitUsd"
    words = f"Raise its limit with PATCH /budgets/:id ({limit})"
    if limit == "limitUsd" and budget["amount"] > 0:
        words += (
            ", or let the run reserve less: lower what a run may cost with PATCH /triggers/:id (maxCostUsd), or what"
            " the budget reserves for it with PATCH /budgets/:id (reserveUsd)"
        )
    return f"{words}."


# At most this many runs ahead of a run are counted, so that explaining a run behind 100,000 others takes no longer.
MOST_COUNTED = 1000

# The condition for due runs that a worker gets before this run. It leaves out the runs of the triggers in `shut`, which
# no worker gets, because their headers can't be decrypted.
_IS_AHEAD = """r.trigger_id <> ALL(%(shut)s::uuid[])
    AND (r.available_at, r.id) < (%(available_at)s::timestamptz, %(run_id)s::uuid)"""

_AHEAD = f"""
SELECT count(*) AS ahead FROM (
    SELECT FROM ({first_due(_IS_AHEAD, own=MOST_COUNTED, of_each_pool=MOST_COUNTED)}) first
    LIMIT {MOST_COUNTED}) ahead
"""

_AHEAD_OF_EACH = first_due(_IS_AHEAD, own=MOST_AT_ONCE, of_each_pool=MOST_AT_ONCE, at_most="c.room")

# Finds the worker that will get to the run first. It counts at most as many runs as a worker has room for, because that
# is enough to know whether the worker's next poll returns the run.
_SOONEST = f"""
SELECT c.id
FROM (
    SELECT id, room, unapproved_since, string_to_array(named, ',') AS features
    FROM unnest(%(worker_ids)s::uuid[], %(rooms)s::int[], %(unapproved_since)s::timestamptz[], %(features)s::text[])
        AS given (id, room, unapproved_since, named)) c
CROSS JOIN LATERAL (SELECT least(count(*), c.room) AS n FROM ({about(_AHEAD_OF_EACH, "c")}) first) ahead
ORDER BY ahead.n >= c.room, ahead.n, c.room DESC, c.id LIMIT 1
"""


def _find_place(run: Row, workers: list[Row], *, now: datetime | None) -> tuple[Row, int] | None:
    """Returns the worker that gets to the run first, and how many due runs it gets before: MOST_COUNTED at most.
    Returns None if the next poll of a worker returns the run, or if none has room and no run goes first. It takes at
    most two polls and three statements.
    """
    with_room = [worker for worker in workers if room_of(worker)]
    worker = max(with_room or workers, key=room_of)
    if with_room and _gets(worker, run, now):
        return None
    params = {
        "run_id": run["id"],
        "environment_id": run["environment_id"],
        "available_at": run["available_at"],
        "shut": shut_triggers_of_environment(environment_id=run["environment_id"], now=now),
        "now": now,
    }
    if len(with_room) > 1:
        soonest = _soonest(with_room, params)
        if soonest is not worker and _gets(soonest, run, now):
            return None
        worker = soonest
    limits = limits_of_candidate(worker)
    params |= {**limits, "worker_id": worker["worker_id"]}
    found = fetch_row(_AHEAD, params)
    return (worker, found["ahead"]) if with_room or found["ahead"] else None


def _gets(worker: Row, run: Row, now: datetime | None) -> bool:
    """Returns whether the worker's next poll returns the run."""
    chosen = choose_runs(worker_id=worker["worker_id"], **limits_of_candidate(worker), now=now)
    return any(each.row["id"] == run["id"] for each in chosen)


def _soonest(workers: list[Row], params: Row) -> Row:
    ids = [worker["worker_id"] for worker in workers]
    given = {
        "worker_ids": ids,
        "rooms": [min(MOST_AT_ONCE, room_of(worker)) for worker in workers],
        "unapproved_since": [worker["unapproved_since"] for worker in workers],
        "features": [",".join(worker["features"]) for worker in workers],
    }
    (found,) = fetch_all(_SOONEST, {**params, **given})
    return workers[ids.index(found["id"])]
