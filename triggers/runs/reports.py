"""Ends runs as their workers report: even twice, without a required output, or after the server has ended the run.

docs/run-lifecycle.md describes such late results.
"""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import NotFound
from pipedai.api.renderers import compact_json
from pipedai.events import Actor, emit
from pipedai.sql import NOW, Row, execute, fetch_one, fetch_row
from triggers.budgets.spending import settle_reservations
from triggers.runs import statements as sql
from triggers.runs.ending import (
    ended_event,
    follow_up,
    keep_errors,
    run_event,
    why_not_repeated,
)
from triggers.runs.lifecycle import Refused
from triggers.runs.outcome import MAX_LISTED_CALLS, Outcome
from triggers.runs.routing import limit_workers, lock_account, wake_for
from triggers.runs.waiting import let_wait
from triggers.states import HELD, SERVER_VERDICTS, TERMINAL, UNHELD, EndedBy, Status

# The ends that a run can get while no worker holds it, after it has waited.
_ENDED_UNHELD = (EndedBy.USER, EndedBy.APPROVAL_EXPIRED, EndedBy.APPROVAL_UNREACHABLE)

_KEEP_LATE_RESULT = f"""
INSERT INTO run_text (run_id, environment_id, late_result)
SELECT id, environment_id,
    (jsonb_build_object('receivedAt', to_char({NOW} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
     || %(late_result)s::jsonb)::json
FROM run WHERE id = %(run_id)s
ON CONFLICT (run_id) DO UPDATE SET late_result = excluded.late_result
"""

# Only a run with several spells has a row already. The calls of its last spell are added to those of earlier ones.
_KEEP_RESULT = f"""
INSERT INTO run_result AS kept (run_id, environment_id, output, tool_calls)
SELECT id, environment_id, %(output)s::json, %(tool_call_list)s::json FROM run WHERE id = %(run_id)s
ON CONFLICT (run_id) DO UPDATE SET output = excluded.output, tool_calls = (
    SELECT json_agg(call ORDER BY spell, n) FROM (
        SELECT 1 AS spell, n, call FROM json_array_elements(kept.tool_calls) WITH ORDINALITY AS a (call, n)
        UNION ALL
        SELECT 2, n, call FROM json_array_elements(excluded.tool_calls) WITH ORDINALITY AS a (call, n)
        ORDER BY 1, 2 LIMIT {MAX_LISTED_CALLS}) calls)
"""


def complete_run(
    *,
    worker_id: UUID,
    run_id: UUID,
    outcome: Outcome,
    reported: dict[str, Any],
    actor: Actor,
    now: datetime | None = None,
) -> Row:
    """Ends a run as its worker reports, or lets it wait for a decision, and returns it. A repeated report gets the same
    answer. Until the retry has been claimed, a report replaces an end by lease or deadline; later it is only stored, as
    `reported`. A success that lacks a required output is a failure. Raises NotFound, Refused.
    """
    params = {**outcome.columns(), "run_id": run_id, "worker_id": worker_id, "now": now}
    with transaction.atomic():
        limited = lock_account(worker_id) if outcome.at_limit else []
        if outcome.blames_infrastructure:
            execute(sql.SHARE_TRIGGER, params)
        if outcome.approval is not None:
            if waiting := let_wait(params, outcome.approval, actor):
                _keep_result(waiting, outcome)
                return waiting
        elif ended := fetch_one(sql.COMPLETE, params):
            _limit(limited, outcome, actor, now)
            _follow_up_report(ended, outcome, actor)
            return ended
        result = _complete_otherwise(params, outcome, reported, actor, limited)
    # The error is raised only now, after the transaction, because the stored late report must be committed.
    if isinstance(result, Refused):
        raise result
    return result


def _limit(limited: list[UUID], outcome: Outcome, actor: Actor, now: datetime | None) -> None:
    """Limits the workers `limited`, which the caller has locked, if the run failed at their usage limit."""
    if outcome.at_limit and outcome.usage_limit and limited:
        limit_workers(limited, outcome.usage_limit, actor=actor, now=now)


def _complete_otherwise(
    params: Row, outcome: Outcome, reported: dict[str, Any], actor: Actor, limited: list[UUID]
) -> Row | Refused:
    """Handles a report for which the usual UPDATE ended no run: it lacks an output, is a repetition, comes late, or
    must be refused. Returns the run, or the refusal for the caller to raise. Raises NotFound.
    """
    # A statement of its own locks the run. A statement that has waited for a lock sees other rows as they were before
    # the wait, so only the next statement may read them.
    execute(sql.LOCK, params)
    run = fetch_one(sql.READ, params)
    if run is None or run["worker_id"] != params["worker_id"]:
        raise NotFound
    if outcome.approval is not None and _has_waited(run):
        return run
    if (
        outcome.approval is not None
        and run["status"] in HELD
        and outcome.claim_id != run["claim_id"]
    ):
        # This repeats an old report that the run waits. The run has gone on, so the report must not end its next spell.
        raise Refused(
            "The run has been claimed with another claimId.",
            run,
            code=ErrorCode.CLAIMED_BY_ANOTHER,
        )
    if (settled := outcome.settled(run)) is not outcome:
        outcome, params = settled, {**params, **settled.columns()}
        if run["status"] in HELD:
            failed = fetch_row(sql.COMPLETE, params)
            _follow_up_report(failed, outcome, actor)
            return failed
    if run["ended_by"] == EndedBy.WORKER and run["status"] == outcome.status:
        return run
    _check_late(run, outcome)
    retry = fetch_one(sql.RETRY_FOR_UPDATE, params)
    if retry is not None and retry["was_claimed"]:
        return _keep_late_result(run, params, reported, actor)
    return _accept_late_result(params, outcome, retry, actor, limited)


def _check_late(run: Row, outcome: Outcome) -> None:
    """Raises Refused unless the server has ended the run, and the outcome may replace that end."""
    if outcome.status == Status.WAITING:
        raise Refused(f"The run is {run['status']} and can't wait.", run)
    if run["status"] not in TERMINAL:
        if outcome.status == Status.CANCELED and run["status"] in HELD:
            raise _no_cancel(run)
        raise Refused(f"The run is {run['status']} and can't be completed.", run)
    if run["ended_by"] not in SERVER_VERDICTS:
        raise Refused(f"The run has ended as {run['status']}.", run)
    is_asked = run["cancel_requested_at"] is not None or run["look_only"]
    if outcome.status == Status.CANCELED and not is_asked:
        raise _no_cancel(run)


def _has_waited(run: Row) -> bool:
    """Returns whether the last report of the run's worker was that the run waits."""
    return bool(run["spells"]) and (run["status"] in UNHELD or run["ended_by"] in _ENDED_UNHELD)


def _no_cancel(run: Row) -> Refused:
    return Refused("No cancel was requested for the run.", run, code=ErrorCode.CANCEL_NOT_REQUESTED)


def _keep_late_result(run: Row, params: Row, reported: dict[str, Any], actor: Actor) -> Refused:
    """Stores a run's first report that came after its retry was claimed. Its cost still counts in budgets."""
    if not run["has_late_result"]:
        report = compact_json(reported)
        execute(_KEEP_LATE_RESULT, {**params, "late_result": report})
        emit(run_event("run.late-result", actor, run, {"reported": reported.get("status")}))
        if params["cost_usd"] is not None:
            settle_reservations([run["id"]], told_cost=params["cost_usd"])
    return Refused(
        "The run was given up and its retry has been claimed.", run, code=ErrorCode.RETRY_CLAIMED
    )


def _accept_late_result(
    params: Row, outcome: Outcome, retry: Row | None, actor: Actor, limited: list[UUID]
) -> Row:
    """Lets a late report replace the end that the server had decided, and cancels the queued retry. If the reported end
    needs a retry too, the retry stays, and `retryAfterSeconds` may postpone it. `limited` are the workers that a
    reported usage limit stops.
    """
    run = fetch_row(sql.COMPLETE_LATE, params)
    changes: dict[str, Any] = {"late": True}
    is_retried = retry is not None
    if retry is not None and why_not_repeated(run):
        if execute(sql.CANCEL_RETRY, {**params, "retry_id": retry["id"]}):
            changes["canceledRetry"] = str(retry["id"])
            is_retried = False
    elif retry is not None and (outcome.retry_after_seconds or outcome.at_limit):
        execute(sql.MOVE_RETRY, {**params, "retry_id": retry["id"]})
        wake_for([retry])
    _limit(limited, outcome, actor, params["now"])
    if run["error_message"] is None:
        keep_errors([run])  # This removes the error message that the server wrote.
    _keep_result(run, outcome)
    follow_up(
        [run],
        [ended_event("run.completed", actor, run, changes)],
        retry_after_seconds=outcome.retry_after_seconds,
        told_cost=outcome.cost_usd,
    )
    if is_retried:
        retry = fetch_row(sql.RETRY_FOR_UPDATE, params)
        run |= {"will_retry": True, "resume_until": retry["resume_until"]}
    return run


def _follow_up_report(run: Row, outcome: Outcome, actor: Actor) -> None:
    """Stores the results of an ended run, and writes its error, retry, delivery and audit row."""
    _keep_result(run, outcome)
    action = "run.canceled" if run["status"] == Status.CANCELED else "run.completed"
    follow_up(
        [run],
        [ended_event(action, actor, run)],
        retry_after_seconds=outcome.retry_after_seconds,
        told_cost=outcome.cost_usd,
    )


def _keep_result(run: Row, outcome: Outcome) -> None:
    if outcome.output is not None or outcome.tool_call_list:
        calls = json.dumps(outcome.tool_call_list) if outcome.tool_call_list else None
        params = {"run_id": run["id"], "output": outcome.output, "tool_call_list": calls}
        execute(_KEEP_RESULT, params)
