"""How long a run took."""

from datetime import timedelta

from pipedai.sql import Row


def duration_ms(run: Row) -> int | None:
    """Milliseconds from start to end; None for a run that never started or has not ended (SPEC §6)."""
    if run["started_at"] is None or run["ended_at"] is None:
        return None
    return int((run["ended_at"] - run["started_at"]) / timedelta(milliseconds=1))
