"""Reads the stored events of a run, for pages and for streams, and says why a run has none."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple
from uuid import UUID

from pipedai.api.views import announce_stream, event_text
from pipedai.server.ticket import Piece, StreamTicket
from pipedai.sql import Row, fetch_all, fetch_row
from pipedai.wakeups import announce_watch
from triggers.run_events.recording import TAKEN_AFTER_END, RunEvent
from triggers.runs.statements import RECORD_EVENTS
from triggers.states import RecordEvents, Status

# How many events, and how many bytes, a stream sends at a time.
PIECE, PIECE_BYTES = 500, 256 * 1024

# How many bytes of one run's events are read at a time for streams that are read together.
TOGETHER_BYTES = 64 * 1024

# A stream ends this many seconds after the end of its run, or after the latest event that came later. It waits because
# a worker sends its last events at about the time at which it reports the end.
LINGERING_SECONDS = 10.0

# A new stream asks once more after this time, because a process that stores events may not know yet that the run is
# streamed.
SOON_SECONDS = 1.0

# Reads how far a run and its events are. `silent_seconds` is how long ago the run ended, or its latest event was stored
# if that was later; NULL while the run has not ended.
_PROGRESS = f"""
SELECT r.status, {RECORD_EVENTS} AS record_events, t.record_events AS of_trigger,
    coalesce(l.stored, 0) AS stored, l.first_at, l.last_at,
    r.claimed_at IS NOT NULL OR r.spells > 0 AS was_claimed,
    CASE WHEN r.ended_at IS NOT NULL
        THEN extract(epoch FROM statement_timestamp() - greatest(r.ended_at, l.last_at))::float8
    END AS silent_seconds
FROM run r JOIN trigger t ON t.id = r.trigger_id LEFT JOIN run_event_log l ON l.run_id = r.id
WHERE r.id = %(run_id)s
"""

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

# Reads for several streams at once. Each is given by its run and the number of the last event that it has sent. The
# rows of one stream are in the order of the events. `stored` is the number of the run's last event.
_READ_TOGETHER = """
SELECT wanted.run_id, wanted.after, log.stored, batch.first_seq, batch.last_seq, batch.events
FROM unnest(%(run_ids)s::uuid[], %(afters)s::integer[]) AS wanted (run_id, after)
JOIN run_event_log log ON log.run_id = wanted.run_id
CROSS JOIN LATERAL (
    SELECT first_seq, last_seq, events, bytes, sum(bytes) OVER (ORDER BY last_seq ROWS UNBOUNDED PRECEDING) AS so_far
    FROM (
        SELECT first_seq, last_seq, events, bytes FROM run_event_batch
        WHERE run_id = wanted.run_id AND last_seq > wanted.after
            AND stored_at BETWEEN log.first_at AND log.last_at
        ORDER BY last_seq LIMIT %(limit)s) next) batch
WHERE batch.so_far <= %(most_bytes)s OR batch.so_far = batch.bytes
ORDER BY wanted.run_id, wanted.after, batch.first_seq
"""


class Page(NamedTuple):
    """Some events of a run, the number of the run's last event (0 if it has none), and a sentence on why there are no
    events (None if there are some).
    """

    events: list[RunEvent]
    last_seq: int
    why_none: str | None


def page_of_events(run_id: UUID, *, after: int, limit: int, most_bytes: int) -> Page:
    """Returns the first `limit` events after a number; fewer if they exceed `most_bytes`, but at least one."""
    progress = _progress(run_id)
    events = _read(progress, run_id, after=after, limit=limit, most_bytes=most_bytes)
    gone = after < progress["stored"] and not events
    return Page(events, progress["stored"], DROPPED if gone else why_none(progress))


def stored_events(run_id: UUID) -> tuple[int, str | None]:
    """Returns how many events of the run were stored and, if there are none, a sentence on why."""
    progress = _progress(run_id)
    return progress["stored"], why_none(progress)


class News(NamedTuple):
    """The next events of a stream, the status of its run if the run has just ended or begun to wait for a person, and
    the status with which the stream ends, if it does.
    """

    events: list[RunEvent]
    stopped_as: str | None = None
    ended_as: str | None = None


def news_of_run(ticket: StreamTicket, *, run_id: UUID, begin_after: int) -> News:
    """Returns the next events of a stream, and notes in the ticket that they were sent."""
    if ticket.sent is None:
        ticket.sent = begin_after
    ticket.read_together = read_together
    announce_stream(ticket, partial(announce_watch, run_id))
    ticket.again_seconds = SOON_SECONDS if ticket.asked == 1 else None
    progress = _progress(run_id)
    events = _read(progress, run_id, after=ticket.sent, limit=PIECE, most_bytes=PIECE_BYTES)
    # Old events may have been dropped. Then the stream skips them, because it would wait for them in vain.
    ticket.sent = events[-1].seq if events else max(ticket.sent, progress["stored"])
    ticket.more = ticket.sent < progress["stored"]
    if ticket.more:
        return News(events)
    status, silent_seconds = progress["status"], progress["silent_seconds"]
    is_new, ticket.status = status != ticket.status, status
    if silent_seconds is None:
        return News(events, status if is_new and status == Status.WAITING else None)
    left = LINGERING_SECONDS - silent_seconds
    ticket.is_over, ticket.again_seconds = left <= 0, max(left, 0.0)
    if ticket.is_over:
        return News(events, ended_as=status)
    return News(events, status if is_new else None)


def read_together(streams: Sequence[tuple[UUID, int]]) -> dict[tuple[UUID, int], Piece]:
    """Returns the next text of several streams, each given by its run and the number of the last event sent. It leaves
    out streams without new events. The caller has checked that the readers may see these runs.
    """
    params = {
        "run_ids": [run_id for run_id, _ in streams],
        "afters": [after for _, after in streams],
        "limit": PIECE,
        "most_bytes": TOGETHER_BYTES,
    }
    pieces = {}
    rows = fetch_all(_READ_TOGETHER, params)
    for (run_id, after), batches in groupby(rows, itemgetter("run_id", "after")):
        found = list(batches)
        last = found[-1]["last_seq"]
        text = "".join(event_text(event.json, id_=event.seq) for event in _after(found, after))
        pieces[run_id, after] = Piece(text.encode(), last, more=last < found[-1]["stored"])
    return pieces


def _progress(run_id: UUID) -> Row:
    return fetch_row(_PROGRESS, {"run_id": run_id})


def _read(
    progress: Row, run_id: UUID, *, after: int, limit: int, most_bytes: int
) -> list[RunEvent]:
    if after >= progress["stored"]:
        return []
    params = {
        "run_id": run_id,
        "after": after,
        "limit": limit,
        "most_bytes": most_bytes,
        "first_at": progress["first_at"],
        "last_at": progress["last_at"],
    }
    return list(_after(fetch_all(_READ, params), after))[:limit]


def _after(batches: list[Row], after: int) -> Iterator[RunEvent]:
    for batch in batches:
        for seq, json in enumerate(batch["events"], batch["first_seq"]):
            if seq > after:
                yield RunEvent(seq, json)


DROPPED = (
    "The run's events were dropped, because they had become as old as the service lets any become."
)

_NEVER = (
    "The run has no events, because its trigger records none. Have it record failed runs, or all runs, to see what the"
    " next ones do."
)

_SUCCEEDED = (
    "The run has no events, because it succeeded, and its trigger records failed runs alone. Have it record all runs to"
    " see what the next ones do."
)

_KEPT = (
    "The run has no events yet, because its trigger records failed runs alone, after their end. To see this one as it"
    " happens, watch it with POST /runs/:id/watch."
)

_UNCLAIMED = "The run has no events yet, because no machine has taken it."

_SILENT = "The run has no events yet, because its machine has sent none."

_UNEXECUTED = "The run has no events, because no machine executed it."

_AWAITED = (
    "The run has no events yet, because its machine has sent none. It sends them as soon as it reaches the service, if"
    " that is within 24 hours of the run's end."
)

_LATE = (
    "The run has no events, because its machine sent none within 24 hours of the run's end. The worker's log there may"
    " say why."
)


def why_none(progress: Row) -> str | None:
    """Returns a sentence on why none of the run's events were stored, or None if some were.

    `progress` is a row of `_PROGRESS`. It has the trigger's present setting, which may differ from the one with which
    the run was handed out.
    """
    mode, silent_seconds = progress["record_events"], progress["silent_seconds"]
    if progress["stored"]:
        return None
    if mode == RecordEvents.NEVER:
        return _NEVER
    if silent_seconds is None:
        if mode == RecordEvents.FAILURES:
            return _KEPT
        return _SILENT if progress["was_claimed"] else _UNCLAIMED
    if progress["of_trigger"] == RecordEvents.FAILURES and progress["status"] == Status.SUCCEEDED:
        return _SUCCEEDED
    if not progress["was_claimed"]:
        return _UNEXECUTED
    return _AWAITED if silent_seconds <= TAKEN_AFTER_END.total_seconds() else _LATE
