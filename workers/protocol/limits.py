"""Says, at the moment of a claim, how many runs a worker may hold, that is, have claimed and not ended."""

from typing import TypedDict

from pipedai.api.authentication import bad_token
from pipedai.api.principal import WorkerPrincipal
from pipedai.sql import fetch_one


class Limits(TypedDict):
    """How many runs a worker may have claimed and not ended, and whether an admin has approved it for runs with
    secrets.
    """

    capacity: int
    approved: bool


def locked_limits(worker: WorkerPrincipal) -> Limits:
    """Locks the worker's row until the transaction ends, and returns its limits; a disabled worker may hold no run.

    Raises Unauthenticated if the token was revoked since the request was authenticated.
    """
    row = fetch_one(
        "SELECT max_concurrency, disabled_at, unapproved_since FROM worker"
        " WHERE id = %(id)s AND token_digest = %(token_digest)s FOR NO KEY UPDATE",
        {"id": worker.id, "token_digest": worker.token_digest},
    )
    if row is None:
        raise bad_token()
    return {
        "capacity": 0 if row["disabled_at"] else row["max_concurrency"],
        "approved": row["unapproved_since"] is None,
    }
