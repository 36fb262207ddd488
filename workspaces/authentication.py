"""The `pwk_` and `hos_` substrates: authenticate external systems and hosts by their key (SPEC §3)."""

from pipedai.api.authentication import BearerAuthentication
from pipedai.api.principal import HostPrincipal, KeyPrincipal
from pipedai.sql import Row, execute, fetch_one
from workspaces.models import ApiKey

# `lastUsedAt` is bookkeeping, written at most every 10 s (SPEC §2).
_FIND = """
SELECT k.id, k.environment_id, e.workspace_id, k.role,
    coalesce(k.last_used_at > statement_timestamp() - interval '10 seconds', false) AS used_lately
FROM api_key k JOIN environment e ON e.id = k.environment_id
WHERE k.token_digest = %(digest)s AND k.kind = %(kind)s AND k.revoked_at IS NULL AND e.deleted_at IS NULL
    AND (k.expires_at IS NULL OR k.expires_at > statement_timestamp())
"""
# An act of the same key's may hold its row, for which nobody waits: the next call notes its own use.
_NOTE_USE = """
UPDATE api_key SET last_used_at = statement_timestamp()
WHERE id = (SELECT id FROM api_key WHERE id = %(id)s FOR NO KEY UPDATE SKIP LOCKED)
"""


class ApiKeyAuthentication(BearerAuthentication):
    """A `pwk_` key, in its one environment, with its own role."""

    prefix = ApiKey.Kind.PWK.value

    def find(self, digest: bytes) -> KeyPrincipal | None:
        """The live key with this digest in an environment that is not deleted. One query, by raw SQL: it is the
        first of each call that a script makes.
        """
        row = _find(digest, self.prefix)
        if row is None:
            return None
        return KeyPrincipal(row["id"], row["environment_id"], row["workspace_id"], row["role"])


class HostKeyAuthentication(BearerAuthentication):
    """A `hos_` key, for the workers that its host brought in to its one environment."""

    prefix = ApiKey.Kind.HOS.value

    def find(self, digest: bytes) -> HostPrincipal | None:
        """The live key with this digest in an environment that is not deleted. One query."""
        row = _find(digest, self.prefix)
        if row is None:
            return None
        return HostPrincipal(row["id"], row["environment_id"], row["workspace_id"])


def _find(digest: bytes, kind: str) -> Row | None:
    row = fetch_one(_FIND, {"digest": digest, "kind": kind})
    if row is not None and not row["used_lately"]:
        execute(_NOTE_USE, {"id": row["id"]})
    return row
