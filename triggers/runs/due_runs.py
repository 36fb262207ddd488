"""The statements that read which runs are due for a worker, and what it gets with them."""

from functools import cache

from pipedai.sql import NOW
from triggers.budgets.room import NEXT_WINDOW
from triggers.runs.conditions import (
    APPROVALS_MAY_GO,
    FREE_IN_TRIGGER,
    FREE_SLOTS,
    HAND_OUT_ORDER,
    HAS_HEADERS,
    HEADERS_MAY_GO,
    IS_DUE,
    IS_OFFERED,
    IS_QUEUED,
    OF_ENVIRONMENT,
    first_due,
)
from triggers.runs.reads import ALLOWS_HOST_TOOLS, LAST_ASKED

_IS_NOT_SHUT = "r.trigger_id <> ALL(%(shut)s::uuid[])"

# What `opened_headers` reads of a trigger `t`, and the joins for it: its own sealed headers and those of its
# connection, each with its data key.
SEALED_HEADERS = """t.mcp_headers, k.id AS key_id, k.wrapped AS key_wrapped, k.master_key_id,
    t.connection_id, c.headers AS connection_headers, c.access_expires_at AS headers_expire_at,
    ck.id AS connection_key_id, ck.wrapped AS connection_key_wrapped, ck.master_key_id AS connection_master_key_id"""
WITH_SEALED_HEADERS = """LEFT JOIN data_key k ON k.id = t.mcp_key_id
LEFT JOIN connection c ON c.id = t.connection_id
LEFT JOIN data_key ck ON ck.id = c.headers_key_id"""

_RUNS = "run r JOIN trigger t ON t.id = r.trigger_id"


# What somebody decided about the call for which the run last waited, in the form in which its worker gets it.
_DECISION = """json_build_object('approvalId', asked.id,
        'decision', CASE asked.status WHEN 'approved' THEN 'approve' ELSE 'reject' END, 'tool', asked.tool,
        'argumentsHash', asked.arguments_hash, 'toolSchemaHash', asked.tool_schema_hash, 'reason', asked.reason)"""


def _reading_due(
    runs: str, where: str, *, most: str, last: str = "false", resumed_at: str = NOW
) -> str:
    """Returns the statement that reads due runs until the answer is full, or `most`. In SQL, `runs` and `where` say
    which, `last` which come last, and `resumed_at` when a session must be alive. `weight` estimates a run's bytes in
    the answer; PostgreSQL knows a text's length without reading it. Only the worker of a session gets
    `resume_session_id`.
    """
    return f"""
WITH due AS (
SELECT r.id, r.environment_id, r.trigger_id, t.name AS trigger_name, v.prompt, v.model, t.mcp_url,
    {SEALED_HEADERS}, r.timeout_seconds, x.payload, v.output_schema,
    t.retry_after_effects, t.retry_mode, t.max_cost_usd, t.record_events, r.attempt, r.queued_at,
    CASE WHEN r.resume_until > {resumed_at} AND r.worker_id = %(worker_id)s THEN r.resume_until END AS resume_until,
    CASE WHEN r.resume_until > {resumed_at} AND r.worker_id = %(worker_id)s THEN CASE
        WHEN r.spells > 0 THEN r.session_id
        ELSE (SELECT o.session_id FROM run o WHERE o.id = r.retry_of_id) END END AS resume_session_id,
    t.approvals AS present_rules, asked.rules AS kept_rules, {ALLOWS_HOST_TOOLS} AS allow_host_tools,
    CASE WHEN asked.id IS NOT NULL THEN {_DECISION} END AS decision,
    CASE WHEN t.max_concurrent_runs IS NOT NULL THEN {FREE_IN_TRIGGER} END AS free_in_trigger,
    x.mcp_url AS handed_out_url, x.handed_to[1] AS handed_to, {last} AS is_last, r.available_at,
    1024 + 6 * octet_length(t.name) + octet_length(v.prompt) + coalesce(octet_length(x.payload::text), 0)
        + coalesce(octet_length(v.output_schema::text), 0) + coalesce(octet_length(t.approvals::text), 0)
        + coalesce(octet_length(asked.rules::text), 0)
        + 2 * octet_length(t.mcp_url)
        + 2 * (coalesce(octet_length(t.mcp_headers), 0) + coalesce(octet_length(c.headers), 0)) AS weight
FROM {runs}
JOIN trigger_revision v ON v.id = r.revision_id
{WITH_SEALED_HEADERS}
LEFT JOIN run_text x ON x.run_id = r.id
{LAST_ASKED}
WHERE {where}
ORDER BY is_last, {HAND_OUT_ORDER}
LIMIT {most}
), weighed AS (
SELECT *, sum(weight) OVER (ORDER BY is_last, available_at, id ROWS UNBOUNDED PRECEDING) AS weight_so_far FROM due
)
SELECT * FROM weighed WHERE weight_so_far <= %(most_bytes)s OR weight_so_far = weight
ORDER BY is_last, available_at, id
"""


@cache
def due(own: int, *, of_each_pool: int | None) -> str:
    """Returns the statement that reads the due runs that a worker may claim: the first `own` of its own at most, and so
    many of each of its pools. Most workers are in no pool, and a statement without them costs less to plan.
    """
    found = first_due(_IS_NOT_SHUT, own=own, of_each_pool=of_each_pool)
    runs = f"({found}) r JOIN trigger t ON t.id = r.trigger_id"
    last = "false" if of_each_pool is None else "r.id = ANY(%(theirs)s::uuid[])"
    return _reading_due(runs, "true", most=f"least({own}, {FREE_SLOTS})", last=last)


# Reads the run that a worker holds and has claimed with this claimId. A worker may have claimed several runs one by one
# with the same claimId; then it is the first of them.
CLAIMED = _reading_due(
    _RUNS,
    f"r.{OF_ENVIRONMENT} AND r.worker_id = %(worker_id)s AND r.slot IS NOT NULL AND r.claim_id = %(claim_id)s"
    f" AND {HEADERS_MAY_GO} AND {APPROVALS_MAY_GO}",
    most="1",
    resumed_at="r.claimed_at",
)


def _reading_sealed(environment: str, where: str) -> str:
    """Returns the statement for sealed headers of due runs. It begins with triggers, most of which have none."""
    return f"""
SELECT t.id AS trigger_id, t.environment_id, {SEALED_HEADERS}
FROM trigger t
{WITH_SEALED_HEADERS}
CROSS JOIN LATERAL (
    SELECT FROM run r
    WHERE r.trigger_id = t.id AND r.ended_at IS NULL AND {where} AND {IS_QUEUED} AND {IS_DUE}
    LIMIT 1) due
WHERE t.{environment} AND t.deleted_at IS NULL AND {HAS_HEADERS}
ORDER BY t.id
"""


SEALED = _reading_sealed(OF_ENVIRONMENT, f"r.{OF_ENVIRONMENT} AND {IS_OFFERED}")
_OF_GIVEN = "environment_id = %(environment_id)s"
SEALED_IN_ENVIRONMENT = _reading_sealed(_OF_GIVEN, f"r.{_OF_GIVEN}")

# Reads until when the worker gets nothing because of its usage limit. Without a limit, it reads when the worker's next
# own run comes due, the next run is opened to a pool of the worker, or the next window of a budget begins, whichever is
# first.
OUTLOOK = f"""
SELECT coalesce((SELECT limited_until FROM worker WHERE id = %(worker_id)s AND limited_until > {NOW}), least(
    (SELECT min(available_at) FROM run
     WHERE worker_id = %(worker_id)s AND status = 'queued' AND available_at > {NOW}),
    (SELECT min(next.pool_from) FROM pool_member m CROSS JOIN LATERAL (
        SELECT pool_from FROM run WHERE pool_id = m.pool_id AND status = 'queued' AND pool_from > {NOW}
        ORDER BY pool_from LIMIT 1) next
     WHERE m.worker_id = %(worker_id)s),
    {NEXT_WINDOW})) - {NOW} AS until,
    {FREE_SLOTS} > 0 AS has_room
"""
