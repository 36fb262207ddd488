"""A probe for `check_deploy`: are the audit log's partitions made ahead of time?"""

from pipedai.deployment import Finding
from pipedai.sql import fetch_one

_PARTITIONS = """
SELECT to_regclass('audit_entry_' || to_char(month, 'YYYY_MM')) IS NOT NULL AS this_month,
    to_regclass('audit_entry_' || to_char(month + interval '1 month', 'YYYY_MM')) IS NOT NULL AS next_month,
    EXISTS (SELECT FROM audit_entry_default WHERE created_at >= month AT TIME ZONE 'UTC') AS strays
FROM date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') month
"""
_REMEDY = "Keep a scheduler running: it makes them, three months ahead, every hour."


def partitions_are_ahead() -> Finding:
    """Checks that the audit log has a partition for the rows of this month and one for those of the next month."""
    row = fetch_one(_PARTITIONS, {})
    assert row is not None
    if not (row["this_month"] and row["next_month"]):
        return Finding("This month or the next has no partition of its own.", _REMEDY)
    if row["strays"]:
        return Finding("This month's rows went to the default partition.", _REMEDY)
    return Finding("There are partitions for this month and the next.")
