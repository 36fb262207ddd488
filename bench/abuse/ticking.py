"""The neighbour's schedules: one trigger comes due after another, and each should become a run at once."""

import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from typing import Any

from bench.abuse.timed import Timed
from bench.stack import Database

KIND = "scheduled run"

_PER_SECOND = 2.0
_PATIENCE_SECONDS = 20.0
_LOOK_SECONDS = 0.1

# Makes a trigger due now for this minute's tick; the following tick is an hour away. It is due when this runs.
_ARM = """
UPDATE trigger SET next_run_at = date_trunc('minute', statement_timestamp()),
    schedule = extract(minute FROM statement_timestamp() AT TIME ZONE 'UTC') || ' * * * *'
WHERE id = '{trigger_id}'
RETURNING id::text AS trigger_id, next_run_at AS tick, clock_timestamp() AS due
"""
_FIRED = """
SELECT trigger_id::text, scheduled_for AS tick, queued_at, clock_timestamp() AS now
FROM run WHERE source = 'schedule' AND trigger_id = ANY('{{{trigger_ids}}}')
"""


def come_due(on: Database, trigger_ids: Sequence[str], stop: Event) -> list[Timed]:
    """Let the triggers come due in turn until `stop` is set, and return how late each became a queued run.

    Both times are of the database's clock.
    """
    armed: list[tuple[float, dict[str, Any]]] = []
    begin = time.monotonic()
    with on.session() as session:
        while not stop.wait(max(0.0, begin + len(armed) / _PER_SECOND - time.monotonic())):
            trigger_id = trigger_ids[len(armed) % len(trigger_ids)]
            moment = time.monotonic()
            row = session.execute(_ARM.format(trigger_id=trigger_id)).fetchone()
            assert row is not None
            armed.append((moment, row))
    return _lateness(on, armed, ",".join(trigger_ids))


def _lateness(
    on: Database, armed: Sequence[tuple[float, dict[str, Any]]], trigger_ids: str
) -> list[Timed]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        fired = on.all(_FIRED.format(trigger_ids=trigger_ids))
        queued = {(row["trigger_id"], row["tick"]): row["queued_at"] for row in fired}
        missing = [row for _, row in armed if (row["trigger_id"], row["tick"]) not in queued]
        if not missing or time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    now = on.one("SELECT clock_timestamp() AS now")["now"]
    things = []
    for moment, row in armed:
        at = queued.get((row["trigger_id"], row["tick"]))
        lateness = ((at or now) - row["due"]).total_seconds()
        failure = None if at else "A trigger that was due did not become a run."
        things.append(Timed(KIND, moment, max(0.0, lateness), failure))
    return things
