"""Notes who received the secret headers of a run: which worker, from which address (SPEC §8)."""

from collections.abc import Iterable
from operator import itemgetter
from uuid import UUID

from django.db import transaction

from pipedai.events import Actor, Event, emit
from pipedai.logs import get_logger
from pipedai.sql import Row, fetch_all

log = get_logger(__name__)

# How many receivers of a run's secret headers are stored with the run. A receiver is a worker together with its IP
# address. If a worker changes between a few addresses, an audit row is therefore written once for each address and not
# at every poll.
_REMEMBERED = 20

# Stores with each run the MCP URL that the worker gets, and who receives the secret headers: the receiver, which is a
# worker together with its IP address. `receiver` is NULL if the run has no headers, or if the receiver stored last gets
# them again. With `later` false, the statement changes only rows without a receiver. If two polls do this at the same
# moment, the second one changes and returns no row, and so learns that it was second. With `later` true, the statement
# puts the receiver before the earlier ones, unless the receiver stored last and the stored URL are the same as the new
# ones.
_KEEP = f"""
INSERT INTO run_text AS kept (run_id, environment_id, mcp_url, handed_to)
SELECT run_id, environment_id, url, CASE WHEN receiver IS NOT NULL THEN ARRAY[receiver] END
FROM unnest(%(run_ids)s::uuid[], %(environment_ids)s::uuid[], %(urls)s::text[], %(receivers)s::text[])
    AS u (run_id, environment_id, url, receiver)
ON CONFLICT (run_id) DO UPDATE
SET mcp_url = excluded.mcp_url, handed_to = (excluded.handed_to || kept.handed_to)[1:{_REMEMBERED}]
WHERE CASE WHEN %(later)s
    THEN kept.mcp_url IS DISTINCT FROM excluded.mcp_url OR kept.handed_to[1] IS DISTINCT FROM excluded.handed_to[1]
    ELSE kept.handed_to IS NULL END
RETURNING run_id, handed_to
"""


def note_receiver(runs: Iterable[Row], *, worker_id: UUID, actor: Actor) -> None:
    """Stores the URL of each run that was handed out and who got its headers, and audits a new worker or address in the
    same transaction.
    """
    receiver = _receiver(worker_id, actor.ip)
    news: dict[UUID, Row] = {}
    for row in runs:
        gets_headers = _has_headers(row) and row["handed_to"] != receiver
        if gets_headers or row["handed_out_url"] != row["mcp_url"]:
            news[row["id"]] = {**row, "receiver": receiver if gets_headers else None}
    # Runs whose headers nobody has received yet are stored first. Usually all runs are of this kind, and no second
    # statement is needed.
    earlier = _store([row for row in news.values() if row["handed_to"] is None], later=False)
    _log(news, earlier, worker_id, actor)
    if others := [row for run_id, row in news.items() if run_id not in earlier]:
        with transaction.atomic():
            earlier = _store(others, later=True)
            emit(
                *(
                    _to_another(news[run_id], receivers[0], worker_id, actor)
                    for run_id, receivers in earlier.items()
                    if receivers and news[run_id]["receiver"] and receiver not in receivers
                )
            )
        _log(news, earlier, worker_id, actor)


def _store(rows: list[Row], *, later: bool) -> dict[UUID, list[str]]:
    """Returns the runs that this changed, each with the receivers stored before, the latest first."""
    if not rows:
        return {}
    # Rows are locked in the order of their ids, so that two polls at the same moment don't deadlock.
    rows = sorted(rows, key=itemgetter("id"))
    stored = fetch_all(
        _KEEP,
        {
            "run_ids": [row["id"] for row in rows],
            "environment_ids": [row["environment_id"] for row in rows],
            "urls": [row["mcp_url"] for row in rows],
            "receivers": [row["receiver"] for row in rows],
            "later": later,
        },
    )
    return {row["run_id"]: (row["handed_to"] or [])[1:] for row in stored}


def _log(
    news: dict[UUID, Row], earlier: dict[UUID, list[str]], worker_id: UUID, actor: Actor
) -> None:
    for run_id, receivers in earlier.items():
        if news[run_id]["receiver"] is None:
            continue
        previous = {}
        if receivers:
            last_worker, last_address = _parts(receivers[0])
            previous = {"previous_worker_id": last_worker, "previous_address": last_address}
        log.info(
            "run.handed_out",
            run_id=str(run_id),
            worker_id=str(worker_id),
            address=actor.ip,
            **previous,
        )


def _to_another(row: Row, last: str, worker_id: UUID, actor: Actor) -> Event:
    last_worker, last_address = _parts(last)
    metadata = {
        "triggerId": str(row["trigger_id"]),
        "workerId": str(worker_id),
        "previous": {"workerId": last_worker, "address": last_address},
    }
    return Event("run.handed-out", actor, row["environment_id"], "run", row["id"], metadata)


def _receiver(worker_id: UUID, address: str | None) -> str:
    return f"{worker_id} {address or ''}"


def _parts(receiver: str) -> tuple[str, str | None]:
    worker_id, _, address = receiver.partition(" ")
    return worker_id, address or None


def _has_headers(row: Row) -> bool:
    return row["mcp_headers"] is not None or row["connection_id"] is not None
