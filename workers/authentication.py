"""Authenticates workers by their `wkt_` token."""

from pipedai.api.authentication import BearerAuthentication
from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import fetch_one

# `last_seen_at` is written at most every 10 s, to spare writes. `seen_lately` tells that it was written within the
# last 10 s and need not be written again.
_FIND = """
SELECT w.id, w.environment_id, e.workspace_id, w.max_concurrency, w.auth_mode, w.disabled_at IS NOT NULL AS disabled,
    w.unapproved_since IS NULL AS approved, w.account_id, w.takes_approvals,
    CASE WHEN w.limited_until > statement_timestamp() THEN w.limited_until END AS limited_until,
    ARRAY(SELECT m.pool_id FROM pool_member m WHERE m.worker_id = w.id) AS pool_ids, w.version, w.last_seen_at,
    w.process_id, w.signed_off_at IS NOT NULL AS signed_off, w.is_streamed,
    coalesce(w.last_seen_at > statement_timestamp() - interval '10 seconds', false) AS seen_lately,
    statement_timestamp() AS now
FROM worker w JOIN environment e ON e.id = w.environment_id
WHERE w.token_digest = %(digest)s AND w.deleted_at IS NULL AND e.deleted_at IS NULL
"""


class WorkerTokenAuthentication(BearerAuthentication):
    """Authenticates the worker's own calls (poll, claim, start, heartbeat, complete) by its `wkt_` token."""

    prefix = "wkt"

    def find(self, digest: bytes) -> WorkerPrincipal | None:
        """Returns None without such a worker, or if it or its environment is deleted."""
        row = fetch_one(_FIND, {"digest": digest})
        return None if row is None else WorkerPrincipal(**row, token_digest=digest)
