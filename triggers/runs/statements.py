"""The SQL statements that read, lock and write runs; no other module writes them (docs/decisions/lifecycle-sql.md).

Each transition is one UPDATE whose condition names the expected state and the run's worker.
"""

# These statements are raw SQL for speed, so no migration renames columns in them. See docs/decisions/fast-paths.md.

from datetime import timedelta
from functools import cache, partial

from pipedai.sql import NOW
from pipedai.turns import found_rows
from triggers.budgets.spending import CAN_REJECT, CAP, HAS_BUDGETS, HAS_RESERVATIONS
from triggers.heartbeats import LEASES_COUNT
from triggers.models import MAX_SPELLS, RUN_COLUMNS
from triggers.runs.conditions import (
    IS_COUNTED_AS_QUEUED,
    IS_HELD,
    MAY_BE_CLAIMED,
    OF_ENVIRONMENT,
    ONLY_RESUMES,
    avoided_worker,
    pool_from,
)
from triggers.runs.outcome import MAX_DENIED_TOOLS

RUN = ", ".join(f"r.{column}" for column in RUN_COLUMNS)

# How long after it came due, or after its worker's usage limit, a retry waits for the worker that can continue the
# session of the run that it repeats.
RESUMABLE_FOR = "1 hour"

# The column `will_retry` of a run `r`: whether it has a retry that no late result canceled; NULL until it has ended.
_WILL_RETRY = "CASE WHEN r.ended_at IS NOT NULL THEN r.retried END AS will_retry"

# Until when the retry of a run `r` waits for the run's worker to continue the session; NULL if it does not.
_RESUME_UNTIL = """CASE WHEN r.ended_at IS NOT NULL THEN (
        SELECT retry.resume_until FROM run retry
        WHERE retry.retry_of_id = r.id AND retry.environment_id = r.environment_id) END"""

# Until when the worker of a waiting run may have to continue it: an hour after the last moment for a decision.
LAST_RESUME = f"r.resume_until + interval '{RESUMABLE_FOR}'"

READ = f"""
SELECT {RUN}, {_WILL_RETRY},
    CASE WHEN r.status = 'waiting' THEN {LAST_RESUME} WHEN r.status = 'queued' AND r.spells > 0 THEN r.resume_until
        ELSE {_RESUME_UNTIL} END AS resume_until,
    r.claim_id, r.ended_by, r.denials_total, r.look_only, r.tool_calls_total,
    r.tool_calls_effects, t.name AS trigger_name, t.max_concurrent_runs,
    t.fail_on_denied, {CAP} AS max_cost_usd, x.error_message, x.late_result IS NOT NULL AS has_late_result,
    v.output_schema IS NOT NULL AS has_output_schema
FROM run r JOIN trigger t ON t.id = r.trigger_id JOIN trigger_revision v ON v.id = r.revision_id
LEFT JOIN run_text x ON x.run_id = r.id
WHERE r.id = %(run_id)s
"""

# What a run `r` last asked for, as the row `asked`, all NULL if it never waited: then the table is not looked at.
LAST_ASKED = """LEFT JOIN LATERAL (
    SELECT a.* FROM approval a WHERE r.spells > 0 AND a.run_id = r.id AND a.environment_id = r.environment_id
    ORDER BY a.created_at DESC, a.id DESC LIMIT 1) asked ON true"""
# Whether a run has the CLI's own tools for shells, the web and files.
ALLOWS_HOST_TOOLS = "t.allow_host_tools AND coalesce(asked.allow_host_tools, true)"

LOCK = "SELECT FROM run WHERE id = %(run_id)s FOR NO KEY UPDATE"

# Which events of a run `r` of the trigger `t` its worker is to send, as a value of `RecordEvents`.
RECORD_EVENTS = (
    "CASE WHEN r.watched AND t.record_events = 'failures' THEN 'always' ELSE t.record_events END"
)

# Locks a trigger. By this lock, changes of the trigger and decisions come one after the other, and each sees what the
# one before did. So do claims, if the trigger limits how many of its runs may be held at once.
LOCK_TRIGGER = "SELECT FROM trigger WHERE id = %(trigger_id)s FOR NO KEY UPDATE"

# Locks the trigger of the worker's run against changes, so that a retry goes to the trigger's present worker.
SHARE_TRIGGER = f"""
SELECT FROM trigger WHERE id = (
    SELECT trigger_id FROM run WHERE id = %(run_id)s AND worker_id = %(worker_id)s AND {OF_ENVIRONMENT})
FOR SHARE
"""

RETRY_FOR_UPDATE = """
SELECT id, status, worker_id, pool_id, resume_until, claimed_at IS NOT NULL AS was_claimed
FROM run WHERE retry_of_id = %(run_id)s FOR UPDATE
"""

# When the run's lease ends. If workers could not reach the service lately, and so could not renew the lease, this is
# never (`infinity`). It needs the parameters of `triggers.heartbeats.lease_params`.
LEASE_END = f"CASE WHEN {LEASES_COUNT} THEN lease_expires_at ELSE 'infinity' END"

# Finds the claimed and running runs whose lease or deadline has passed. The first condition on the times lets
# PostgreSQL use an index. The second leaves out runs whose lease has passed while workers could not reach the service.
IS_OVERDUE = f"""slot IS NOT NULL AND least(lease_expires_at, deadline_at) <= {NOW}
    AND least({LEASE_END}, deadline_at) <= {NOW}"""


# Locks the triggers of the runs found, so that a retry goes to the present worker. It leaves out the runs of triggers
# that somebody is changing. The next turn finds them again.
_with_trigger_locked = partial(
    found_rows, more="JOIN trigger t ON t.id = r.trigger_id", lock="FOR SHARE OF t SKIP LOCKED"
)

OVERDUE = _with_trigger_locked(f"SELECT id, trigger_id, environment_id FROM run WHERE {IS_OVERDUE}")

# Finds the runs that must end although no worker holds them. Their start deadline has passed, their session could only
# be continued until now, or nobody has decided about their call in time.
CANNOT_RESUME = f"""status IN ('queued', 'waiting') AND {ONLY_RESUMES.replace("r.", "")} AND resume_until <= {NOW}"""

IS_LATE = f"status = 'queued' AND start_deadline_at <= {NOW}"

UNSTARTABLE = _with_trigger_locked(f"""
SELECT id, trigger_id, environment_id FROM run WHERE {IS_LATE}
UNION
SELECT id, trigger_id, environment_id FROM run WHERE {CANNOT_RESUME}
""")

# Counts a worker's unfinished runs that no other worker may take. Each of the counts reads a partial index: the first
# has the queued runs, the second the waiting ones of the environment, the third the claimed and running ones.
COUNT_UNFINISHED = """
SELECT (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND status = 'queued')
    + (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND status = 'waiting' AND ended_at IS NULL
        AND environment_id = (SELECT environment_id FROM worker WHERE id = %(worker_id)s))
    + (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND slot IS NOT NULL) AS unfinished
"""


_LEASE = f"{NOW} + %(lease_seconds)s * interval '1 second'"
# The deadline of a run. After `timeoutSeconds`, the worker has 60 s to report the time-out itself; then the server ends
# the run.
_DEADLINE = f"{NOW} + (r.timeout_seconds + 60) * interval '1 second'"
_NOT_ENDED = "NULL::boolean AS will_retry"
_RELEASED = "slot = NULL, trigger_slot = NULL, lease_expires_at = NULL, deadline_at = NULL"
# The columns that are set in every new run, whatever made it. All other columns begin as NULL.
_INSERT = """INSERT INTO run (
        id, environment_id, trigger_id, revision_id, worker_id, pool_id, pool_from, status, source, attempt,
        max_retries, timeout_seconds, retry_of_id, rerun_of_id, event_id, chain_depth, scheduled_for, queued_at,
        available_at, start_deadline_at, looks, model)"""
# The same INSERT with the columns that only runs of people, programs and events have.
_INSERT_REQUESTED = _INSERT.replace(
    "model)", "model, requested_by, also_requested_by, coalesce_key, watched, look_only)"
)
# The same INSERT with the columns that only retries have.
_INSERT_RETRY = _INSERT.replace(
    "model)",
    "model, requested_by, also_requested_by, avoided_worker_id, resume_until, had_effects, limit_retries, watched,"
    " look_digest, looked_at, look_only)",
)


def _start_deadline(due: str) -> str:
    return f"{due} + t.start_deadline_seconds * interval '1 second'"


_DELAYED = f"{NOW} + %(delay_seconds)s * interval '1 second'"

# Queues a run. If the environment has `room` queued runs or more, the statement queues nothing and does not lock the
# trigger, because the environment must then be locked before the trigger. `room` comes from `room_without_turns`; NULL
# means no limit. It queues nothing either while the environment is paused. The run is due `delay_seconds` later.
QUEUE = f"""
WITH t AS (
    SELECT id, environment_id, worker_id, pool_id, revision_id, name, max_retries, timeout_seconds, prefer_seconds,
        start_deadline_seconds
    FROM trigger
    WHERE id = %(trigger_id)s AND enabled AND (worker_id IS NOT NULL OR pool_id IS NOT NULL) AND deleted_at IS NULL
        AND (SELECT paused_at FROM environment WHERE environment.id = trigger.environment_id) IS NULL
        AND (%(room)s::int IS NULL OR %(room)s > (
            SELECT count(*) FROM (
                SELECT FROM run r
                WHERE r.environment_id = trigger.environment_id AND {IS_COUNTED_AS_QUEUED} LIMIT %(room)s) r))
    FOR SHARE),
r AS (
    {_INSERT_REQUESTED}
    SELECT %(id)s, t.environment_id, t.id, t.revision_id, t.worker_id, t.pool_id, {pool_from(_DELAYED, NOW)}, 'queued',
        %(source)s, 1, t.max_retries, t.timeout_seconds, NULL, %(rerun_of_id)s, %(event_id)s, %(chain_depth)s, NULL,
        {NOW}, {_DELAYED}, {_start_deadline(_DELAYED)}, v.before IS NOT NULL AND NOT %(force)s, v.model,
        %(requested_by)s, %(also_requested_by)s::uuid[], %(coalesce_key)s, %(watched)s,
        v.before IS NOT NULL AND %(look_only)s AND NOT %(force)s
    FROM t JOIN trigger_revision v ON v.id = t.revision_id
    RETURNING *),
kept AS (
    INSERT INTO run_text (run_id, environment_id, payload)
    SELECT id, environment_id, %(payload)s::json FROM r WHERE %(payload)s::json IS NOT NULL)
SELECT {RUN}, {_NOT_ENDED}, t.name AS trigger_name, NULL AS error_message, NULL AS mcp_url, NULL AS late_result,
    v.prompt, NULL AS output, NULL AS tool_calls_total, NULL AS denials_total,
    NULL AS spell_times, NULL AS next_run_id, (
        SELECT id FROM run WHERE trigger_id = t.id AND environment_id = t.environment_id
        ORDER BY queued_at DESC, id DESC LIMIT 1) AS previous_run_id,
    {CAN_REJECT} AS budgets_can_reject
FROM t LEFT JOIN r ON true LEFT JOIN trigger_revision v ON v.id = r.revision_id
"""

# Until how long before a run comes due an event may join it. When the run comes due, a worker is offered what it then
# has, and an event that joined later might not have been committed by then.
JOINABLE_UNTIL = timedelta(seconds=1)
_IS_JOINABLE = f"available_at > {NOW} + interval '{JOINABLE_UNTIL.total_seconds():g} seconds'"
_OF_KEY = """trigger_id = %(trigger_id)s AND environment_id = %(environment_id)s
    AND coalesce_key = %(coalesce_key)s AND status = 'queued'"""
# Locks the run that an event may join until the transaction ends, so that no claim comes between. If the event's
# payload `replaces` the run's, the run becomes that event's. The event's requesters are added to those of the run.
JOIN = f"""
UPDATE run SET event_id = CASE WHEN %(replaces)s THEN %(event_id)s ELSE event_id END,
    requested_by = coalesce(requested_by, (%(requesters)s::uuid[])[1]),
    also_requested_by = nullif(ARRAY(
        SELECT DISTINCT id FROM unnest(also_requested_by || %(requesters)s::uuid[]) id
        WHERE id <> coalesce(requested_by, (%(requesters)s::uuid[])[1])), '{{}}')
WHERE {_OF_KEY} AND {_IS_JOINABLE}
RETURNING id
"""
# Lets no further event join a run that is about to come due, so that the next event begins a new run.
CLOSE = f"UPDATE run SET coalesce_key = NULL WHERE {_OF_KEY} AND NOT {_IS_JOINABLE}"

# Inserts the runs for due times of schedules. The caller has locked the triggers.
QUEUE_SCHEDULED = f"""
{_INSERT}
SELECT f.run_id, t.environment_id, t.id, t.revision_id, t.worker_id, t.pool_id, {pool_from(NOW, NOW)},
    'queued', 'schedule', 1, t.max_retries, t.timeout_seconds, NULL, NULL, NULL, 0, f.tick_at, {NOW},
    {NOW}, {_start_deadline(NOW)}, v.before IS NOT NULL, v.model
FROM unnest(%(run_ids)s::uuid[], %(trigger_ids)s::uuid[], %(ticks)s::timestamptz[])
    AS f (run_id, trigger_id, tick_at)
JOIN trigger t ON t.id = f.trigger_id JOIN trigger_revision v ON v.id = t.revision_id
"""

# Inserts retries of ended runs, and notes in these runs that a retry follows. The caller has locked the triggers, so
# their workers and pools can't change meanwhile. A retry that `resumes` waits for the worker of the run that it
# repeats. `at_limit` says that the run ended at the usage limit of its worker; its retry is counted in `limit_retries`.
# The list of the environments keeps each join within the partitions of these runs.
QUEUE_RETRIES = f"""
WITH planned AS (
    SELECT n.*, r.ended_at + n.delay AS due,
        CASE WHEN n.resumes THEN interval '{RESUMABLE_FOR}' + greatest(r.ended_at + n.delay, (
            SELECT w.limited_until FROM worker w WHERE w.id = r.worker_id)) END AS resume_until
    FROM unnest(%(ids)s::uuid[], %(run_ids)s::uuid[], %(delays)s::interval[], %(resumes)s::boolean[],
        %(had_effects)s::boolean[], %(at_limit)s::boolean[], %(environment_ids)s::uuid[])
        AS n (id, run_id, delay, resumes, had_effects, at_limit, environment_id)
    JOIN run r ON r.id = n.run_id AND r.environment_id = n.environment_id),
retry AS (
    {_INSERT_RETRY}
    SELECT n.id, r.environment_id, r.trigger_id, r.revision_id,
        CASE WHEN n.resumes THEN r.worker_id ELSE t.worker_id END, t.pool_id,
        CASE WHEN t.pool_id IS NULL THEN NULL WHEN n.resumes THEN n.resume_until
            WHEN t.worker_id = r.worker_id THEN n.due ELSE {pool_from("n.due", "r.ended_at")} END,
        'queued', 'retry', r.attempt + 1, r.max_retries, r.timeout_seconds, r.id, NULL, r.event_id, r.chain_depth,
        r.scheduled_for, r.ended_at, n.due, {_start_deadline("n.due")}, r.looks, v.model, r.requested_by,
        r.also_requested_by,
        CASE WHEN NOT n.resumes AND NOT n.at_limit THEN {avoided_worker("r.worker_id", "r.ended_at")} END,
        n.resume_until, n.had_effects, r.limit_retries + n.at_limit::int, r.watched,
        CASE WHEN n.resumes THEN r.look_digest END, CASE WHEN n.resumes THEN r.looked_at END, r.look_only
    FROM planned n
    JOIN run r ON r.id = n.run_id AND r.environment_id = n.environment_id
        AND r.environment_id = ANY(%(environment_ids)s)
    JOIN trigger t ON t.id = r.trigger_id JOIN trigger_revision v ON v.id = r.revision_id
    ON CONFLICT (retry_of_id, environment_id) WHERE retry_of_id IS NOT NULL DO NOTHING
    RETURNING id, environment_id, worker_id, pool_id, attempt, available_at, resume_until, retry_of_id),
noted AS (
    UPDATE run r SET retried = true FROM retry
    WHERE r.id = retry.retry_of_id AND r.environment_id = retry.environment_id
        AND r.environment_id = ANY(%(environment_ids)s))
SELECT * FROM retry
"""


# Claims a run and gives it the lowest free slot of its worker. A slot is a number from 1 on, and each run that a worker
# holds takes another one. The subquery numbers the taken slots in order (`rank`): the first slot whose number is
# greater than its rank shows that the number `rank` is free. The run is claimed only if fewer than `capacity` slots are
# taken, so the lowest free slot is never greater than `capacity`.


@cache
def claim(*, limited: bool = False, start: bool = False, once: bool = False) -> str:
    """Returns the statement that claims a run.

    With `limited`, it is for a trigger that limits how many of its runs may be held at once: the run gets the lowest
    free slot of the trigger in the same way, and the caller has locked the trigger. Without it, the statement changes
    nothing for such a trigger. With `start`, the run is running at once. With `once`, the statement changes nothing if
    the worker holds a run that it claimed with the same `claim_id`; the caller has locked the worker.
    """
    status = f"status = 'running', started_at = {NOW}" if start else "status = 'claimed'"
    trigger_slot, of_trigger, where_trigger = "NULL", "", "t.max_concurrent_runs IS NULL"
    if limited:
        trigger_slot, where_trigger = "of_trigger.free", "of_trigger.held < t.max_concurrent_runs"
        of_trigger = """ CROSS JOIN LATERAL (
    SELECT count(*) AS held, coalesce(min(rank) FILTER (WHERE trigger_slot > rank), count(*) + 1) AS free
    FROM (
        SELECT trigger_slot, row_number() OVER (ORDER BY trigger_slot) AS rank
        FROM run
        WHERE trigger_id = t.id AND environment_id = t.environment_id AND trigger_slot IS NOT NULL) held) of_trigger"""
    claim_id, was_used, is_unused = "", "", ""
    if once:
        claim_id = "claim_id, "
        was_used = ", coalesce(bool_or(claim_id = %(claim_id)s), false) AS was_used"
        is_unused = " AND NOT slots.was_used"
    return f"""
UPDATE run r
SET {status}, worker_id = %(worker_id)s, slot = slots.free, trigger_slot = {trigger_slot},
    claim_id = %(claim_id)s, claimed_at = {NOW}, lease_expires_at = {_LEASE}, deadline_at = {_DEADLINE}
FROM trigger t{of_trigger}, (
    SELECT count(*) AS held, coalesce(min(rank) FILTER (WHERE slot > rank), count(*) + 1) AS free{was_used}
    FROM (
        SELECT slot, {claim_id}row_number() OVER (ORDER BY slot) AS rank
        FROM run WHERE {IS_HELD}) held) slots
WHERE r.id = %(run_id)s AND t.id = r.trigger_id AND slots.held < %(capacity)s AND {where_trigger}{is_unused}
    AND {MAY_BE_CLAIMED}
RETURNING {RUN}, {_NOT_ENDED}, t.name AS trigger_name, NULL AS error_message, t.max_cost_usd,
    {HAS_BUDGETS} AS has_budgets
"""


_MOST = {"int": 2**31 - 1, "bigint": 2**63 - 1, "numeric": "99999999.999999"}


def _sum(column: str, type_: str, reported: str | None = None, earlier: str | None = None) -> str:
    """Returns SQL for the sum of what a worker `reported`, by default the parameter that is named like the column, and
    of what `earlier` spells of the run `r` reported, by default the column itself. If one of the two is NULL, the sum
    is the other. A sum that is too large for the column becomes the largest possible number.
    """
    reported = reported or f"%({column})s::{type_}"
    earlier = earlier or f"r.{column}"
    return f"""CASE WHEN {earlier} IS NULL OR {reported} IS NULL THEN coalesce({reported}, {earlier})
        ELSE least({earlier}::numeric + {reported}, {_MOST[type_]})::{type_} END"""


# The counts of tool calls that a worker reported, as counts of the whole run.
_TOTAL, _EFFECTS, _UNKNOWN = (
    f"(CASE WHEN %(tool_calls_{part})s::int IS NOT NULL THEN {sum_} END)"
    for number, part in enumerate(("total", "effects", "unknown"), 1)
    for sum_ in [_sum("", "int", f"%(tool_calls_{part})s::int", f"r.earlier_calls[{number}]")]
)


START = f"""
UPDATE run r
SET status = 'running', started_at = {NOW}, lease_expires_at = {_LEASE}, deadline_at = {_DEADLINE}
FROM trigger t
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.status = 'claimed' AND t.id = r.trigger_id
    AND r.{OF_ENVIRONMENT}
RETURNING {RUN}, {_NOT_ENDED}, t.name AS trigger_name, NULL AS error_message
"""

# The counts of tool calls that a run has after a heartbeat or a report, which may have none. What a worker has told is
# never taken back. Requests can arrive in the wrong order, but the counts show which are newer: those with more calls,
# or, with equally many calls, those with fewer unanswered ones.
_CALLS = {
    "tool_calls_total": f"greatest(r.tool_calls_total, {_TOTAL})",
    "tool_calls_effects": f"greatest(r.tool_calls_effects, {_EFFECTS})",
    "tool_calls_unknown": f"""CASE
        WHEN r.tool_calls_total > {_TOTAL} OR {_TOTAL} IS NULL THEN r.tool_calls_unknown
        WHEN r.tool_calls_total = {_TOTAL} THEN least(r.tool_calls_unknown, {_UNKNOWN})
        ELSE {_UNKNOWN} END""",
}
_SET_CALLS = ", ".join(f"{column} = {value}" for column, value in _CALLS.items())

# Renews the lease, and stores the counts of tool calls.
HEARTBEAT = f"""
UPDATE run r
SET lease_expires_at = {_LEASE}, session_id = coalesce(%(session_id)s, r.session_id),
    {_SET_CALLS}
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL
    AND r.{OF_ENVIRONMENT}
RETURNING r.status, r.cancel_requested_at, r.lease_expires_at,
    (SELECT {RECORD_EVENTS} FROM trigger t WHERE t.id = r.trigger_id) AS record_events
"""

# Notes that somebody watches an unfinished run.
WATCH = "UPDATE run SET watched = true WHERE id = %(run_id)s AND ended_at IS NULL AND NOT watched"

# Whether a run succeeds without its agent, because its worker looked and found nothing new. `nothing_new` is what the
# worker says; only a started run that was to look, and has called no tool but by its look, can have found nothing.
_NOTHING_NEW = f"""(%(nothing_new)s AND r.looks AND NOT r.look_only AND r.started_at IS NOT NULL AND r.spells = 0
    AND coalesce({_CALLS["tool_calls_total"]}, 0) <= 1 AND coalesce({_CALLS["tool_calls_effects"]}, 0) = 0)"""


def _look(column: str, told: str) -> str:
    return f"CASE WHEN r.looks AND r.started_at IS NOT NULL THEN coalesce({told}, r.{column}) END"


# When the worker looked. Its clock may be wrong, but it has looked between the run's start and now.
_LOOKED_AT = f"""CASE WHEN %(looked_at)s::timestamptz IS NOT NULL
    THEN least(greatest(%(looked_at)s::timestamptz, r.started_at), {NOW}) END"""


# What a report says of the spell that it ends. Numbers are added to those of earlier spells.
_SPELL = f"""
    exit_code = %(exit_code)s, short_message = %(short_message)s, model = coalesce(%(model)s, r.model),
    input_tokens = {_sum("input_tokens", "bigint")}, output_tokens = {_sum("output_tokens", "bigint")},
    cache_read_tokens = {_sum("cache_read_tokens", "bigint")},
    cache_creation_tokens = {_sum("cache_creation_tokens", "bigint")},
    cost_usd = CASE WHEN {_NOTHING_NEW} THEN 0 ELSE {_sum("cost_usd", "numeric")} END,
    num_turns = {_sum("num_turns", "int")},
    look_digest = {_look("look_digest", "%(look_digest)s::varchar")}, looked_at = {_look("looked_at", _LOOKED_AT)},
    session_id = coalesce(%(session_id)s, r.session_id),
    {_SET_CALLS},
    denials_total = {_sum("denials_total", "int")},
    denied_tools = coalesce((r.denied_tools || %(denied_tools)s::varchar[])[1:{MAX_DENIED_TOOLS}], r.denied_tools)"""
_OUTCOME = f"""
    status = %(status)s, fault_class = %(fault_class)s, at_limit = %(at_limit)s,
    nothing_new = {_NOTHING_NEW}, {_SPELL}"""
# The columns that are read of a run that has just ended. Its retry and its webhook delivery need more columns than
# lists of runs show.
_ENDED = f"""{RUN}, r.ended_by, r.max_retries, r.at_limit, r.limit_retries, r.had_effects, r.tool_calls_total,
    r.tool_calls_effects, r.tool_calls_unknown, t.retry_after_effects, t.retry_mode, t.max_concurrent_runs,
    t.worker_id AS trigger_worker_id, t.pool_id AS trigger_pool_id, t.enabled AS trigger_enabled,
    t.deleted_at AS trigger_deleted_at, t.name AS trigger_name, t.webhook_url, {HAS_RESERVATIONS} AS has_reservations,
    EXISTS (SELECT FROM listener l WHERE l.upstream_id = r.trigger_id) AS is_heard"""
_REPORTED = f"{_ENDED}, %(error_message)s AS error_message"

# Ends a run as its worker reports. It changes nothing if the report says that the run succeeded, but the run lacks the
# output that its trigger asks for, or was denied a call and the trigger forbids that; `complete_run` then ends the run
# as failed. A run that found nothing new needs no output and may have been denied calls. Nor does it end a run that
# only looks otherwise than as canceled; `complete_run` then does.
COMPLETE = f"""
UPDATE run r SET ended_at = {NOW}, ended_by = 'worker', {_RELEASED}, {_OUTCOME}
FROM trigger t
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL AND t.id = r.trigger_id
    AND r.{OF_ENVIRONMENT}
    AND CASE WHEN %(status)s = 'canceled' THEN r.cancel_requested_at IS NOT NULL OR r.look_only ELSE NOT r.look_only END
    AND ({_NOTHING_NEW} OR NOT (%(lacks_output)s AND EXISTS (
            SELECT FROM trigger_revision v WHERE v.id = r.revision_id AND v.output_schema IS NOT NULL))
        AND NOT (t.fail_on_denied AND %(status)s = 'succeeded'
            AND greatest(%(denials_total)s::int, r.denials_total, 0) > 0))
RETURNING {_REPORTED}
"""

# Lets a run wait for a person's decision, as its worker reports. The statement changes nothing if the report is of an
# earlier claim, if a cancel was requested, or if the run has used up its spells; `complete_run` then refuses the report
# or ends the run. `earlier_calls` repeats the counts that it writes, because an UPDATE can't read what it writes.
WAIT = f"""
UPDATE run r SET status = 'waiting', {_RELEASED}, claim_id = NULL, spells = r.spells + 1,
    active_ms = coalesce(r.active_ms, 0)
        + greatest(floor(extract(epoch FROM {NOW} - r.started_at) * 1000)::bigint, 0),
    spell_times = r.spell_times || ARRAY[r.claimed_at, coalesce(r.started_at, {NOW}), {NOW}],
    earlier_calls = CASE WHEN {_CALLS["tool_calls_total"]} IS NOT NULL THEN ARRAY[{", ".join(_CALLS.values())}] END,
    resume_until = {NOW} + %(expires_after)s * interval '1 second', {_SPELL}
FROM trigger t
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL AND t.id = r.trigger_id
    AND r.{OF_ENVIRONMENT} AND r.cancel_requested_at IS NULL AND NOT r.look_only AND r.spells < {MAX_SPELLS - 1}
    AND r.claim_id IS NOT DISTINCT FROM %(claim_id)s
RETURNING {RUN}, {_NOT_ENDED}, {LAST_RESUME} AS resume_until, t.max_concurrent_runs,
    t.worker_id AS trigger_worker_id, t.pool_id AS trigger_pool_id, t.name AS trigger_name, NULL AS error_message,
    {HAS_RESERVATIONS} AS has_reservations
"""

# Queues a waiting run again after a decision. Only its worker may take it, until the time for the decision would have
# been over, or for an hour if that is longer.
CONTINUE = f"""
UPDATE run r SET status = 'queued', claimed_at = NULL, started_at = NULL, start_deadline_at = NULL,
    spell_times = r.spell_times || {NOW}, resume_until = greatest(r.resume_until, {NOW} + interval '{RESUMABLE_FOR}'),
    pool_from = CASE WHEN r.pool_id IS NOT NULL
        THEN greatest(r.resume_until, {NOW} + interval '{RESUMABLE_FOR}') END
WHERE r.id = %(run_id)s AND r.environment_id = %(environment_id)s AND r.status = 'waiting' AND r.resume_until > {NOW}
RETURNING r.id, r.environment_id, r.trigger_id, r.worker_id, r.status, r.fault_class
"""

# Lets a worker's late report replace the end that the server had decided. The caller has locked the row and checked
# that the server ended the run.
COMPLETE_LATE = f"""
UPDATE run r SET ended_at = {NOW}, ended_by = 'worker', {_OUTCOME}
FROM trigger t
WHERE r.id = %(run_id)s AND t.id = r.trigger_id
RETURNING {_REPORTED}
"""


# Cancels a queued retry because of a late result of the run that it repeats, and notes in that run that no retry
# follows any more.
CANCEL_RETRY = f"""
WITH canceled AS (
    UPDATE run SET status = 'canceled', fault_class = 'none', ended_at = {NOW}, ended_by = 'late_result'
    WHERE id = %(retry_id)s AND status = 'queued'
    RETURNING retry_of_id)
UPDATE run r SET retried = false FROM canceled WHERE r.id = canceled.retry_of_id
"""

# Postpones a queued retry. If the run before it failed `at_limit`, the usage limit of its worker, the retry comes due
# at once instead, since it waits for the limit, and is counted in `limit_retries`. All other times that count from the
# retry's due time move with it.
MOVE_RETRY = f"""
UPDATE run r
SET available_at = r.available_at + moved.by, pool_from = r.pool_from + moved.by,
    start_deadline_at = r.start_deadline_at + moved.by, resume_until = r.resume_until + moved.by,
    limit_retries = r.limit_retries + %(at_limit)s::boolean::int,
    avoided_worker_id = CASE WHEN NOT %(at_limit)s THEN r.avoided_worker_id END
FROM (
    SELECT id, CASE WHEN %(at_limit)s THEN least(interval '0', {NOW} - available_at)
        ELSE greatest(interval '0', {NOW} + %(retry_after_seconds)s::int * interval '1 second' - available_at) END AS by
    FROM run WHERE id = %(retry_id)s) moved
WHERE r.id = moved.id AND r.status = 'queued'
"""


CANCEL_UNHELD = f"""
UPDATE run r
SET status = 'canceled', fault_class = 'none', cancel_requested_at = {NOW}, ended_at = {NOW}, ended_by = 'user',
    started_at = NULL
FROM trigger t
WHERE r.id = %(run_id)s AND r.status IN ('queued', 'waiting') AND t.id = r.trigger_id
RETURNING {_ENDED}, NULL AS error_message
"""

REQUEST_CANCEL = f"""
UPDATE run r SET cancel_requested_at = {NOW}
FROM trigger t
WHERE r.id = %(run_id)s AND r.slot IS NOT NULL AND r.cancel_requested_at IS NULL AND t.id = r.trigger_id
RETURNING {RUN}, t.name AS trigger_name, NULL AS error_message
"""

REQUEST_CANCEL_OF_HELD = f"""
WITH held AS (
    SELECT id FROM run
    WHERE environment_id = %(environment_id)s AND status IN ('claimed', 'running') AND ended_at IS NULL
        AND cancel_requested_at IS NULL
    ORDER BY id FOR NO KEY UPDATE)
UPDATE run r SET cancel_requested_at = {NOW}
FROM held, trigger t
WHERE r.id = held.id AND r.slot IS NOT NULL AND t.id = r.trigger_id
RETURNING {RUN}, t.name AS trigger_name, NULL AS error_message
"""


# Ends runs whose lease or deadline has passed. If both have, the earlier one decides. SKIP LOCKED leaves out rows that
# a request or another scheduler is changing at this moment; the next round looks at them again. A run that was to
# continue a session, and whose worker was lost before it named a session, keeps that session, so that its own retry may
# continue it.
EXPIRE = f"""
WITH overdue AS (
    SELECT id, environment_id, {NOW} AS now, {LEASE_END} <= deadline_at AS is_lost, cancel_requested_at,
        look_only, timeout_seconds,
        round(extract(epoch FROM {NOW} - lease_expires_at))::int + %(lease_seconds)s AS silent_seconds
    FROM run
    WHERE id = ANY(%(ids)s) AND environment_id = ANY(%(environment_ids)s) AND {IS_OVERDUE}
    FOR UPDATE SKIP LOCKED),
verdict AS (
    SELECT *, CASE WHEN look_only THEN 'canceled' WHEN NOT is_lost THEN 'timed_out'
        WHEN cancel_requested_at IS NOT NULL THEN 'canceled' ELSE 'failed' END AS status
    FROM overdue)
UPDATE run r
SET status = v.status, ended_at = v.now, ended_by = CASE WHEN v.is_lost THEN 'lease' ELSE 'deadline' END,
    fault_class = CASE v.status WHEN 'failed' THEN 'infra' WHEN 'timed_out' THEN 'client' ELSE 'none' END,
    session_id = coalesce(r.session_id, CASE WHEN r.claimed_at < r.resume_until THEN (
        SELECT o.session_id FROM run o
        WHERE o.id = r.retry_of_id AND o.environment_id = r.environment_id) END), {_RELEASED}
FROM verdict v, trigger t
WHERE r.id = v.id AND r.environment_id = v.environment_id AND t.id = r.trigger_id
RETURNING {_ENDED},
    CASE WHEN v.is_lost THEN 'worker lost: no heartbeat for ' || v.silent_seconds || ' s'
        ELSE 'timed out: no result within ' || v.timeout_seconds || ' s' END AS error_message
"""


END_UNSTARTABLE = f"""
WITH found AS (
    SELECT id, environment_id,
        CASE WHEN status = 'queued' AND start_deadline_at <= {NOW} THEN 'start_deadline'
            WHEN spells = 0 THEN 'had_effects'
            WHEN status = 'queued' OR EXISTS (SELECT FROM worker w WHERE w.id = worker_id AND w.deleted_at IS NOT NULL)
                THEN 'approval_unreachable'
            ELSE 'approval_expired' END AS ended_by,
        extract(epoch FROM start_deadline_at - available_at)::int AS deadline_seconds
    FROM run WHERE id = ANY(%(ids)s) AND environment_id = ANY(%(environment_ids)s)
        AND (({IS_LATE}) OR ({CANNOT_RESUME}))
    ORDER BY id FOR UPDATE SKIP LOCKED)
UPDATE run r
SET status = CASE WHEN r.look_only THEN 'canceled' ELSE 'failed' END,
    fault_class = CASE WHEN r.look_only THEN 'none' WHEN found.ended_by = 'approval_expired' THEN 'client'
        ELSE 'infra' END,
    ended_at = {NOW}, ended_by = found.ended_by, started_at = NULL
FROM found, trigger t
WHERE r.id = found.id AND r.environment_id = found.environment_id AND t.id = r.trigger_id
RETURNING {_ENDED},
    CASE found.ended_by
        WHEN 'had_effects'
        THEN 'not resumed in time, and not started anew, because the run before it may have changed something'
        WHEN 'approval_expired' THEN 'no decision in time: nobody approved or rejected the call that the run asked for'
        WHEN 'approval_unreachable'
        THEN 'not continued in time: its worker did not come back for the call that the run had asked for'
        ELSE 'not started: no worker claimed the run within ' || found.deadline_seconds || ' s after it came due'
        END AS error_message
"""


def _reassign(which: str) -> str:
    """Returns the statement that gives queued runs to their trigger's present worker and pool. The SQL `which` names
    the runs. They stop waiting for a session, and end soon if they may not start anew. Runs that go on after a decision
    stay where they are, because only their worker can continue them.
    """
    return f"""
WITH moved AS (
    SELECT id, worker_id, pool_id FROM run
    WHERE {which} AND status = 'queued' AND spells = 0
    ORDER BY id FOR NO KEY UPDATE)
UPDATE run r
SET worker_id = CASE WHEN r.had_effects THEN r.worker_id ELSE t.worker_id END, pool_id = t.pool_id,
    pool_from = {pool_from("r.available_at", NOW)},
    avoided_worker_id = CASE WHEN t.pool_id IS NOT NULL THEN r.avoided_worker_id END,
    resume_until = CASE WHEN r.had_effects THEN least(r.resume_until, {NOW}) END
FROM moved, trigger t
WHERE r.id = moved.id AND t.id = r.trigger_id
RETURNING moved.worker_id AS old_worker_id, moved.pool_id AS old_pool_id, r.worker_id, r.pool_id
"""


_OF_TRIGGER = "trigger_id = %(trigger_id)s AND ended_at IS NULL"
REASSIGN = _reassign(_OF_TRIGGER)
# The reassignment for a trigger whose worker and pool have not changed. It leaves out runs that wait for a session.
PREFER_ANEW = _reassign(f"{_OF_TRIGGER} AND resume_until IS NULL")
REASSIGN_OF_WORKER = _reassign("worker_id = %(worker_id)s")
# The reassignment of a pool's runs that waited for a session of a worker which has left the pool.
REASSIGN_RESUMING = _reassign(
    """worker_id = %(worker_id)s AND pool_id = %(pool_id)s AND resume_until IS NOT NULL
        AND (SELECT t.worker_id FROM trigger t WHERE t.id = trigger_id) IS DISTINCT FROM %(worker_id)s"""
)

# Lets other workers of the pools take at once the queued runs that these workers would take first. Runs that continue a
# session stay with their worker. If the workers can take no runs `until` a usage limit ends, such runs wait until an
# hour after that.
OPEN_TO_POOLS = f"""
WITH opened AS (
    SELECT id FROM run
    WHERE worker_id = ANY(%(worker_ids)s) AND status = 'queued' AND spells = 0 AND CASE WHEN resume_until IS NULL
        THEN pool_from > available_at
        ELSE resume_until > {NOW} AND resume_until < %(until)s::timestamptz + interval '{RESUMABLE_FOR}' END
    ORDER BY id FOR NO KEY UPDATE)
UPDATE run r
SET pool_from = CASE WHEN r.resume_until IS NULL THEN r.available_at
        WHEN r.pool_id IS NOT NULL THEN %(until)s::timestamptz + interval '{RESUMABLE_FOR}' END,
    resume_until = CASE WHEN r.resume_until IS NOT NULL
        THEN %(until)s::timestamptz + interval '{RESUMABLE_FOR}' END
FROM opened WHERE r.id = opened.id
RETURNING CASE WHEN r.resume_until IS NULL THEN r.pool_id END AS pool_id
"""

# Takes away the slots that held runs still have from an earlier limit of their trigger. Otherwise the statement below
# could give a run a slot that another row still has, which the database refuses.
TAKE_TRIGGER_SLOTS = """
UPDATE run SET trigger_slot = NULL
WHERE trigger_id = %(trigger_id)s AND environment_id = %(environment_id)s AND trigger_slot IS NOT NULL
"""

# Numbers the held runs of a trigger that has just got a limit of such runs, in the order of their claims. The caller
# has locked the environment's workers and the trigger, so that no claim is under way.
GIVE_TRIGGER_SLOTS = """
WITH held AS (
    SELECT id, row_number() OVER (ORDER BY claimed_at, id) AS number FROM run
    WHERE trigger_id = %(trigger_id)s AND ended_at IS NULL AND slot IS NOT NULL)
UPDATE run r SET trigger_slot = held.number FROM held WHERE r.id = held.id AND r.slot IS NOT NULL
"""

# Ends the time in which a worker's runs wait for it, because the worker is deregistered and no other worker can
# continue them. The scheduler then ends these runs.
GIVE_UP_WAITING = f"""
WITH found AS (
    SELECT id FROM run
    WHERE worker_id = %(worker_id)s AND status IN ('queued', 'waiting') AND ended_at IS NULL AND spells > 0
        AND environment_id = (SELECT environment_id FROM worker WHERE id = %(worker_id)s)
    ORDER BY id FOR NO KEY UPDATE)
UPDATE run r SET resume_until = least(r.resume_until, {NOW}) FROM found WHERE r.id = found.id
"""
