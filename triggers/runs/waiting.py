"""Lets runs wait for the decision of a person, and keeps what they asked for (docs/run-lifecycle.md)."""

import json
from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from pipedai.events import Actor, emit, is_rehearsal
from pipedai.ids import new_id
from pipedai.sql import NOW, Row, execute, fetch_all, fetch_one
from triggers.approvals.rules import demand_for, rules_in_force, rules_to_keep
from triggers.budgets.spending import settle_reservations
from triggers.runs import statements as sql
from triggers.runs.conditions import OF_ENVIRONMENT
from triggers.runs.ending import run_event
from triggers.runs.outcome import Question
from triggers.runs.routing import freed_slots, wake_for
from triggers.runs.statements import ALLOWS_HOST_TOOLS, LAST_ASKED
from triggers.states import ApprovalStatus

# Locks the trigger, so that nobody changes it before the question is stored, which bars all who have changed it.
_RULES = f"""
SELECT t.approvals, asked.rules AS kept, {ALLOWS_HOST_TOOLS} AS allow_host_tools
FROM run r JOIN trigger t ON t.id = r.trigger_id {LAST_ASKED}
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s
FOR SHARE OF t
"""

# People are reminded of a decision when this part of the time for it has passed.
REMIND_AFTER = 0.75
_CHANGERS = "t.also_changed_by || t.changed_by"


def _people(ids: str) -> str:
    """Returns SQL for the users behind an array of users and API keys: a key counts as the user who made it."""
    return f"""ARRAY(
        SELECT DISTINCT coalesce(k.created_by_id, involved.id)
        FROM unnest({ids}) involved (id) LEFT JOIN api_key k ON k.id = involved.id WHERE involved.id IS NOT NULL)"""


_KEEP = f"""
INSERT INTO approval (id, environment_id, trigger_id, run_id, status, tool, arguments, arguments_hash,
    tool_schema_hash, calls_before, rules, allow_host_tools, role, not_requester, barred, created_at, expires_at,
    remind_at)
SELECT %(id)s, r.environment_id, r.trigger_id, r.id, 'pending', %(tool)s, %(arguments)s::json, %(arguments_hash)s,
    %(tool_schema_hash)s, r.tool_calls_total, %(rules)s::json, %(allow_host_tools)s, %(role)s, %(not_requester)s,
    CASE WHEN %(not_requester)s THEN {_people(f"r.also_requested_by || r.requested_by || ({_CHANGERS})")}
        ELSE '{{}}' END,
    {NOW}, r.resume_until, {NOW} + (r.resume_until - {NOW}) * {REMIND_AFTER}
FROM run r JOIN trigger t ON t.id = r.trigger_id
WHERE r.id = %(run_id)s
"""

# Notes who changes triggers, so that they can't decide about the runs: runs that wait, and runs that will ask later.
# The caller has locked the triggers.
_NOTE_CHANGE = f"""
WITH changer AS (SELECT ({_people("ARRAY[%(changed_by)s::uuid]")})[1] AS id),
barred AS (
    UPDATE approval a SET barred = a.barred || c.id FROM changer c
    WHERE a.environment_id = %(environment_id)s AND a.trigger_id = ANY(%(trigger_ids)s) AND a.status = 'pending'
        AND a.not_requester AND c.id <> ALL(a.barred))
UPDATE trigger t SET changed_by = c.id,
    also_changed_by = nullif(array_remove({_people(_CHANGERS)}, c.id), '{{}}')
FROM changer c WHERE t.id = ANY(%(trigger_ids)s) AND t.environment_id = %(environment_id)s
"""

# Forgets who changed a trigger, because a user has now decided about a call, and could see the changes before. It keeps
# that user's own changes, which nobody else has approved. The caller has locked the trigger.
_SETTLE_CHANGES = f"""
UPDATE trigger t SET also_changed_by = NULL,
    changed_by = CASE WHEN %(user_id)s = ANY({_people(_CHANGERS)}) THEN %(user_id)s::uuid END
WHERE t.id = %(trigger_id)s AND (t.changed_by IS NOT NULL OR t.also_changed_by IS NOT NULL)
"""

_CLOSE = f"""
UPDATE approval SET status = %(status)s, closed_at = {NOW}
WHERE run_id = ANY(%(run_ids)s) AND environment_id = ANY(%(environment_ids)s) AND status = 'pending'
"""

# A run that is not the worker's counts as ended, too. A run with a retry has not, because the retry may continue its
# session. OFFSET 0 makes PostgreSQL look up each run by its id, instead of joining all runs of the worker.
_ENDED = f"""
SELECT named.id FROM unnest(%(run_ids)s::uuid[]) named (id)
WHERE NOT EXISTS (
    SELECT FROM run r
    WHERE r.id = named.id AND r.worker_id = %(worker_id)s AND r.{OF_ENVIRONMENT} AND (r.ended_at IS NULL OR r.retried)
    OFFSET 0)
"""


def ended_runs(worker_id: UUID, run_ids: Sequence[UUID]) -> list[UUID]:
    """Returns which of these runs will not go on, so that the worker can drop their sessions. No runs need no query."""
    if not run_ids:
        return []
    return [
        row["id"] for row in fetch_all(_ENDED, {"worker_id": worker_id, "run_ids": list(run_ids)})
    ]


def let_wait(params: Row, question: Question, actor: Actor) -> Row | None:
    """Lets a run wait, as its worker's report in `params` says. Returns the run, or changes nothing and returns None if
    it can't wait now. On commit it wakes the workers that may use the slot of the run.
    """
    trigger = fetch_one(_RULES, params)
    if trigger is None:
        return None
    rules = rules_to_keep(question.tool, rules_in_force(trigger["kept"], trigger["approvals"]))
    demand = demand_for(question.tool, rules)
    run = fetch_one(sql.WAIT, {**params, "expires_after": demand.expires_after})
    if run is None:
        return None
    approval_id = new_id()
    execute(
        _KEEP,
        {
            "id": approval_id,
            "run_id": run["id"],
            "tool": question.tool,
            "arguments": question.arguments,
            "arguments_hash": question.arguments_hash,
            "tool_schema_hash": question.tool_schema_hash,
            "rules": json.dumps(rules, ensure_ascii=False),
            "allow_host_tools": trigger["allow_host_tools"],
            "role": demand.role,
            "not_requester": demand.not_requester,
            "now": params["now"],
        },
    )
    about = {"approvalId": str(approval_id), "tool": question.tool}
    emit(run_event("run.waiting", actor, run, about))
    if run["has_reservations"]:
        settle_reservations([run["id"]], told_cost=params["cost_usd"])
    wake_for(freed_slots([run]), also=[run["worker_id"], run["id"]])
    return run


def note_change(*, environment_id: UUID, trigger_ids: Sequence[UUID], actor: Actor) -> None:
    """Notes who changes these triggers of an environment, for rules by which they may not approve. The caller has
    locked the triggers, and all runs that it locks. A change by the service itself bars nobody, and a rehearsal notes
    nothing.
    """
    if actor.id is not None and not is_rehearsal():
        about = {"environment_id": environment_id, "trigger_ids": list(trigger_ids)}
        execute(_NOTE_CHANGE, {**about, "changed_by": actor.id})


def settle_changes(*, trigger_id: UUID, decided_by: UUID | None) -> None:
    """Notes that a user has decided about a call of a run of the trigger, which the caller has locked."""
    execute(_SETTLE_CHANGES, {"trigger_id": trigger_id, "user_id": decided_by})


def close_approvals(
    runs: Sequence[Row], status: ApprovalStatus, *, now: datetime | None = None
) -> None:
    """Closes the questions of these runs, which have ended. Call it after the runs were changed."""
    if runs:
        params = {
            "run_ids": [run["id"] for run in runs],
            "environment_ids": list({run["environment_id"] for run in runs}),
            "status": status.value,
            "now": now,
        }
        execute(_CLOSE, params)
