"""The probes of background work: whether a scheduler is alive, and whether its work is on time."""

# Values are always passed as parameters. The f-string below only joins constants.
# ruff: noqa: S608

from django.core.checks import CheckMessage, Error, Info

from pipedai.api.renderers import counted
from pipedai.sql import fetch_all, fetch_row
from triggers.heartbeats import ALIVE_WITHIN, lease_params
from triggers.runs.statements import LEASE_END

# Work that has been due for longer than this counts as late. It is normally done within a second, and a short outage of
# the database explains up to a minute.
LATE_SECONDS = 60

_ALIVE = """
SELECT host, pid FROM scheduler_heartbeat
WHERE beat_at > clock_timestamp() - %(alive)s ORDER BY started_at
"""
_LAST = "SELECT max(beat_at) AS at, clock_timestamp() AS now FROM scheduler_heartbeat"

# Counts late work of each kind. Each count reads the index that the job for that kind also reads, and stops at `most`
# rows, so that the check is quick. A lease that ran out while workers could not reach the service does not count,
# because the scheduler then waits for the worker on purpose.
_LATE = f"""
SELECT
    (SELECT count(*) FROM (
        SELECT FROM trigger WHERE next_run_at < clock_timestamp() - late LIMIT %(most)s) t) AS tick,
    (SELECT count(*) FROM (
        SELECT FROM run WHERE slot IS NOT NULL AND least(lease_expires_at, deadline_at) < clock_timestamp() - late
            AND least({LEASE_END}, deadline_at) < clock_timestamp() - late
        LIMIT %(most)s) r) AS run,
    (SELECT count(*) FROM (
        SELECT FROM delivery WHERE status = 'pending' AND next_attempt_at < clock_timestamp() - late
        LIMIT %(most)s) d) AS delivery,
    (SELECT count(*) FROM (
        SELECT FROM connection WHERE refresh_at < clock_timestamp() - late
            AND (leased_until IS NULL OR leased_until < clock_timestamp())
        LIMIT %(most)s) c) AS connection
FROM make_interval(secs => %(late)s) late
"""
_MOST_COUNTED = 1_000


def schedulers_live() -> CheckMessage:
    """Checks that at least one scheduler is alive, which shows in a fresh heartbeat."""
    alive = fetch_all(_ALIVE, {"alive": ALIVE_WITHIN})
    if alive:
        names = ", ".join(f"{row['host']} (pid {row['pid']})" for row in alive[:5])
        more = f" and {len(alive) - 5} more" if len(alive) > 5 else ""
        return Info(f"{len(alive)} alive: {names}{more}.")
    last = fetch_row(_LAST, {})
    ago = f"{(last['now'] - last['at']).total_seconds():.0f} s ago" if last["at"] else "none"
    return Error(
        f"None is alive; last heartbeat: {ago}.",
        hint="Start the Procfile's `scheduler` process: `manage.py runscheduler`.",
    )


def work_is_on_time() -> CheckMessage:
    """Checks that no tick, run, delivery or token of a connection has been due for more than LATE_SECONDS."""
    late = fetch_row(_LATE, {"late": LATE_SECONDS, "most": _MOST_COUNTED, **lease_params()})
    overdue = [
        f"{counted(number, what)}{' or more' if number == _MOST_COUNTED else ''}"
        for what, number in late.items()
        if number
    ]
    if overdue:
        return Error(
            f"Overdue by more than {LATE_SECONDS} s: {', '.join(overdue)}.",
            hint="Start a scheduler, or another one; its log says what fails (`job.failed`).",
        )
    return Info("No tick, lease, delivery or connection is overdue.")
