"""What the app adds to the service: the receiver of domain events, a probe, and the jobs about its partitions."""

from django.core.checks import CheckMessage, Error, Info

from audit.receivers import AT_LEAST_DAYS, add_partitions, drop_partitions
from pipedai.checks import register_probe
from pipedai.loop import Job, register_job
from pipedai.retention import Retention, register_retention
from pipedai.sql import fetch_row

_PARTITIONS = """
SELECT to_regclass('audit_entry_' || to_char(month, 'YYYY_MM')) IS NOT NULL AS this_month,
    to_regclass('audit_entry_' || to_char(month + interval '1 month', 'YYYY_MM')) IS NOT NULL AS next_month,
    EXISTS (SELECT FROM audit_entry_default WHERE created_at >= month AT TIME ZONE 'UTC') AS strays
FROM date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') month
"""
_REMEDY = "Keep a scheduler running: it makes them, three months ahead, every hour."


def partitions_are_ahead() -> CheckMessage:
    row = fetch_row(_PARTITIONS, {})
    if not (row["this_month"] and row["next_month"]):
        return Error("This month or the next has no partition of its own.", hint=_REMEDY)
    if row["strays"]:
        return Error("This month's rows went to the default partition.", hint=_REMEDY)
    return Info("There are partitions for this month and the next.")


register_probe("audit log", partitions_are_ahead)
register_job(
    Job(
        "add-audit-partitions",
        3600.0,
        add_partitions,
        does="Makes the audit log's partitions of the next three months.",
        alone="The partitions belong to all tenants.",
    )
)
register_retention(
    Retention(
        "audit-log",
        "months of the audit log",
        lambda: None,
        drop_partitions,
        at_least=AT_LEAST_DAYS,
        automatic=False,
    )
)
