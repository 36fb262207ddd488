"""Tells whether workers could reach the service lately, because a lease counts only such time (SPEC §22).

Each web process writes a heartbeat row from its event loop, through the same way to the database as requests. Without
a database, or without a web process, no beat is written. So a gap between the beats is an outage of ours, and a silent
worker is not to blame for its silence. After a gap each worker gets some time to renew its leases.
"""

import os
import socket

from django.conf import settings

from pipedai.ids import new_id
from pipedai.server.heart import Beat

LONGEST_GAP_SECONDS = 30.0
LONGEST_GRACE_SECONDS = 60.0
# A beat may be late for a moment on a busy machine, so a short lease does not make the gap shorter than this.
SHORTEST_GAP_SECONDS = 2.0
# How long a beat may take at least. It may always take longer than it counts: see `Beat`.
SHORTEST_PATIENCE_SECONDS = 10.0
# How long the row of an ended process is kept.
KEEP_SECONDS = 3600

# Writes a beat. `reachable_since` is the time since when there was no gap between the beats of all processes: the first
# beat after a gap sets it to the present, and each later one copies it from the beats before it. So a deployment that
# replaces all processes within the gap is no outage.
_BEAT = """
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

# A condition for the text of other statements: whether leases count now, because there was no gap between the beats for
# long enough. It needs the parameters of `lease_params`.
LEASES_COUNT = """(
    SELECT coalesce(min(reachable_since) <= statement_timestamp() - make_interval(secs => %(grace)s), false)
    FROM web_heartbeat WHERE beat_at > statement_timestamp() - make_interval(secs => %(gap)s))"""


def gap_seconds() -> float:
    """Returns how long no web process may beat before that counts as an outage: a sixth of a lease, 2 to 30 s."""
    return min(LONGEST_GAP_SECONDS, max(SHORTEST_GAP_SECONDS, settings.RUN_LEASE_SECONDS / 6))


def grace_seconds() -> float:
    """Returns how long workers may take to renew their leases after an outage: half of a lease, at most 60 s."""
    return min(LONGEST_GRACE_SECONDS, settings.RUN_LEASE_SECONDS / 2)


def lease_params() -> dict[str, float]:
    """Returns the parameters of LEASES_COUNT, in seconds."""
    return {"gap": gap_seconds(), "grace": grace_seconds()}


def beat_of_this_process() -> Beat:
    """Returns the heartbeat of this web process. The process must not have forked since."""
    params = {
        "id": new_id(),
        "host": socket.gethostname()[:255],
        "pid": os.getpid(),
        "gap": gap_seconds(),
        "keep": KEEP_SECONDS,
    }
    patience = max(SHORTEST_PATIENCE_SECONDS, gap_seconds() * 1.2)
    return Beat(gap_seconds() / 3, patience, _BEAT, params)
