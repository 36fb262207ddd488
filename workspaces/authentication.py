"""Authenticates external systems by their `pwk_` key and hosts by their `hos_` key (SPEC §3)."""

from pipedai.api.authentication import BearerAuthentication, bad_token
from pipedai.api.error_codes import ErrorCode
from pipedai.api.exceptions import unless_read_only
from pipedai.api.principal import HostPrincipal, KeyPrincipal
from pipedai.sql import Row, execute, fetch_one
from workspaces.models import ApiKey

# Finds a key by its token's digest. `used_lately` says whether `last_used_at` was written in the last 10 s; it is not
# written again so soon (SPEC §2).
_FIND = """
SELECT k.id, k.environment_id, e.workspace_id, k.role,
    coalesce(k.expires_at <= statement_timestamp(), false) AS is_over,
    coalesce(k.last_used_at > statement_timestamp() - interval '10 seconds', false) AS used_lately
FROM api_key k JOIN environment e ON e.id = k.environment_id
WHERE k.token_digest = %(digest)s AND k.kind = %(kind)s AND k.revoked_at IS NULL AND e.deleted_at IS NULL
"""
# Writes when the key was last used. If another transaction has locked the key's row, this changes nothing and does not
# wait: the next call will write it.
_NOTE_USE = """
UPDATE api_key SET last_used_at = statement_timestamp()
WHERE id = (SELECT id FROM api_key WHERE id = %(id)s FOR NO KEY UPDATE SKIP LOCKED)
"""


class ApiKeyAuthentication(BearerAuthentication):
    prefix = ApiKey.Kind.PWK.value

    def find(self, digest: bytes) -> KeyPrincipal | None:
        """Raises Unauthenticated if the key has expired. It is raw SQL: each call of a script begins with it."""
        row = _find(digest, self.prefix)
        if row is None:
            return None
        return KeyPrincipal(row["id"], row["environment_id"], row["workspace_id"], row["role"])


class HostKeyAuthentication(BearerAuthentication):
    prefix = ApiKey.Kind.HOS.value

    def find(self, digest: bytes) -> HostPrincipal | None:
        """Raises Unauthenticated if the key has expired. One query."""
        row = _find(digest, self.prefix)
        if row is None:
            return None
        return HostPrincipal(row["id"], row["environment_id"], row["workspace_id"])


def _find(digest: bytes, kind: str) -> Row | None:
    row = fetch_one(_FIND, {"digest": digest, "kind": kind})
    if row is None:
        return None
    if row["is_over"]:
        raise bad_token(ErrorCode.TOKEN_EXPIRED)
    if not row["used_lately"]:
        with unless_read_only():
            execute(_NOTE_USE, {"id": row["id"]})
    return row
