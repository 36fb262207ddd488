"""Says when a worker counts as silent or gone, and notes a silence that ends with a worker's call (SPEC §14).

No scheduler may have seen it, so the call writes a row, and a scheduler tells people later.
"""

from datetime import timedelta
from typing import Any, Final

from triggers.heartbeats import REACHABLE_SINCE, gap_seconds

# A worker counts as offline after it has been silent for this long (SPEC §14).
SILENT_FOR: Final = timedelta(minutes=10)
# A worker that has signed off counts as offline after this long. People are told of a worker that somebody stopped, and
# not of one that is started again.
RESTARTS_WITHIN: Final = timedelta(minutes=1)

# The SQL for the time of the last call of the worker `w`. A worker that has never called is silent since it registered.
LAST_SEEN = "coalesce(w.last_seen_at, w.created_at)"
# The SQL for the time from which on people are to be told that the worker `w` is offline, unless it calls before.
OFFLINE_AT = f"least({LAST_SEEN} + %(silent_for)s, w.signed_off_at + %(restarts_within)s)"
# The SQL condition that an enabled trigger points at the worker `w`.
_NEEDS_IT = "t.worker_id = w.id AND t.enabled AND t.deleted_at IS NULL"
IS_NEEDED = f"EXISTS (SELECT FROM trigger t WHERE {_NEEDS_IT})"

# Inserts the silence that a call of the worker `w` ends, if a scheduler would have told people about it: the worker
# was needed, not disabled and in no paused environment, and could reach the service. `w` is the locked row as it was
# before the call. The silence counts from the moment at which a scheduler would have noticed it. Right after an
# outage of the service nothing is inserted. This is a part of a statement, and needs the parameters of
# `silence_params`.
NOTE_SILENCE = f"""
INSERT INTO worker_silence (environment_id, worker_id, last_seen_at, offline_at, ended_at)
SELECT w.environment_id, w.id, w.last_seen_at, o.at, statement_timestamp()
FROM w CROSS JOIN LATERAL (
    SELECT greatest({OFFLINE_AT}, {REACHABLE_SINCE} + %(silent_for)s, (
        SELECT min(coalesce(h.counts_from, t.created_at))
        FROM trigger t LEFT JOIN trigger_health h ON h.trigger_id = t.id
        WHERE {_NEEDS_IT})) AS at) o
WHERE NOT EXISTS (SELECT FROM environment e WHERE e.id = w.environment_id AND e.paused_at IS NOT NULL)
    AND w.disabled_at IS NULL AND o.at < statement_timestamp() AND {REACHABLE_SINCE} IS NOT NULL AND {IS_NEEDED}
"""  # noqa: S608


def silence_params() -> dict[str, Any]:
    return {**offline_params(), "gap": gap_seconds()}


def offline_params() -> dict[str, Any]:
    """Returns the parameters of OFFLINE_AT."""
    return {"silent_for": SILENT_FOR, "restarts_within": RESTARTS_WITHIN}
