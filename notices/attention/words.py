"""Words what needs attention: why it is so, and what to do about it (SPEC §28)."""

from typing import NamedTuple

from notices.states import Kind, headline
from pipedai.api.renderers import counted
from pipedai.sql import Row
from triggers.approvals.deciders import untold
from triggers.explain import pool_reasons, worker_reasons
from triggers.explain.answers import INFRA_FAULT, PENDING, Reason, WaitingFor
from triggers.explain.clock_words import due_time_words
from triggers.explain.due_times import why_no_run
from triggers.runs.retries import NoRetry
from triggers.states import Decision, EndedBy, FaultClass


class Told(NamedTuple):
    """What is told of an item: a code for programs, or None if the kind says all, and sentences for people."""

    reason: str | None
    summary: str
    remedy: str


# So many runs that wait for a machine are counted at most.
MOST_COUNTED = 100

# The codes of the faults that a worker reports.
_FAULTS: dict[str, str] = {FaultClass.CLIENT: NoRetry.CLIENT_FAULT, FaultClass.INFRA: INFRA_FAULT}
_RERUN = "then run it again with POST /runs/:id/rerun."
# What to do about a failed run, by what ended it.
_AFTER_FAILURE: dict[str, str] = {
    EndedBy.LEASE: f"Look why the worker fell silent: at its machine and its log; {_RERUN}",
    EndedBy.DEADLINE: f"Raise timeoutSeconds with PATCH /triggers/:id, or make the prompt ask for less; {_RERUN}",
    EndedBy.START_DEADLINE: "See with GET /triggers/:id/explain why no worker took it, start one, or raise"
    f" startDeadlineSeconds with PATCH /triggers/:id; {_RERUN}",
    EndedBy.HAD_EFFECTS: f"See with GET /runs/:id/tool-calls what the run before it may have changed; {_RERUN}",
    EndedBy.APPROVAL_EXPIRED: "Decide sooner, or raise expiresAfterSeconds of the trigger's approvals with PATCH"
    f" /triggers/:id; {_RERUN}",
    EndedBy.APPROVAL_UNREACHABLE: f"Look why the worker did not come back: at its machine and its log; {_RERUN}",
    NoRetry.CLIENT_FAULT: "Read the run's error, correct the trigger's prompt, model, MCP server or headers with PATCH"
    f" /triggers/:id; {_RERUN}",
    INFRA_FAULT: f"Read the run's error and the worker's log; {_RERUN}",
}
_UNKNOWN = "Look at the trigger's runs with GET /triggers/:id/runs."

# What to do about a late trigger, by the decision about its due time.
_AFTER_DECISION: dict[str, str] = {
    Decision.FIRED: "See with GET /triggers/:id/explain what the run waits for, or how it ended.",
    Decision.SKIPPED_OVERLAP: "Cancel the earlier run with POST /runs/:id/cancel if it hangs, or set overlapPolicy to"
    " queue with PATCH /triggers/:id.",
    Decision.SKIPPED_MISSED: "Run it now with POST /triggers/:id/run.",
    Decision.SKIPPED_NO_WORKER: "Give the trigger a worker or a pool with PATCH /triggers/:id (workerId, poolId), and"
    " run it now with POST /triggers/:id/run.",
    Decision.SKIPPED_PAUSED: "Run it now with POST /triggers/:id/run.",
    PENDING: "The operator of the service has to look at its schedulers: GET /health tells whether one is alive. Until"
    " then run the trigger with POST /triggers/:id/run.",
}


def of_incident(row: Row) -> Told:
    """Words an open incident."""
    if row["kind"] == Kind.WORKER_OFFLINE and row["label"] is not None:
        return of_worker(row)
    if row["kind"] == Kind.POOL_OFFLINE:
        return of_pool(row)
    said = f"{headline(row['kind'], row['subject_name'])}. {row['message']}"
    if row["kind"] == Kind.TRIGGER_FAILING:
        return _why(row, said)
    if row["kind"] == Kind.TRIGGER_LATE:
        decision = row["decision"] or PENDING
        if decision not in (Decision.FIRED, PENDING):
            said += f" It made no run, because {why_no_run(decision)}."
        return Told(decision, said, _AFTER_DECISION.get(decision, _UNKNOWN))
    return Told(None, said, _OF_KIND.get(row["kind"], _UNKNOWN))


_OF_KIND: dict[str, str] = {
    Kind.WEBHOOK_DEAD: "See with GET /triggers/:id/deliveries what the receiver answered, correct webhookUrl with PATCH"
    " /triggers/:id, and send it again with POST /deliveries/:id/redeliver.",
    Kind.BUDGET_REACHED: "Raise limitUsd or limitRuns with PATCH /budgets/:id, or wait for its next window.",
    Kind.CONNECTION_NEEDS_LOGIN: "Connect it again on its page, to which POST /connections/:id/authorize leads. One"
    " of the grant client_credentials needs another clientSecret instead, with PATCH /connections/:id.",
}


def of_approval(row: Row) -> Told:
    """Words a call about which somebody has to decide."""
    until = due_time_words(row["expires_at"], row["timezone"])
    reason, wrong, remedy = untold(row) or (None, "", "")
    said = (
        f"A run of trigger {row['subject_name']} wants to call {row['tool']}, and waits until {until} for somebody with"
        f" the role {row['role']} or above to approve or reject it."
    )
    return Told(reason, f"{said} {wrong}".strip(), remedy or "Decide on its page in the console.")


def of_failure(row: Row) -> Told:
    """Words a failure that raised no incident."""
    after = row["alert_after_failures"]
    when = f"after {counted(after, 'failure')} in a row" if after else "never"
    if after and row["is_paused"]:
        when += ", and not while the environment is paused"
    said = f"The last run of trigger {row['subject_name']} failed or timed out."
    return _why(row, f"{said} No incident tells of it: one opens {when}.")


def _why(row: Row, said: str) -> Told:
    """Words a failure by what ended the run: a rule of the server, or else the worker's report. If the run was pruned,
    nobody knows.
    """
    reason = row["ended_by"]
    if reason not in _AFTER_FAILURE:
        reason = row["fault_class"] and _FAULTS.get(row["fault_class"])
    return Told(reason, said, _AFTER_FAILURE.get(reason, _UNKNOWN))


def of_worker(row: Row) -> Told:
    """Words an offline worker: that of an incident, or one for which `runs` due runs wait."""
    code = WaitingFor.WORKER_OFFLINE if row["has_token"] else WaitingFor.WORKER_REVOKED
    worker = {**row, "worker_id": row["subject_id"], "deleted_at": None}
    (reason,) = worker_reasons.reasons({"pool_id": None, "now": row["now"]}, worker, [code])
    return _of_machine(row, reason)


def of_pool(row: Row) -> Told:
    """Words a pool without an online worker: that of an incident, or one for which `runs` due runs wait."""
    pool = {"pool_id": row["subject_id"], "pool_name": row["subject_name"]}
    if not row["has_workers"]:
        return _of_machine(row, pool_reasons.empty(pool))
    said = row.get("message") or ""
    return Told(
        WaitingFor.POOL_OFFLINE,
        f"{headline(row['kind'], row['subject_name'])}. {said or _waiting(row)}",
        pool_reasons.START_ONE,
    )


def of_undecided(row: Row) -> Told:
    """Words a due time about which no scheduler has decided."""
    due = due_time_words(row["since"], row["timezone"])
    said = f"{headline(row['kind'], row['subject_name'])}. {due} was due, and no scheduler has come to it yet."
    return Told(PENDING, said, _AFTER_DECISION[PENDING])


def of_channel(row: Row) -> Told:
    """Words a channel whose notices are given up."""
    return Told(
        None,
        f"Channel {row['subject_name']} reaches nobody: its last notice was given up.",
        "See with GET /channels/:id/notices what became of its notices, correct it with PATCH /channels/:id, and try it"
        " with POST /channels/:id/test.",
    )


def of_failing_connection(row: Row) -> Told:
    """Words a connection whose runs wait because its server gives no tokens for now."""
    return Told(
        None,
        f"Connection {row['subject_name']} gets no fresh token, so its runs wait.",
        "See what the error says of its servers. Schedulers keep trying, and the runs go out when they have a token.",
    )


def of_user_left(row: Row) -> Told:
    """Words a connection whose user has left the environment."""
    return Told(
        None,
        f"Connection {row['subject_name']} lives on the login of somebody who is no active member any more.",
        "Let a member connect it again on its page, to which POST /connections/:id/authorize leads.",
    )


def _of_machine(row: Row, reason: Reason) -> Told:
    said = " ".join(filter(None, (reason.message, _waiting(row))))
    return Told(reason.code, said, reason.remedy or "")


def _waiting(row: Row) -> str:
    runs = row.get("runs")
    if not runs:
        return ""
    least = "At least " if runs == MOST_COUNTED else ""
    return f"{least}{counted(runs, 'due run')} {'waits' if runs == 1 else 'wait'} for it."
