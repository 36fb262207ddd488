"""The SQL statements that read and lock runs for their transitions, and the conditions that they share with these."""

from pipedai.sql import NOW
from triggers.budgets.room import CAP
from triggers.models import RUN_COLUMNS
from triggers.runs.conditions import (
    OF_ENVIRONMENT,
    ONLY_RESUMES,
)
from triggers.runs.reachability import LEASES_COUNT

RUN = ", ".join(f"r.{column}" for column in RUN_COLUMNS)

# How long after it came due, or after its worker's usage limit, a retry waits for the worker that can continue the
# session of the run that it repeats (SPEC §16).
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
    r.claim_id, r.ended_by, r.denials_total, t.name AS trigger_name, t.max_concurrent_runs, t.fail_on_denied,
    {CAP} AS max_cost_usd, x.error_message, x.late_result IS NOT NULL AS has_late_result,
    v.output_schema IS NOT NULL AS has_output_schema
FROM run r JOIN trigger t ON t.id = r.trigger_id JOIN trigger_revision v ON v.id = r.revision_id
LEFT JOIN run_text x ON x.run_id = r.id
WHERE r.id = %(run_id)s
"""

# What a run `r` last asked for, as the row `asked`, all NULL if it never waited. Others cost no look at the table.
LAST_ASKED = """LEFT JOIN LATERAL (
    SELECT a.* FROM approval a WHERE r.spells > 0 AND a.run_id = r.id AND a.environment_id = r.environment_id
    ORDER BY a.created_at DESC LIMIT 1) asked ON true"""
# Whether a run has the CLI's own tools for shells, the web and files.
ALLOWS_HOST_TOOLS = "t.allow_host_tools AND coalesce(asked.allow_host_tools, true)"

LOCK = "SELECT FROM run WHERE id = %(run_id)s FOR NO KEY UPDATE"

# Locks a trigger, so that those who do come one after the other, and the next statement sees what the one before did:
# claims, where the trigger limits how many of its runs may be held at once, changes of the trigger, and decisions.
LOCK_TRIGGER = "SELECT FROM trigger WHERE id = %(trigger_id)s FOR NO KEY UPDATE"

TRIGGER_OF_RUN = f"""
SELECT trigger_id FROM run WHERE id = %(run_id)s AND worker_id = %(worker_id)s AND {OF_ENVIRONMENT}
"""

RETRY_FOR_UPDATE = """
SELECT id, status, worker_id, pool_id, resume_until, claimed_at IS NOT NULL AS was_claimed
FROM run WHERE retry_of_id = %(run_id)s FOR UPDATE
"""

# When the run's lease ends. If workers could not reach the service lately, and so could not renew the lease, this is
# never (`infinity`). It needs the parameters of `triggers.runs.reachability.lease_params`.
LEASE_END = f"CASE WHEN {LEASES_COUNT} THEN lease_expires_at ELSE 'infinity' END"

# Finds the claimed and running runs whose lease or deadline has passed. The first condition on the times lets
# PostgreSQL use an index. The second leaves out runs whose lease has passed while workers could not reach the service.
IS_OVERDUE = f"""slot IS NOT NULL AND least(lease_expires_at, deadline_at) <= {NOW}
    AND least({LEASE_END}, deadline_at) <= {NOW}"""

OVERDUE = f"""
SELECT id, trigger_id, environment_id FROM run WHERE {IS_OVERDUE} ORDER BY id LIMIT %(limit)s
"""

# Finds the runs that must end although no worker holds them: their start deadline has passed, they could only continue
# a session, and the time for that is over, or nobody has decided about their call in time.
CANNOT_RESUME = f"""status IN ('queued', 'waiting') AND {ONLY_RESUMES.replace("r.", "")} AND resume_until <= {NOW}"""

IS_LATE = f"status = 'queued' AND start_deadline_at <= {NOW}"

UNSTARTABLE = f"""
SELECT id, trigger_id, environment_id FROM run WHERE {IS_LATE}
UNION
SELECT id, trigger_id, environment_id FROM run WHERE {CANNOT_RESUME}
ORDER BY id LIMIT %(limit)s
"""

# Counts a worker's unfinished runs that no other worker may take. Each of the counts reads a partial index: the first
# has the queued runs, the second the waiting ones of the environment, the third the claimed and running ones.
COUNT_UNFINISHED = """
SELECT (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND status = 'queued')
    + (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND status = 'waiting' AND ended_at IS NULL
        AND environment_id = (SELECT environment_id FROM worker WHERE id = %(worker_id)s))
    + (SELECT count(*) FROM run WHERE worker_id = %(worker_id)s AND slot IS NOT NULL) AS unfinished
"""
