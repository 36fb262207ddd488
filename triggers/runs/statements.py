"""The SQL statements that write runs. No other module inserts or changes a run (docs/decisions/lifecycle-sql.md).

Each transition is one UPDATE whose condition names the expected state and the run's worker. `lifecycle` and `retries`
execute the statements.
"""

# These statements are raw SQL for speed, so no migration renames columns in them. See docs/decisions/fast-paths.md.

from pipedai.sql import NOW
from triggers.budgets.room import CAN_REJECT, HAS_BUDGETS, HAS_RESERVATIONS
from triggers.models import RUN_COLUMNS
from triggers.runs.conditions import IS_HELD, MAY_BE_CLAIMED
from triggers.runs.reachability import LEASES_COUNT

_RUN = ", ".join(f"r.{column}" for column in RUN_COLUMNS)
_LEASE = f"{NOW} + %(lease_seconds)s * interval '1 second'"
# The deadline of a run. After `timeoutSeconds`, the worker has 60 s to report the time-out itself; then the server ends
# the run (SPEC §6).
_DEADLINE = f"{NOW} + (r.timeout_seconds + 60) * interval '1 second'"
# The column `will_retry` of a run `r`: whether it has a retry that no late result canceled; NULL until the run has
# ended. It is a scalar subquery, because PostgreSQL may answer an EXISTS by reading all retries.
_WILL_RETRY = """CASE WHEN r.ended_at IS NOT NULL THEN coalesce((
        SELECT retry.ended_by IS DISTINCT FROM 'late_result' FROM run retry
        WHERE retry.retry_of_id = r.id AND retry.environment_id = r.environment_id), false) END AS will_retry"""
_NOT_ENDED = "NULL::boolean AS will_retry"
_RELEASED = "slot = NULL, lease_expires_at = NULL, deadline_at = NULL"
# The columns that are set in every new run, whatever made it. All other columns begin as NULL.
_INSERT = """INSERT INTO run (
        id, environment_id, trigger_id, revision_id, worker_id, status, source, attempt, max_retries, timeout_seconds,
        retry_of_id, rerun_of_id, scheduled_for, queued_at, available_at, model)"""

# Queues a run. If the environment has `room` queued runs or more, the statement queues nothing and does not lock the
# trigger, because the environment must then be locked before the trigger. `room` comes from `room_without_turns`; NULL
# means no limit.
QUEUE = f"""
WITH t AS (
    SELECT id, environment_id, worker_id, revision_id, name, max_retries, timeout_seconds
    FROM trigger
    WHERE id = %(trigger_id)s AND enabled AND worker_id IS NOT NULL AND deleted_at IS NULL
        AND (%(room)s::int IS NULL OR %(room)s > (
            SELECT count(*) FROM (
                SELECT FROM run w
                WHERE w.environment_id = trigger.environment_id AND w.status = 'queued' LIMIT %(room)s) w))
    FOR SHARE),
r AS (
    {_INSERT}
    SELECT %(id)s, t.environment_id, t.id, t.revision_id, t.worker_id, 'queued', %(source)s, 1, t.max_retries,
        t.timeout_seconds, NULL, %(rerun_of_id)s, NULL, {NOW}, {NOW}, v.model
    FROM t JOIN trigger_revision v ON v.id = t.revision_id
    RETURNING *),
kept AS (
    INSERT INTO run_text (run_id, environment_id, payload)
    SELECT id, environment_id, %(payload)s::json FROM r WHERE %(payload)s::json IS NOT NULL)
SELECT {_RUN}, {_NOT_ENDED}, t.name AS trigger_name, NULL AS error_message, NULL AS mcp_url, NULL AS late_result,
    v.prompt, NULL AS output, NULL AS tool_calls_total, {CAN_REJECT} AS budgets_can_reject
FROM t LEFT JOIN r ON true LEFT JOIN trigger_revision v ON v.id = r.revision_id
"""

# Inserts the runs for due times of schedules. The caller has locked the triggers.
QUEUE_SCHEDULED = f"""
{_INSERT}
SELECT f.run_id, t.environment_id, t.id, t.revision_id, t.worker_id, 'queued', 'schedule', 1, t.max_retries,
    t.timeout_seconds, NULL, NULL, f.tick_at, {NOW}, {NOW}, v.model
FROM unnest(%(run_ids)s::uuid[], %(trigger_ids)s::uuid[], %(ticks)s::timestamptz[]) AS f (run_id, trigger_id, tick_at)
JOIN trigger t ON t.id = f.trigger_id JOIN trigger_revision v ON v.id = t.revision_id
"""

# Inserts retries of ended runs, and notes in these runs that a retry follows. The caller has locked the triggers, so
# their present worker can't change meanwhile.
QUEUE_RETRIES = f"""
WITH retry AS (
    {_INSERT}
    SELECT n.id, r.environment_id, r.trigger_id, r.revision_id, t.worker_id, 'queued', 'retry', r.attempt + 1,
        r.max_retries, r.timeout_seconds, r.id, NULL, r.scheduled_for, r.ended_at, r.ended_at + n.delay, v.model
    FROM unnest(%(ids)s::uuid[], %(run_ids)s::uuid[], %(delays)s::interval[]) AS n (id, run_id, delay)
    JOIN run r ON r.id = n.run_id JOIN trigger t ON t.id = r.trigger_id
    JOIN trigger_revision v ON v.id = r.revision_id
    ON CONFLICT (retry_of_id, environment_id) WHERE retry_of_id IS NOT NULL DO NOTHING
    RETURNING id, environment_id, worker_id, attempt, available_at, retry_of_id),
noted AS (UPDATE run r SET retried = true FROM retry WHERE r.id = retry.retry_of_id)
SELECT * FROM retry
"""

COPY_PAYLOADS = """
INSERT INTO run_text (run_id, environment_id, payload)
SELECT r.id, x.environment_id, x.payload FROM run r JOIN run_text x ON x.run_id = r.retry_of_id
WHERE r.id = ANY(%(ids)s) AND x.payload IS NOT NULL
"""

# Claims a run and gives it the lowest free slot of its worker. A slot is a number from 1 on, and each run that a worker
# holds takes another one. The subquery numbers the taken slots in order (`rank`): the first slot whose number is
# greater than its rank shows that the number `rank` is free. The run is claimed only if fewer than `capacity` slots are
# taken, so the lowest free slot is never greater than `capacity`.
CLAIM = f"""
UPDATE run r
SET status = 'claimed', slot = places.free, claim_id = %(claim_id)s, claimed_at = {NOW},
    lease_expires_at = {_LEASE}, deadline_at = {_DEADLINE}
FROM trigger t, (
    SELECT count(*) AS held, coalesce(min(rank) FILTER (WHERE slot > rank), count(*) + 1) AS free
    FROM (
        SELECT slot, row_number() OVER (ORDER BY slot) AS rank
        FROM run WHERE {IS_HELD}) held) places
WHERE r.id = %(run_id)s AND t.id = r.trigger_id AND places.held < %(capacity)s AND {MAY_BE_CLAIMED}
RETURNING {_RUN}, {_NOT_ENDED}, t.name AS trigger_name, NULL AS error_message, t.max_cost_usd,
    {HAS_BUDGETS} AS has_budgets
"""

START = f"""
UPDATE run r
SET status = 'running', started_at = {NOW}, lease_expires_at = {_LEASE}, deadline_at = {_DEADLINE}
FROM trigger t
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.status = 'claimed' AND t.id = r.trigger_id
RETURNING {_RUN}, {_NOT_ENDED}, t.name AS trigger_name, NULL AS error_message
"""

HEARTBEAT = f"""
UPDATE run r SET lease_expires_at = {_LEASE}
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL
RETURNING r.status, r.cancel_requested_at, r.lease_expires_at
"""

# Renews the lease, and stores the counts of tool calls unless the stored ones are newer. Two heartbeats can arrive in
# the wrong order, so the counts themselves show which are newer: those with more calls, or, with as many calls, those
# with fewer unanswered ones.
HEARTBEAT_WITH_COUNTS = f"""
UPDATE run r
SET lease_expires_at = {_LEASE},
    tool_calls_total = greatest(r.tool_calls_total, %(tool_calls_total)s::int),
    tool_calls_effects = greatest(r.tool_calls_effects, %(tool_calls_effects)s::int),
    tool_calls_unknown = CASE
        WHEN r.tool_calls_total > %(tool_calls_total)s::int THEN r.tool_calls_unknown
        WHEN r.tool_calls_total = %(tool_calls_total)s::int
            THEN least(r.tool_calls_unknown, %(tool_calls_unknown)s::int)
        ELSE %(tool_calls_unknown)s::int END
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL
RETURNING r.status, r.cancel_requested_at, r.lease_expires_at
"""

_OUTCOME = """
    status = %(status)s, fault_class = %(fault_class)s, exit_code = %(exit_code)s, short_message = %(short_message)s,
    model = coalesce(%(model)s, r.model), input_tokens = %(input_tokens)s, output_tokens = %(output_tokens)s,
    cache_read_tokens = %(cache_read_tokens)s, cache_creation_tokens = %(cache_creation_tokens)s,
    cost_usd = %(cost_usd)s, num_turns = %(num_turns)s, session_id = %(session_id)s,
    tool_calls_total = coalesce(%(tool_calls_total)s::int, r.tool_calls_total),
    tool_calls_effects = coalesce(%(tool_calls_effects)s::int, r.tool_calls_effects),
    tool_calls_unknown = coalesce(%(tool_calls_unknown)s::int, r.tool_calls_unknown)"""
# The columns that are read of a run that has just ended. Its retry and its webhook delivery need more columns than
# lists of runs show.
_ENDED = f"""{_RUN}, r.max_retries, r.tool_calls_total, r.tool_calls_effects, r.tool_calls_unknown,
    t.retry_after_effects, t.enabled AS trigger_enabled, t.deleted_at AS trigger_deleted_at, t.name AS trigger_name,
    t.webhook_url, {HAS_RESERVATIONS} AS has_reservations"""
_REPORTED = f"{_ENDED}, %(error_message)s AS error_message"

# Ends a run as its worker reports. If the report says that the run succeeded but has no output, and the run's trigger
# asks for an output by its output schema, the statement changes nothing; `complete_run` then ends the run as failed.
COMPLETE = f"""
UPDATE run r SET ended_at = {NOW}, ended_by = 'worker', {_RELEASED}, {_OUTCOME}
FROM trigger t
WHERE r.id = %(run_id)s AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL AND t.id = r.trigger_id
    AND (%(status)s <> 'canceled' OR r.cancel_requested_at IS NOT NULL)
    AND (NOT %(lacks_output)s OR NOT EXISTS (
        SELECT FROM trigger_revision v WHERE v.id = r.revision_id AND v.output_schema IS NOT NULL))
RETURNING {_REPORTED}
"""

# Lets a worker's late report replace the end that the server had decided. The caller has locked the row and checked
# that the server ended the run.
COMPLETE_LATE = f"""
UPDATE run r SET ended_at = {NOW}, ended_by = 'worker', {_OUTCOME}
FROM trigger t
WHERE r.id = %(run_id)s AND t.id = r.trigger_id
RETURNING {_REPORTED}
"""

READ = f"""
SELECT {_RUN}, {_WILL_RETRY}, r.claim_id, r.ended_by, t.name AS trigger_name, x.error_message,
    x.late_result IS NOT NULL AS has_late_result, v.output_schema IS NOT NULL AS has_output_schema
FROM run r JOIN trigger t ON t.id = r.trigger_id JOIN trigger_revision v ON v.id = r.revision_id
LEFT JOIN run_text x ON x.run_id = r.id
WHERE r.id = %(run_id)s
"""
LOCK = "SELECT FROM run WHERE id = %(run_id)s FOR NO KEY UPDATE"

TRIGGER_OF_RUN = "SELECT trigger_id FROM run WHERE id = %(run_id)s AND worker_id = %(worker_id)s"

RETRY_FOR_UPDATE = """
SELECT id, status, worker_id, claimed_at IS NOT NULL AS was_claimed FROM run WHERE retry_of_id = %(run_id)s FOR UPDATE
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

POSTPONE_RETRY = f"""
UPDATE run
SET available_at = greatest(available_at, {NOW} + %(retry_after_seconds)s * interval '1 second')
WHERE id = %(retry_id)s AND status = 'queued'
"""

KEEP_LATE_RESULT = f"""
INSERT INTO run_text (run_id, environment_id, late_result)
SELECT id, environment_id,
    (jsonb_build_object('receivedAt', to_char({NOW} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'))
     || %(late_result)s::jsonb)::json
FROM run WHERE id = %(run_id)s
ON CONFLICT (run_id) DO UPDATE SET late_result = excluded.late_result
"""

KEEP_RESULT = """
INSERT INTO run_result (run_id, environment_id, output, tool_calls)
SELECT id, environment_id, %(output)s::json, %(tool_call_list)s::json FROM run WHERE id = %(run_id)s
ON CONFLICT (run_id) DO UPDATE SET output = excluded.output, tool_calls = excluded.tool_calls
"""

KEEP_ERRORS = """
INSERT INTO run_text (run_id, environment_id, error_message)
SELECT * FROM unnest(%(run_ids)s::uuid[], %(environment_ids)s::uuid[], %(messages)s::text[])
ON CONFLICT (run_id) DO UPDATE SET error_message = excluded.error_message
"""

CANCEL_QUEUED = f"""
UPDATE run r
SET status = 'canceled', fault_class = 'none', cancel_requested_at = {NOW}, ended_at = {NOW}, ended_by = 'user'
FROM trigger t
WHERE r.id = %(run_id)s AND r.status = 'queued' AND t.id = r.trigger_id
RETURNING {_ENDED}, NULL AS error_message
"""

REQUEST_CANCEL = f"""
UPDATE run r SET cancel_requested_at = {NOW}
FROM trigger t
WHERE r.id = %(run_id)s AND r.slot IS NOT NULL AND r.cancel_requested_at IS NULL AND t.id = r.trigger_id
RETURNING {_RUN}, t.name AS trigger_name, NULL AS error_message
"""

# When the run's lease ends. If workers could not reach the service lately, and so could not renew the lease, this is
# never (`infinity`). It needs the parameters of `triggers.runs.reachability.lease_params`.
LEASE_END = f"CASE WHEN {LEASES_COUNT} THEN lease_expires_at ELSE 'infinity' END"
# Finds the claimed and running runs whose lease or deadline has passed. The first condition on the times lets
# PostgreSQL use an index. The second leaves out runs whose lease has passed while workers could not reach the service.
_OVERDUE = f"""slot IS NOT NULL AND least(lease_expires_at, deadline_at) <= {NOW}
    AND least({LEASE_END}, deadline_at) <= {NOW}"""

OVERDUE = f"""
SELECT id, trigger_id FROM run WHERE {_OVERDUE} ORDER BY id LIMIT %(limit)s
"""

# Ends runs whose lease or deadline has passed. If both have, the earlier one decides. SKIP LOCKED leaves out rows that
# a worker's request or another scheduler is changing at this moment; the next round looks at them again.
EXPIRE = f"""
WITH overdue AS (
    SELECT id, {NOW} AS now, {LEASE_END} <= deadline_at AS is_lost, cancel_requested_at, timeout_seconds,
        round(extract(epoch FROM {NOW} - lease_expires_at))::int + %(lease_seconds)s AS silent_seconds
    FROM run
    WHERE id = ANY(%(ids)s) AND {_OVERDUE}
    FOR UPDATE SKIP LOCKED),
verdict AS (
    SELECT *, CASE WHEN NOT is_lost THEN 'timed_out'
        WHEN cancel_requested_at IS NOT NULL THEN 'canceled' ELSE 'failed' END AS status
    FROM overdue)
UPDATE run r
SET status = v.status, ended_at = v.now, ended_by = CASE WHEN v.is_lost THEN 'lease' ELSE 'deadline' END,
    fault_class = CASE v.status WHEN 'failed' THEN 'infra' WHEN 'timed_out' THEN 'client' ELSE 'none' END, {_RELEASED}
FROM verdict v, trigger t
WHERE r.id = v.id AND t.id = r.trigger_id
RETURNING {_ENDED}, r.ended_by,
    CASE WHEN v.is_lost THEN 'worker lost: no heartbeat for ' || v.silent_seconds || ' s'
        ELSE 'timed out: no result within ' || v.timeout_seconds || ' s' END AS error_message
"""

REASSIGN = """
WITH moved AS (
    SELECT id, worker_id FROM run
    WHERE trigger_id = %(trigger_id)s AND status = 'queued' AND ended_at IS NULL
    ORDER BY id FOR NO KEY UPDATE)
UPDATE run r SET worker_id = %(worker_id)s::uuid FROM moved WHERE r.id = moved.id
RETURNING moved.worker_id AS old_worker_id
"""

MOVE_QUEUED = """
WITH moved AS (
    SELECT id FROM run WHERE worker_id = %(from_worker)s AND status = 'queued' ORDER BY id FOR NO KEY UPDATE)
UPDATE run r SET worker_id = %(to_worker)s FROM moved WHERE r.id = moved.id
"""

# Counts a worker's unfinished runs. Each of the two counts reads a partial index: one has the queued runs, the other
# the claimed and running ones.
COUNT_UNFINISHED = """
SELECT (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND status = 'queued')
    + (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND slot IS NOT NULL) AS unfinished
"""
