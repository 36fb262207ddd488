"""Writes the heartbeats of schedulers and web processes by the database's clock, and tells from them what is alive.

Web processes write theirs by the path that requests take. A gap is an outage of the service: during it no run is given
up because its lease expired, and after it workers get time to renew their leases.
"""

import os
import socket
from datetime import timedelta

from django.conf import settings

from pipedai import clocks
from pipedai.ids import new_id
from pipedai.server.heart import Beat
from pipedai.sql import execute, fetch_all
from triggers.models import SchedulerHeartbeat

BEAT_SECONDS = 5.0
# A scheduler counts as alive until it has missed four heartbeats.
ALIVE_WITHIN = timedelta(seconds=4 * BEAT_SECONDS)
# For how many seconds the row of a killed scheduler is kept. A scheduler that stops normally deletes its own row.
KEEP_SECONDS = 3600

_BEAT = """
INSERT INTO scheduler_heartbeat (id, host, pid) VALUES (%(id)s, %(host)s, %(pid)s)
ON CONFLICT (id) DO UPDATE SET beat_at = statement_timestamp()
RETURNING statement_timestamp() AS now
"""


class Heartbeat:
    """The heartbeat row of this process. The first beat inserts it."""

    every_seconds = BEAT_SECONDS

    def __init__(self) -> None:
        self.id = new_id()
        self._row = {"id": self.id, "host": socket.gethostname()[:255], "pid": os.getpid()}

    def beat(self) -> int:
        """Writes that this process lives, and removes rows of killed ones. Returns 0, so that the loop sleeps."""
        asked = clocks.machine_now()
        (row,) = fetch_all(_BEAT, self._row)
        clocks.of_this_process.compare(asked, row["now"])
        execute(
            "DELETE FROM scheduler_heartbeat"
            " WHERE beat_at < statement_timestamp() - make_interval(secs => %(seconds)s)",
            {"seconds": KEEP_SECONDS},
        )
        return 0

    def end(self) -> None:
        SchedulerHeartbeat.objects.filter(id=self.id).delete()


LONGEST_GAP_SECONDS = 30.0
LONGEST_GRACE_SECONDS = 60.0
# An outage is never assumed after less than this time without a heartbeat, however short the lease is, because a
# heartbeat may be late for a moment on a busy machine.
SHORTEST_GAP_SECONDS = 2.0
# The least time that a heartbeat may take. It may always take longer than it counts as fresh: see `Beat`.
SHORTEST_PATIENCE_SECONDS = 10.0

# Writes a heartbeat of this process, with the time since which workers can reach the service. If another process has a
# fresh heartbeat, that time is copied from it; otherwise it is now. A deployment that replaces all processes within
# `gap` seconds is therefore no outage.
_WEB_BEAT = """
WITH fresh AS (
    SELECT min(reachable_since) AS since FROM web_heartbeat
    WHERE beat_at > statement_timestamp() - make_interval(secs => %(gap)s)),
old AS (
    DELETE FROM web_heartbeat WHERE beat_at < statement_timestamp() - make_interval(secs => %(keep)s))
INSERT INTO web_heartbeat (id, host, pid, reachable_since)
SELECT %(id)s, %(host)s, %(pid)s, coalesce(fresh.since, statement_timestamp()) FROM fresh
ON CONFLICT (id) DO UPDATE SET beat_at = statement_timestamp(), reachable_since = excluded.reachable_since
RETURNING statement_timestamp()
"""

# The SQL for the time since which workers can reach the service; NULL if they can't. It needs the parameter `gap`.
REACHABLE_SINCE = """(
    SELECT min(reachable_since) FROM web_heartbeat
    WHERE beat_at > statement_timestamp() - make_interval(secs => %(gap)s))"""

# An SQL condition to put into other statements: whether workers could reach the service for so long that a run whose
# lease has expired is to be given up. It needs the parameters of `lease_params`.
LEASES_COUNT = f"""coalesce(
    {REACHABLE_SINCE} <= statement_timestamp() - make_interval(secs => %(grace)s), false)"""


def gap_seconds() -> float:
    """Returns after how long without a heartbeat an outage is assumed: a sixth of a lease, from 2 to 30 s."""
    return min(LONGEST_GAP_SECONDS, max(SHORTEST_GAP_SECONDS, settings.RUN_LEASE_SECONDS / 6))


def grace_seconds() -> float:
    """Returns how many seconds workers have after an outage to renew their leases: half of a lease, at most 60 s."""
    return min(LONGEST_GRACE_SECONDS, settings.RUN_LEASE_SECONDS / 2)


def lease_params() -> dict[str, float]:
    return {"gap": gap_seconds(), "grace": grace_seconds()}


def beat_of_this_process() -> Beat:
    """Returns this process's beat. Call it after the last fork, because the row has the process's id."""
    params = {
        "id": new_id(),
        "host": socket.gethostname()[:255],
        "pid": os.getpid(),
        "gap": gap_seconds(),
        "keep": KEEP_SECONDS,
    }
    patience = max(SHORTEST_PATIENCE_SECONDS, gap_seconds() * 1.2)
    return Beat(gap_seconds() / 3, patience, _WEB_BEAT, params)
