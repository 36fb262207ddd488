"""Tells whether a scheduler is alive to do what is due."""

from datetime import datetime

from pipedai.sql import NOW, fetch_row
from triggers.explain.clock_words import moment_words
from triggers.schedules.heartbeats import ALIVE_WITHIN

_BEATS = f"""
SELECT max(beat_at) AS last, coalesce(max(beat_at) > {NOW} - %(within)s::interval, false) AS is_alive, {NOW} AS now
FROM scheduler_heartbeat
"""


def without_scheduler(*, now: datetime | None) -> str | None:
    """Returns words on since when no scheduler is alive, and what to do; None if one is. It takes one statement."""
    beats = fetch_row(_BEATS, {"within": ALIVE_WITHIN, "now": now})
    if beats["is_alive"]:
        return None
    since = f" since {moment_words(beats['last'], beats['now'])}" if beats["last"] else ""
    return f"no scheduler is alive{since}: start one (manage.py runscheduler)"
