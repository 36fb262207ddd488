"""The `wkt_` substrate: authenticates workers by their token (SPEC §3)."""

from pipedai.api.authentication import BearerAuthentication
from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import fetch_one

# `lastSeenAt` is bookkeeping, written at most every 10 s (SPEC §2).
_FIND = """
SELECT w.id, w.environment_id, e.workspace_id, w.max_concurrency, w.disabled_at IS NOT NULL AS disabled,
    w.unapproved_since IS NULL AS approved, w.version, w.last_seen_at, w.is_streamed,
    coalesce(w.last_seen_at > statement_timestamp() - interval '10 seconds', false) AS seen_lately,
    statement_timestamp() AS now
FROM worker w JOIN environment e ON e.id = w.environment_id
WHERE w.token_digest = %(digest)s AND w.deleted_at IS NULL AND e.deleted_at IS NULL
"""


class WorkerTokenAuthentication(BearerAuthentication):
    """A worker, on the endpoints of its own protocol."""

    prefix = "wkt"

    def find(self, digest: bytes) -> WorkerPrincipal | None:
        """The live worker with this digest in an environment that is not deleted. One query."""
        row = fetch_one(_FIND, {"digest": digest})
        return None if row is None else WorkerPrincipal(**row, token_digest=digest)
