"""Authenticates workers by their `wkt_` token (SPEC §3)."""

from pipedai.api.authentication import BearerAuthentication
from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import fetch_one

# Calls write `last_seen_at` at most every 10 s (SPEC §2): this says whether one did so lately.
_FIND = """
SELECT w.id, w.environment_id, e.workspace_id, w.max_concurrency, w.auth_mode, w.disabled_at IS NOT NULL AS disabled,
    w.unapproved_since IS NULL AS approved, w.version, w.last_seen_at, w.is_streamed,
    coalesce(w.last_seen_at > statement_timestamp() - interval '10 seconds', false) AS seen_lately,
    statement_timestamp() AS now
FROM worker w JOIN environment e ON e.id = w.environment_id
WHERE w.token_digest = %(digest)s AND w.deleted_at IS NULL AND e.deleted_at IS NULL
"""


class WorkerTokenAuthentication(BearerAuthentication):
    """Authenticates the calls of the worker protocol."""

    prefix = "wkt"

    def find(self, digest: bytes) -> WorkerPrincipal | None:
        """Returns the worker whose token has this digest, if neither it nor its environment is deleted. One query."""
        row = fetch_one(_FIND, {"digest": digest})
        return None if row is None else WorkerPrincipal(**row, token_digest=digest)
