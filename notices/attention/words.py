"""Words what needs attention: why it is so, and what to do about it (SPEC §28)."""

from typing import NamedTuple

from notices.states import APPROVAL, NEEDS, Kind, headline
from pipedai.api.renderers import counted
from pipedai.sql import Row
from triggers.approvals.deciders import untold
from triggers.explain import machine_reasons
from triggers.explain.answers import Reason
from triggers.explain.clock_words import due_time_words
from triggers.explain.due_times import why_no_run
from triggers.reasons import DUE_TIMES, ENDS, PENDING, WaitingFor, end_code
from triggers.states import Decision


class Told(NamedTuple):
    """What is told of an item: a code for programs, or None if the kind says all, and sentences for people."""

    reason: str | None
    summary: str
    remedy: str


# So many runs that wait for a machine are counted at most.
MOST_COUNTED = 100

_UNKNOWN = "Look at the trigger's runs with GET /triggers/:id/runs."


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
        why = DUE_TIMES.get(decision)
        return Told(decision, said, why.remedy if why else _UNKNOWN)
    return _told(row, said)


def of_approval(row: Row) -> Told:
    """Words a call about which somebody has to decide."""
    until = due_time_words(row["expires_at"], row["timezone"])
    reason, wrong, remedy = untold(row) or (None, "", "")
    said = (
        f"A run of trigger {row['subject_name']} wants to call {row['tool']}, and waits until {until} for somebody with"
        f" the role {row['role']} or above to approve or reject it."
    )
    return Told(reason, f"{said} {wrong}".strip(), remedy or NEEDS[APPROVAL].remedy)


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
    reason = end_code(row["ended_by"], row["fault_class"])
    return Told(reason, said, ENDS[reason].remedy if reason else _UNKNOWN)


def of_worker(row: Row) -> Told:
    """Words an offline worker: that of an incident, or one for which `runs` due runs wait."""
    code = WaitingFor.WORKER_OFFLINE if row["has_token"] else WaitingFor.WORKER_REVOKED
    worker = {**row, "worker_id": row["subject_id"], "deleted_at": None}
    (reason,) = machine_reasons.own_reasons({"pool_id": None, "now": row["now"]}, worker, [code])
    return _of_machine(row, reason)


def of_pool(row: Row) -> Told:
    """Words a pool without an online worker: that of an incident, or one for which `runs` due runs wait."""
    pool = {"pool_id": row["subject_id"], "pool_name": row["subject_name"]}
    if not row["has_workers"]:
        return _of_machine(row, machine_reasons.empty(pool))
    said = row.get("message") or ""
    return Told(
        WaitingFor.POOL_OFFLINE,
        f"{headline(row['kind'], row['subject_name'])}. {said or _waiting(row)}",
        machine_reasons.START_ONE,
    )


def of_undecided(row: Row) -> Told:
    """Words a due time about which no scheduler has decided."""
    due = due_time_words(row["since"], row["timezone"])
    said = f"{headline(row['kind'], row['subject_name'])}. {due} was due, and no scheduler has come to it yet."
    return Told(PENDING, said, DUE_TIMES[PENDING].remedy)


def of_channel(row: Row) -> Told:
    """Words a channel whose notices are given up."""
    return _told(
        row, f"Channel {row['subject_name']} reaches nobody: its last notice was given up."
    )


def of_failing_connection(row: Row) -> Told:
    """Words a connection whose runs wait because its server gives no tokens for now."""
    return _told(row, f"Connection {row['subject_name']} gets no fresh token, so its runs wait.")


def of_user_left(row: Row) -> Told:
    """Words a connection whose user has left the environment."""
    return _told(
        row,
        f"Connection {row['subject_name']} lives on the login of somebody who is no active member any more.",
    )


def _told(row: Row, said: str) -> Told:
    """Words an item whose kind says why, and what to do."""
    return Told(None, said, NEEDS[row["kind"]].remedy)


def _of_machine(row: Row, reason: Reason) -> Told:
    said = " ".join(filter(None, (reason.message, _waiting(row))))
    return Told(reason.code, said, reason.remedy or "")


def _waiting(row: Row) -> str:
    runs = row.get("runs")
    if not runs:
        return ""
    least = "At least " if runs == MOST_COUNTED else ""
    return f"{least}{counted(runs, 'due run')} {'waits' if runs == 1 else 'wait'} for it."
