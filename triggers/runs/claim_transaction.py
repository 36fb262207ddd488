"""Makes the transaction of a claim, which is committed even if the claim is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import NotFound
from pipedai.sql import execute
from triggers.runs.lifecycle import Refused

# The transaction of a refused claim has only locked rows, so that nothing is lost if its commit is.
_COMMIT_WITHOUT_WAITING = "SET LOCAL synchronous_commit TO off"


@contextmanager
def claim_transaction() -> Iterator[None]:
    """Runs the block in a transaction, and raises what the block raises.

    If the claim is refused, the transaction is committed nevertheless, because at a ROLLBACK psycopg forgets all
    prepared statements of the connection. Workers of a pool lose many claims to each other. After each of these
    PostgreSQL would have to parse and plan the next statements anew. Only a refusal by a budget is rolled back, because
    it may follow the UPDATE that claims.
    """
    refusal: Refused | NotFound | None = None
    with transaction.atomic():
        try:
            yield
        except (Refused, NotFound) as error:
            if error.code == ErrorCode.BUDGET_EXHAUSTED:
                raise
            execute(_COMMIT_WITHOUT_WAITING, {})
            refusal = error
    if refusal is not None:
        raise refusal
