"""Asks schedulers for fresh tokens of connections (SPEC §24)."""

from collections.abc import Iterable
from uuid import UUID

from pipedai.sql import execute

# What is being asked for, or has failed, stays as it is: asking at once would not be sooner, or would not help.
_WANT = """
UPDATE connection SET refresh_at = statement_timestamp()
WHERE id = ANY(%(ids)s) AND refresh_at > statement_timestamp() AND lease_id IS NULL AND failures = 0
"""


def want_refresh(connection_ids: Iterable[UUID]) -> None:
    """Makes these connections due now, unless they are being refreshed or wait after a failure. A scheduler looks four
    times a second.
    """
    execute(_WANT, {"ids": list(connection_ids)})
