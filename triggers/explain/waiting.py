"""Finds what a queued run waits for (SPEC §13).

The reasons come from the conditions of the poll and the claim themselves: from `triggers.runs.conditions`, and from
`choose_runs`, with which a poll chooses the runs that it returns.
"""

from collections.abc import Iterator
from datetime import datetime

from pipedai.api.wording import counted
from pipedai.sql import Row, fetch_one
from triggers.explain.answers import Reason, Subject, WaitingFor
from triggers.explain.budgets import budget_reasons
from triggers.explain.clock_words import moment_words
from triggers.runs.conditions import MAY_BE_CLAIMED, Limits, evaluate, limits_of
from triggers.runs.handout import choose_runs, headers_are_readable, shut_triggers

# At most this many runs ahead of a run are counted, so that the explanation of a run behind 100,000 others takes no
# longer than others.
MOST_COUNTED = 1000

# Counts the due runs that the worker gets before this one. The runs of the triggers in `shut` do not count: the worker
# does not get them, because their headers can't be decrypted.
_AHEAD = f"""
SELECT count(*) AS ahead FROM (
    SELECT FROM run r JOIN trigger t ON t.id = r.trigger_id
    WHERE {MAY_BE_CLAIMED} AND r.trigger_id <> ALL(%(shut)s::uuid[])
        AND (r.available_at, r.id) < (%(available_at)s::timestamptz, %(run_id)s::uuid)
    LIMIT {MOST_COUNTED}) ahead
"""


def reasons(run: Row, *, now: datetime | None) -> Iterator[Reason]:
    """Yields what a queued run waits for: first what somebody has to act on, last what time alone will bring.

    `run` is a row of `triggers.explain.runs`. If nothing is yielded, the worker's next poll returns the run, and its
    claim succeeds. It takes two statements more than the poll itself.
    """
    limits = limits_of(
        max_concurrency=run["max_concurrency"] or 0,
        disabled=run["disabled_at"] is not None,
        limited=run["limited_until"] is not None,
        approved=run["unapproved_since"] is None,
    )
    met = evaluate(run_id=run["id"], worker_id=run["worker_id"], **limits, now=now)
    readable = headers_are_readable(run)
    has_worker = run["worker_id"] is not None
    if has_worker:
        yield from _of_worker(run)
    else:
        yield _no_worker(run)
    if not readable:
        yield _unreadable(run)
    if has_worker and not met["headers_may_go"]:
        yield _unapproved(run)
    if not met["is_due"]:
        yield _not_due(run)
    if not met["budgets_have_room"]:
        yield from budget_reasons(run, now)
    if has_worker and limits["capacity"] and not met["free_places"]:
        yield _full(run, met["last_claimed_at"])
    is_eligible = met["is_due"] and met["headers_may_go"] and met["budgets_have_room"]
    if has_worker and is_eligible and readable:
        yield from _behind_others(run, limits, met["free_places"], now)


def _of_worker(run: Row) -> Iterator[Reason]:
    """Yields the reasons that concern the worker as a whole, whatever the run is."""
    worker, name = _worker(run), run["worker_label"]
    if not run["worker_has_token"]:
        deregistered = run["worker_deleted_at"] is not None
        yield Reason(
            WaitingFor.WORKER_REVOKED,
            f"Worker {name} is deregistered."
            if deregistered
            else f"Worker {name} has no token: its token was revoked, and it has not registered again.",
            worker,
            since=run["worker_deleted_at"],
            remedy=_GIVE_IT_TO_ANOTHER
            if deregistered
            else f"Register {name} again (POST /workers/register), or {_give_it_to_another()}",
        )
    if run["disabled_at"] is not None:
        yield Reason(
            WaitingFor.WORKER_DISABLED,
            f"Worker {name} is disabled since {moment_words(run['disabled_at'], run['now'])}.",
            worker,
            since=run["disabled_at"],
            remedy=f"Enable it with PATCH /workers/:id (disabled: false), or {_give_it_to_another()}",
        )
    if run["worker_has_token"] and not run["worker_is_online"]:
        seen = run["last_seen_at"]
        yield Reason(
            WaitingFor.WORKER_OFFLINE,
            f"Waits for worker {name}, which has never called."
            if seen is None
            else f"Waits for worker {name}, offline since {moment_words(seen, run['now'])}.",
            worker,
            since=seen,
            remedy=f"Start the worker program on {name}, or {_give_it_to_another()}",
        )


def _no_worker(run: Row) -> Reason:
    return Reason(
        WaitingFor.NO_WORKER,
        f"Trigger {run['trigger_name']} has no worker.",
        _trigger(run),
        remedy="Give the trigger a worker with PATCH /triggers/:id (workerId): its queued runs go there too.",
    )


def _unreadable(run: Row) -> Reason:
    return Reason(
        WaitingFor.HEADERS_UNREADABLE,
        f"The MCP headers of trigger {run['trigger_name']} can't be decrypted.",
        _trigger(run),
        remedy="Set the headers anew with POST /triggers/:id/rotate-mcp-token, or let the operator restore the master"
        " key (manage.py check_keys).",
    )


def _unapproved(run: Row) -> Reason:
    return Reason(
        WaitingFor.WORKER_UNAPPROVED,
        f"Worker {run['worker_label']} is not approved for triggers with MCP headers: an API key registered it.",
        _worker(run),
        since=run["unapproved_since"],
        remedy=f"Approve it with POST /workers/:id/approve, or {_give_it_to_another()}",
    )


def _not_due(run: Row) -> Reason:
    due = moment_words(run["available_at"], run["now"], to_the_second=True)
    return Reason(
        WaitingFor.NOT_DUE,
        f"Attempt {run['attempt']} is due at {due}."
        if run["attempt"] > 1
        else f"It is due at {due}.",
        since=run["queued_at"],
        until=run["available_at"],
    )


def _full(run: Row, since: datetime | None) -> Reason:
    return Reason(
        WaitingFor.WORKER_FULL,
        f"Worker {run['worker_label']} holds as many runs as it may: {run['max_concurrency']}.",
        _worker(run),
        since=since,
        remedy="Wait until one of them ends, or raise maxConcurrency with PATCH /workers/:id.",
    )


def _behind_others(
    run: Row, limits: Limits, free_places: int, now: datetime | None
) -> Iterator[Reason]:
    """Yields a reason if the worker's next poll returns other runs, and not this one.

    If the worker has room for all of them, the limits of one answer to a poll hold the run back, and it only has to
    wait.
    """
    chosen = choose_runs(worker_id=run["worker_id"], **limits, now=now)
    if any(each.row["id"] == run["id"] for each in chosen.runs):
        return
    params = {
        "worker_id": run["worker_id"],
        "run_id": run["id"],
        "available_at": run["available_at"],
        "approved": limits["approved"],
        # A poll fills `chosen.shut` only if such triggers were in its way, so they are looked up if it is empty.
        "shut": chosen.shut or shut_triggers(worker_id=run["worker_id"], now=now),
        "now": now,
    }
    found = fetch_one(_AHEAD, params)
    assert found is not None, "a count is always there"
    ahead = found["ahead"]
    if not ahead:
        return
    least = "At least " if ahead == MOST_COUNTED else ""
    yield Reason(
        WaitingFor.BEHIND_OTHERS,
        f"{least}{counted(ahead, 'due run')} of worker {run['worker_label']} {'goes' if ahead == 1 else 'go'} first.",
        _worker(run),
        place=ahead + 1,
        remedy=None
        if free_places > ahead
        else f"Raise maxConcurrency with PATCH /workers/:id, or {_give_it_to_another()}",
    )


_GIVE_IT_TO_ANOTHER = "Give the trigger another worker with PATCH /triggers/:id (workerId)."


def _give_it_to_another() -> str:
    return _GIVE_IT_TO_ANOTHER[0].lower() + _GIVE_IT_TO_ANOTHER[1:]


def _worker(run: Row) -> Subject:
    return Subject("worker", run["worker_id"], run["worker_label"])


def _trigger(run: Row) -> Subject:
    return Subject("trigger", run["trigger_id"], run["trigger_name"])
