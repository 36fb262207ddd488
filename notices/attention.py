"""Finds what needs attention in an environment, and says in sentences why, and what to do about it.

Each source is one SQL statement, with the function that writes the sentences about its rows. The statements use the
same conditions as polls, explanations and incidents, so that all of them agree.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple
from uuid import UUID

from notices.health import IS_FINAL
from notices.incidents import has_no_incident
from notices.serializers import told_of
from notices.states import (
    APPROVAL,
    CHANNEL_DEAD,
    CONNECTION_FAILING,
    NEEDS,
    RUN_FAILED,
    USER_LEFT,
    WORKER_PROBLEM,
    Kind,
    headline,
)
from pipedai.api.renderers import counted
from pipedai.sql import NOW, Row, fetch_all, fetch_row
from triggers.approvals.rules import DECIDERS_OF_MANY, MEMBERS_OF_ROLES, untold
from triggers.explain import candidates
from triggers.explain.answers import Reason, due_time_words
from triggers.explain.due_times import LATE_AFTER, why_no_run
from triggers.reasons import DUE_TIMES, ENDS, PENDING, WaitingFor, end_code
from triggers.runs.conditions import (
    IS_DUE,
    IS_IN_TIME,
    IS_OPEN_TO_POOL,
    IS_QUEUED,
    LACKS_TOKEN,
    MAY_START,
    is_online,
)
from triggers.states import Decision

# An answer has at most this many items.
MAX_ITEMS: Final = 200
# A failure that raised no incident is listed for this long.
RECENT: Final = timedelta(days=1)
# At most this many runs that wait for a machine are counted, to keep the count cheap.
MOST_COUNTED: Final = 100
# All kinds of items, the most urgent first.
KINDS: Final = tuple(NEEDS)

_UNKNOWN = "Look at the trigger's runs with GET /triggers/:id/runs."


class Told(NamedTuple):
    """The answer's words for an item: sentences for people, and a code for programs, or None if the kind says all."""

    reason: str | None
    summary: str
    remedy: str


# The columns of a run `r` that tell how it ended.
_ENDED = """r.ended_by, r.fault_class, left(coalesce(
        (SELECT x.error_message FROM run_text x WHERE x.run_id = r.id), r.short_message), 300) AS error"""
_OF_ENVIRONMENT = "environment_id = %(environment_id)s"
_IS_NOT_PAUSED = (
    "NOT EXISTS (SELECT FROM environment WHERE id = %(environment_id)s AND paused_at IS NOT NULL)"
)

_IS_ONLINE = is_online("w")
# When an offline worker signed off or, if it did not, called for the last time.
_CALLED_UNTIL = "coalesce(w.signed_off_at, w.last_seen_at)"

# The approvals that still wait for a person's decision.
_APPROVALS = f"""
WITH able AS MATERIALIZED ({MEMBERS_OF_ROLES})
SELECT '{APPROVAL}' AS kind, a.created_at AS since, 'approval' AS subject_type, a.id AS subject_id,
    t.name AS subject_name, a.run_id, a.tool, a.role, a.expires_at, t.timezone, {DECIDERS_OF_MANY},
    count(*) OVER () AS total
FROM approval a JOIN trigger t ON t.id = a.trigger_id LEFT JOIN able ON able.role = a.role
WHERE a.{_OF_ENVIRONMENT} AND a.status = 'pending'
ORDER BY a.created_at DESC, a.id LIMIT %(limit)s
"""  # noqa: S608


def of_approval(row: Row) -> Told:
    """Returns the sentences about an approval that waits for a person's decision."""
    until = due_time_words(row["expires_at"], row["timezone"])
    reason, wrong, remedy = untold(row) or (None, "", "")
    said = (
        f"A run of trigger {row['subject_name']} wants to call {row['tool']}, and waits until {until} for somebody with"
        f" the role {row['role']} or above to approve or reject it."
    )
    return Told(reason, f"{said} {wrong}".strip(), remedy or NEEDS[APPROVAL].remedy)


# The open incidents. `late_since` is the due time since which a trigger is late, and `decision` says what became of it.
_INCIDENTS = f"""
SELECT i.id AS incident_id, i.kind, i.opened_at AS since, i.subject_type, i.subject_id, i.subject_name, i.run_id,
    i.message, i.acknowledged_at, i.total, {_ENDED}, tick.decision, w.label, {_CALLED_UNTIL} AS called_until,
    w.token_digest IS NOT NULL AS has_token, {NOW} AS now,
    EXISTS (SELECT FROM pool_member m WHERE m.pool_id = i.subject_id) AS has_workers
FROM (
    SELECT *, count(*) OVER () AS total FROM incident WHERE {_OF_ENVIRONMENT} AND closed_at IS NULL
    ORDER BY acknowledged_at IS NOT NULL, array_position(%(kinds)s, kind::text), opened_at DESC, id
    LIMIT %(limit)s) i
LEFT JOIN run r ON r.id = i.run_id AND r.environment_id = i.environment_id
LEFT JOIN worker w ON w.id = i.subject_id AND w.environment_id = i.environment_id
LEFT JOIN trigger_health h ON i.kind = '{Kind.TRIGGER_LATE.value}' AND h.trigger_id = i.subject_id
LEFT JOIN LATERAL (
    SELECT decision, last_tick_at FROM tick WHERE trigger_id = h.trigger_id AND tick_at <= h.late_since
    ORDER BY tick_at DESC LIMIT 1) tick ON tick.last_tick_at >= h.late_since
"""  # noqa: S608


def of_incident(row: Row) -> Told:
    """Returns the sentences about an open incident."""
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
    return Told(None, said, NEEDS[row["kind"]].remedy)


def _why(row: Row, said: str) -> Told:
    """Returns the sentences about a failure, by what ended the run: a rule of the server, or else the worker's report.
    If the run was pruned, the cause is unknown.
    """
    reason = end_code(row["ended_by"], row["fault_class"])
    return Told(reason, said, ENDS[reason].remedy if reason else _UNKNOWN)


def _head_of_queue(queue: str, order: str, condition: str, columns: str) -> str:
    """Returns the SQL that selects `columns` of the due runs at the head of a queue that meet the condition, in the
    queue's order. It reads no more runs than it returns.
    """
    return f"""(
    SELECT {columns} FROM (
        SELECT * FROM run r WHERE {queue} AND {IS_QUEUED} AND {IS_DUE} ORDER BY {order} LIMIT {MOST_COUNTED}) r
    WHERE {IS_IN_TIME} AND {MAY_START} AND {condition})"""  # noqa: S608


_NUMBER = "count(*) AS runs"
_NUMBER_AND_SINCE = f"{_NUMBER}, min(r.available_at) AS since"


def _of_worker(worker_id: str, columns: str) -> str:
    condition = f"NOT coalesce({IS_OPEN_TO_POOL}, false)"
    return _head_of_queue(f"r.worker_id = {worker_id}", "r.available_at, r.id", condition, columns)


# The run's own worker need not be a member of the pool to take a run that is open to the pool.
_OWN_IS_OFFLINE = f"""NOT EXISTS (
        SELECT FROM worker w WHERE w.id = r.worker_id AND w.disabled_at IS NULL AND {_IS_ONLINE})"""
_OF_POOL = f"r.pool_id = p.id AND {IS_OPEN_TO_POOL}"
# The pools without an online worker for which due runs wait. A pool whose workers are all disabled is left out, as it
# is from incidents, because somebody has decided so. Pools without a queued run are left out first (OFFSET 0), because
# reading the workers of all pools would take longer.
_POOLS = f"""
SELECT '{Kind.POOL_OFFLINE.value}' AS kind, greatest(coalesce(m.called_until, p.created_at), q.since) AS since,
    'pool' AS subject_type, p.id AS subject_id, p.name AS subject_name, m.n > 0 AS has_workers, q.runs,
    count(*) OVER () AS total
FROM (
    SELECT * FROM pool p
    WHERE p.{_OF_ENVIRONMENT} AND p.deleted_at IS NULL
        AND EXISTS (SELECT FROM run r WHERE r.pool_id = p.id AND {IS_QUEUED} ORDER BY r.pool_from OFFSET 0)
    OFFSET 0) p
CROSS JOIN LATERAL (
    SELECT count(*) AS n, count(*) FILTER (WHERE w.disabled_at IS NULL) AS enabled,
        count(*) FILTER (WHERE w.disabled_at IS NULL AND {_IS_ONLINE}) AS online, max({_CALLED_UNTIL}) AS called_until
    FROM pool_member m JOIN worker w ON w.id = m.worker_id WHERE m.pool_id = p.id) m
CROSS JOIN LATERAL {_head_of_queue(_OF_POOL, "r.pool_from, r.id", _OWN_IS_OFFLINE, _NUMBER_AND_SINCE)} q
WHERE m.online = 0 AND (m.n = 0 OR m.enabled > 0) AND q.runs > 0
    AND {_IS_NOT_PAUSED} AND {has_no_incident(Kind.POOL_OFFLINE, "p")}
ORDER BY since DESC, p.id LIMIT %(limit)s
"""  # noqa: S608


def of_pool(row: Row) -> Told:
    """Returns the sentences about an offline pool: one with an incident, or one for which `runs` due runs wait."""
    pool = {"pool_id": row["subject_id"], "pool_name": row["subject_name"]}
    if not row["has_workers"]:
        return _of_machine(row, candidates.empty(pool))
    said = row.get("message") or ""
    return Told(
        WaitingFor.POOL_OFFLINE,
        f"{headline(row['kind'], row['subject_name'])}. {said or _runs_wait(row)}",
        candidates.START_ONE,
    )


# The offline workers for which due runs wait that no other worker may take at present. The run that is due first says
# since when the worker is missing. Runs are counted only for the workers that are returned, to save time.
_WORKERS = f"""
SELECT shown.*, q.runs FROM (
    SELECT '{Kind.WORKER_OFFLINE.value}' AS kind,
        greatest(coalesce({_CALLED_UNTIL}, w.created_at), first.available_at) AS since, 'worker' AS subject_type,
        w.id AS subject_id, w.label AS subject_name, w.label, {_CALLED_UNTIL} AS called_until,
        w.token_digest IS NOT NULL AS has_token, {NOW} AS now, count(*) OVER () AS total
    FROM worker w CROSS JOIN LATERAL (
        SELECT * FROM {_of_worker("w.id", "r.available_at")} r ORDER BY available_at LIMIT 1) first
    WHERE w.{_OF_ENVIRONMENT} AND w.deleted_at IS NULL AND w.disabled_at IS NULL AND NOT {_IS_ONLINE}
        AND {_IS_NOT_PAUSED} AND {has_no_incident(Kind.WORKER_OFFLINE, "w")}
    ORDER BY since DESC, w.id LIMIT %(limit)s) shown
CROSS JOIN LATERAL {_of_worker("shown.subject_id", _NUMBER)} q
ORDER BY since DESC, subject_id
"""  # noqa: S608


def of_worker(row: Row) -> Told:
    """Returns the sentences about an offline worker: one with an incident, or one for which `runs` due runs wait."""
    code = WaitingFor.WORKER_OFFLINE if row["has_token"] else WaitingFor.WORKER_REVOKED
    worker = {**row, "worker_id": row["subject_id"], "deleted_at": None}
    (reason,) = candidates.own_reasons({"pool_id": None, "now": row["now"]}, worker, [code])
    return _of_machine(row, reason)


def _of_machine(row: Row, reason: Reason) -> Told:
    said = " ".join(filter(None, (reason.message, _runs_wait(row))))
    return Told(reason.code, said, reason.remedy or "")


def _runs_wait(row: Row) -> str:
    runs = row.get("runs")
    if not runs:
        return ""
    least = "At least " if runs == MOST_COUNTED else ""
    return f"{least}{counted(runs, 'due run')} {'waits' if runs == 1 else 'wait'} for it."


# The enabled workers that report a problem with their machines. A worker can report one and still execute runs.
_PROBLEMS = f"""
SELECT '{WORKER_PROBLEM}' AS kind, w.problems_since AS since, 'worker' AS subject_type, w.id AS subject_id,
    w.label AS subject_name, w.problems -> 0 ->> 'code' AS reason, (
        SELECT string_agg(p ->> 'message', ' ' ORDER BY n)
        FROM jsonb_array_elements(w.problems) WITH ORDINALITY AS each (p, n)) AS said,
    count(*) OVER () AS total
FROM worker w
WHERE w.{_OF_ENVIRONMENT} AND w.deleted_at IS NULL AND w.disabled_at IS NULL AND w.problems_since IS NOT NULL
ORDER BY since DESC, w.id LIMIT %(limit)s
"""  # noqa: S608


def of_problems(row: Row) -> Told:
    need = NEEDS[WORKER_PROBLEM]
    said = f"{need.sentence.format(row['subject_name'])} {row['said']}"
    return Told(row["reason"], said, need.remedy)


# The triggers with a due time that has passed, about which no scheduler has decided for longer than usual.
_UNDECIDED = f"""
SELECT '{Kind.TRIGGER_LATE.value}' AS kind, t.next_run_at AS since, 'trigger' AS subject_type, t.id AS subject_id,
    t.name AS subject_name, t.timezone, count(*) OVER () AS total
FROM trigger t
WHERE t.{_OF_ENVIRONMENT} AND t.deleted_at IS NULL AND t.enabled AND t.next_run_at < {NOW} - %(late_after)s
    AND {has_no_incident(Kind.TRIGGER_LATE, "t")}
ORDER BY t.next_run_at DESC, t.id LIMIT %(limit)s
"""  # noqa: S608


def of_undecided(row: Row) -> Told:
    """Returns the sentences about a due time about which no scheduler has decided."""
    due = due_time_words(row["since"], row["timezone"])
    said = f"{headline(row['kind'], row['subject_name'])}. {due} was due, and no scheduler has come to it yet."
    return Told(PENDING, said, DUE_TIMES[PENDING].remedy)


# The connections whose requests for new tokens keep failing, with the time from which their runs wait.
_FAILING_CONNECTIONS = f"""
SELECT '{CONNECTION_FAILING}' AS kind, coalesce(c.fresh_until, c.updated_at) AS since, 'connection' AS subject_type,
    c.id AS subject_id, c.name AS subject_name, c.error, count(*) OVER () AS total
FROM connection c WHERE c.{_OF_ENVIRONMENT} AND c.status = 'failing' AND {LACKS_TOKEN}
ORDER BY since DESC, c.id LIMIT %(limit)s
"""  # noqa: S608

# The connections whose user has left the environment or is deactivated. Their tokens stay valid, but the user can end
# them at the server, and nobody here can sign in as that user. OFFSET 0 makes PostgreSQL look up the user of each
# connection, because comparing the connections with all members takes longer.
_USERS_LEFT = f"""
SELECT '{USER_LEFT}' AS kind, c.connected_at AS since, 'connection' AS subject_type, c.id AS subject_id,
    c.name AS subject_name, count(*) OVER () AS total
FROM connection c WHERE c.{_OF_ENVIRONMENT} AND c.connected_by_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM membership m JOIN user_account u ON u.id = m.user_id
    WHERE m.environment_id = c.environment_id AND m.user_id = c.connected_by_id AND u.is_active OFFSET 0)
ORDER BY c.connected_at DESC, c.id LIMIT %(limit)s
"""  # noqa: S608

# The channels whose last notice was given up.
_CHANNELS = f"""
SELECT '{CHANNEL_DEAD}' AS kind, failing_since AS since, 'channel' AS subject_type, id AS subject_id,
    name AS subject_name, last_error AS error, count(*) OVER () AS total
FROM channel WHERE {_OF_ENVIRONMENT} AND deleted_at IS NULL AND enabled AND failing_since IS NOT NULL
ORDER BY failing_since DESC, id LIMIT %(limit)s
"""  # noqa: S608


def of_kind(row: Row) -> Told:
    """Returns the sentences about an item if its kind and its subject say everything."""
    need = NEEDS[row["kind"]]
    return Told(None, need.sentence.format(row["subject_name"]), need.remedy)


_FAULT = f"""
(SELECT r.* FROM run r
WHERE r.trigger_id = t.id AND r.status = '{{status}}' AND r.ended_at > {NOW} - %(recent)s AND {IS_FINAL}
ORDER BY r.ended_at DESC LIMIT 1)"""  # noqa: S608

# The triggers whose last final outcome was a failure without an incident: an incident needs more failures in a row, or
# the environment was paused, or the trigger is to raise none. The CTE first finds the triggers whose runs failed
# lately, because only their last outcomes need to be read.
_FAILURES = f"""
WITH failing AS MATERIALIZED (
    SELECT DISTINCT trigger_id FROM (
        SELECT trigger_id FROM run
        WHERE {_OF_ENVIRONMENT} AND ended_at > {NOW} - %(recent)s AND status IN ('failed', 'timed_out')
        ORDER BY ended_at OFFSET 0) r)
SELECT '{RUN_FAILED}' AS kind, r.ended_at AS since, 'trigger' AS subject_type, t.id AS subject_id,
    t.name AS subject_name, r.id AS run_id, {_ENDED}, t.alert_after_failures,
    NOT {_IS_NOT_PAUSED} AS is_paused, count(*) OVER () AS total
FROM failing
CROSS JOIN LATERAL (SELECT * FROM trigger t WHERE t.id = failing.trigger_id OFFSET 0) t
LEFT JOIN LATERAL (SELECT * FROM trigger_health h WHERE h.trigger_id = t.id OFFSET 0) h ON true
CROSS JOIN LATERAL (
    SELECT * FROM ({_FAULT.format(status="failed")} UNION ALL {_FAULT.format(status="timed_out")}) r
    ORDER BY ended_at DESC LIMIT 1) r
WHERE t.{_OF_ENVIRONMENT} AND t.deleted_at IS NULL AND t.enabled AND h.is_failing IS NOT TRUE
    AND r.ended_at >= coalesce(h.counts_from, '-infinity') AND NOT EXISTS (
        SELECT FROM run won WHERE won.trigger_id = t.id AND won.status = 'succeeded' AND won.ended_at > r.ended_at)
ORDER BY r.ended_at DESC, t.id LIMIT %(limit)s
"""  # noqa: S608


def of_failure(row: Row) -> Told:
    """Returns the sentences about a failure that raised no incident."""
    after = row["alert_after_failures"]
    when = f"after {counted(after, 'failure')} in a row" if after else "never"
    if after and row["is_paused"]:
        when += ", and not while the environment is paused"
    said = NEEDS[RUN_FAILED].sentence.format(row["subject_name"])
    return _why(row, f"{said} No incident tells of it: one opens {when}.")


# Each statement returns the first `limit` items of its kinds in the order of `_urgency`. A row has `kind`, `since`,
# `subject_type`, `subject_id`, `subject_name`, and `total`, the number of all items. It may have columns of _NOTHING.
SOURCES: Final[tuple[tuple[str, Callable[[Row], Told]], ...]] = (
    (_APPROVALS, of_approval),
    (_INCIDENTS, of_incident),
    (_POOLS, of_pool),
    (_WORKERS, of_worker),
    (_PROBLEMS, of_problems),
    (_UNDECIDED, of_undecided),
    (_FAILING_CONNECTIONS, of_kind),
    (_CHANNELS, of_kind),
    (_FAILURES, of_failure),
    (_USERS_LEFT, of_kind),
)
_NOTHING: Row = dict.fromkeys(("run_id", "error", "incident_id", "acknowledged_at"))
_COUNT = f"""
SELECT coalesce(sum(total), 0)::int AS total FROM (
    {" UNION ALL ".join(f"(SELECT total FROM ({each}) source LIMIT 1)" for each, _ in SOURCES)}) sources
"""  # noqa: S608


def _params(environment_id: UUID, limit: int, now: datetime | None) -> dict[str, Any]:
    return {
        "environment_id": environment_id,
        "kinds": list(KINDS),
        "limit": limit,
        "late_after": LATE_AFTER,
        "recent": RECENT,
        "now": now,
    }


def count_attention(environment_id: UUID, *, now: datetime | None = None) -> int:
    """Returns how many items need attention in an environment, in one query."""
    total: int = fetch_row(_COUNT, _params(environment_id, 1, now))["total"]
    return total


def find_attention(environment_id: UUID, *, now: datetime | None = None) -> tuple[list[Row], int]:
    """Returns what needs attention in an environment, as rows for AttentionItemSerializer, the most urgent first, and
    how many items there are. At most MAX_ITEMS are returned. It runs a query for each source, and one more.
    """
    params = _params(environment_id, MAX_ITEMS, now)
    found: list[tuple[Row, Callable[[Row], Told]]] = []
    total = 0
    for statement, tell in SOURCES:
        rows = fetch_all(statement, params)
        total += rows[0]["total"] if rows else 0
        found += [(_NOTHING | row, tell) for row in rows]
    found.sort(key=lambda each: _urgency(each[0]))
    del found[MAX_ITEMS:]
    told = told_of([row["incident_id"] or row["subject_id"] for row, _ in found])
    items = []
    for row, tell in found:
        said = tell(row)
        items.append(
            {
                **row,
                "subject": {name: row[f"subject_{name}"] for name in ("type", "id", "name")},
                "reason": said.reason,
                "summary": said.summary,
                "remedy": {"text": said.remedy},
                "told": told.get(row["incident_id"] or row["subject_id"], []),
            }
        )
    return items, total


def _urgency(row: Row) -> tuple[bool, int, float]:
    """Returns the sort key of items: unacknowledged ones first, then by kind, then the newest first."""
    since: datetime = row["since"]
    return row["acknowledged_at"] is not None, KINDS.index(row["kind"]), -since.timestamp()
