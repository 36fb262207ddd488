"""Makes the audit log's partitions ahead of time."""

from pipedai.sql import fetch_all

MONTHS_AHEAD = 3

# A month whose rows have already gone to the default partition stays there: PostgreSQL refuses to
# split it off. The advisory lock keeps two schedulers from making the same one.
_ADD = """
SELECT audit_add_partition(month)
FROM (
    SELECT (date_trunc('month', statement_timestamp() AT TIME ZONE 'UTC') + n * interval '1 month')::date AS month
    FROM generate_series(0, %(months)s) n) ahead
WHERE pg_try_advisory_xact_lock(hashtext('audit_add_partition'))
    AND NOT EXISTS (
        SELECT 1 FROM audit_entry_default
        WHERE created_at >= month AT TIME ZONE 'UTC' AND created_at < (month + interval '1 month') AT TIME ZONE 'UTC')
"""


def add_partitions() -> int:
    """Makes the partitions of this and the coming months; how many there were to make."""
    rows = fetch_all(_ADD, {"months": MONTHS_AHEAD})
    return sum(row["audit_add_partition"] for row in rows)
