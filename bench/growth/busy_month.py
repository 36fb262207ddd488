"""Gives an environment many runs that have ended in some time, which the overview and the statistics add up."""

from datetime import datetime
from uuid import UUID

from pipedai.sql import execute
from triggers.models import Run

# How many runs are copied, so that the copies have several triggers, workers, models and outcomes.
_COPIED = 1_000

# The columns in which a run differs from the one it copies. The runs have ended one after another, and took up to
# ten minutes.
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
WITH span AS (
    SELECT %(first)s::timestamptz AS first, %(last)s::timestamptz AS last,
        (%(last)s::timestamptz - %(first)s::timestamptz) / %(runs)s AS step),
there AS (
    SELECT count(*) AS runs FROM run, span
    WHERE environment_id = %(environment_id)s AND ended_at BETWEEN span.first AND span.last),
like_it AS (
    SELECT row_number() OVER () AS nth, count(*) OVER () AS copied, few.* FROM (
        SELECT * FROM run WHERE environment_id = %(environment_id)s AND started_at IS NOT NULL AND ended_at IS NOT NULL
        LIMIT %(copied)s) few)
INSERT INTO run ({columns})
SELECT {values}
FROM span, there, generate_series(1, greatest(0, %(runs)s - there.runs)) AS n
JOIN like_it ON like_it.nth = n %% like_it.copied + 1
CROSS JOIN LATERAL (
    SELECT span.first + n * span.step AS ended, (n * 7919 %% 600000) * interval '1 millisecond' AS took) times
"""


def fill(environment_id: UUID, runs: int, *, since: datetime, until: datetime) -> None:
    """Adds runs up to this number, which have ended between these moments."""
    columns = [str(field.column) for field in Run._meta.concrete_fields]
    values = [_OTHER.get(column, f"like_it.{column}") for column in columns]
    statement = _FILL.format(columns=", ".join(columns), values=", ".join(values))
    params = {"environment_id": environment_id, "runs": runs, "copied": _COPIED}
    execute(statement, params | {"first": since, "last": until})
