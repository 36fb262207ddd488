"""Gives an environment many runs that have ended this month, which the overview and the statistics add up."""

from uuid import UUID

from django.db import connection

from pipedai.timeouts import session_without_timeouts
from triggers.models import Run

# How many runs are copied, so that the copies have several triggers, workers, models and outcomes.
_COPIED = 1_000

# The columns in which a run differs from the one it copies. The runs have ended one after another since the 1st, and
# took up to ten minutes.
_OTHER = {
    "id": "uuidv7()",
    "ended_at": "times.ended",
    **dict.fromkeys(
        ("queued_at", "available_at", "claimed_at", "started_at"),
        "times.ended - times.took",
    ),
    "source": "'api'",
    "scheduled_for": "NULL",
    "attempt": "1",
    "retry_of_id": "NULL",
}

_FILL = """
WITH month AS (
    SELECT date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' AS first,
        (now() - date_trunc('month', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') / %(runs)s AS step),
there AS (
    SELECT count(*) AS runs FROM run, month WHERE environment_id = %(environment_id)s AND ended_at >= month.first),
like_it AS (
    SELECT row_number() OVER () AS nth, count(*) OVER () AS copied, few.* FROM (
        SELECT * FROM run WHERE environment_id = %(environment_id)s AND started_at IS NOT NULL AND ended_at IS NOT NULL
        LIMIT %(copied)s) few)
INSERT INTO run ({columns})
SELECT {values}
FROM month, there, generate_series(1, greatest(0, %(runs)s - there.runs)) AS n
JOIN like_it ON like_it.nth = n %% like_it.copied + 1
CROSS JOIN LATERAL (
    SELECT month.first + n * month.step AS ended, (n * 7919 %% 600000) * interval '1 millisecond' AS took) times
"""


def fill(environment_id: UUID, runs: int) -> None:
    """Adds runs up to this number, and vacuums the tables, as autovacuum does in a live database."""
    columns = [str(field.column) for field in Run._meta.concrete_fields]
    values = [_OTHER.get(column, f"like_it.{column}") for column in columns]
    statement = _FILL.format(columns=", ".join(columns), values=", ".join(values))
    with session_without_timeouts(), connection.cursor() as cursor:
        cursor.execute(
            statement, {"environment_id": environment_id, "runs": runs, "copied": _COPIED}
        )
        cursor.execute("VACUUM (ANALYZE) run")
