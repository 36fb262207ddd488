"""Reads the stored events of a run, from a number on."""

from collections.abc import Iterator
from typing import NamedTuple
from uuid import UUID

from pipedai.sql import Row, fetch_all

# Reads the batches that hold the events after the number `after`, as many as fit into `most_bytes`, but at least one.
# Only the partitions of the days on which the run stored events are searched.
_READ = """
WITH batch AS (
    SELECT first_seq, events, bytes, sum(bytes) OVER (ORDER BY last_seq ROWS UNBOUNDED PRECEDING) AS so_far FROM (
        SELECT first_seq, last_seq, events, bytes FROM run_event_batch
        WHERE run_id = %(run_id)s AND last_seq > %(after)s
            AND stored_at BETWEEN %(first_at)s AND %(last_at)s
        ORDER BY last_seq LIMIT %(limit)s) next)
SELECT first_seq, events FROM batch WHERE so_far <= %(most_bytes)s OR so_far = bytes ORDER BY first_seq
"""


class StoredEvent(NamedTuple):
    """An event of a run: its number, and its JSON text."""

    seq: int
    json: str


def read_events(
    log: Row, *, run_id: UUID, after: int, limit: int, most_bytes: int
) -> list[StoredEvent]:
    """Returns the first `limit` events whose number is larger than `after`, in order.

    It returns fewer if they have more than `most_bytes`, but at least one if there is any. `log` has the columns
    `stored`, `first_at` and `last_at` of the run's row in `run_event_log`, or NULL in each if it has none.
    """
    if not log["stored"] or after >= log["stored"]:
        return []
    params = {
        "run_id": run_id,
        "after": after,
        "limit": limit,
        "most_bytes": most_bytes,
        "first_at": log["first_at"],
        "last_at": log["last_at"],
    }
    return list(_after(fetch_all(_READ, params), after))[:limit]


def _after(batches: list[Row], after: int) -> Iterator[StoredEvent]:
    for batch in batches:
        for seq, json in enumerate(batch["events"], batch["first_seq"]):
            if seq > after:
                yield StoredEvent(seq, json)
