"""Says, at the moment of a claim, how many runs a worker may hold, that is, have claimed and not ended."""

from pipedai.api.authentication import bad_token
from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import fetch_one
from triggers.runs.conditions import Limits, limits_of


def locked_limits(worker: WorkerPrincipal) -> Limits:
    """Locks the worker's row. Raises Unauthenticated if the token was revoked since authentication."""
    row = fetch_one(
        "SELECT max_concurrency, disabled_at IS NOT NULL AS disabled, unapproved_since IS NULL AS approved,"
        " coalesce(limited_until > statement_timestamp(), false) AS limited FROM worker"
        " WHERE id = %(id)s AND token_digest = %(token_digest)s FOR NO KEY UPDATE",
        {"id": worker.id, "token_digest": worker.token_digest},
    )
    if row is None:
        raise bad_token()
    return limits_of(**row)
