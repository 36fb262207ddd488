"""Decides for each trigger that listens what an event starts (SPEC §25). It starts runs as a request for them would.

A trigger gets one decision for an event: by its first entry in `on` that lets the event pass, or else by its first.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from pipedai.api.errors import Conflict, NotFound
from pipedai.api.renderers import compact_json
from pipedai.events import SYSTEM
from pipedai.sql import Row, execute_later, fetch_all
from triggers.events.clauses import first_failing, scalar_at, shown
from triggers.events.payloads import Payload, TooLarge, add_to_all, payload_of
from triggers.models import Event, EventDecision, requesters_of
from triggers.runs.ending import lock_triggers
from triggers.runs.queueing import QueueRoom, join_run, queue_run, take_turns
from triggers.runs.statements import JOINABLE_UNTIL
from triggers.states import (
    FAILURES,
    MAX_CHAIN_DEPTH,
    EventDecided,
    EventRefusal,
    Outcome,
    Source,
    Status,
)

# The constraint that PostgreSQL names if another event begins a run at the same moment that this one could join.
_ONE_TO_JOIN = "run_one_to_join"

_LISTENERS = """
SELECT id, trigger_id, outcome, types, "where"::json AS "where", fields::json AS fields, coalesce::json AS coalesce
FROM listener WHERE {heard} = %(heard_id)s AND environment_id = %(environment_id)s ORDER BY trigger_id, position
"""
_OF_SOURCE, _OF_RUN = (_LISTENERS.format(heard=column) for column in ("source_id", "upstream_id"))
_KEEP = """
INSERT INTO event_decision (
    id, environment_id, event_id, source_id, received_at, trigger_id, decision, code, clause, run_id)
SELECT d.id, %(environment_id)s, %(event_id)s, %(source_id)s, %(received_at)s, trigger_id, decision, code, clause,
    run_id
FROM unnest(%(id)s::uuid[], %(trigger_id)s::uuid[], %(decision)s::text[], %(code)s::text[], %(clause)s::jsonb[],
    %(run_id)s::uuid[]) d (id, trigger_id, decision, code, clause, run_id)
"""
_ENDS: dict[str, tuple[str, ...]] = {
    Outcome.SUCCEEDED: (Status.SUCCEEDED,),
    Outcome.FAILED: FAILURES,
    Outcome.ANY: (Status.SUCCEEDED, *FAILURES),
}


def decide(event: Event, *, requesters: Sequence[UUID] = (), now: datetime | None = None) -> None:
    """Decides what the event starts, writes the decisions and queues the runs, in the caller's transaction. The event's
    row is written, and its `received_at` is read. `requesters` has the user or the API key that replays the event. Who
    requested a run has also requested what its end starts, so that nobody approves calls that they caused.
    """
    if event.run is not None:
        requesters = requesters_of(event.run.requested_by, event.run.also_requested_by)
    decisions, passed = [], []
    for trigger_id, listeners in groupby(_listeners(event), key=itemgetter("trigger_id")):
        listener, clause = _first_that_hears(event, listeners)
        decision = EventDecision(
            event=event, trigger_id=trigger_id, decision=EventDecided.FILTERED, clause=clause
        )
        decisions.append(decision)
        if listener is not None:
            passed.append((decision, listener))
    room = None
    # Whoever locks more than one trigger, or runs before their trigger, first takes the locks that come before.
    if len(passed) > 1 or any(listener["coalesce"] for _, listener in passed):
        room = take_turns(event.environment_id, len(passed))
        lock_triggers(listener["trigger_id"] for _, listener in passed)
    for decision, listener in passed:
        try:
            _start(decision, listener, room, requesters, now)
        except (Conflict, NotFound) as refused:
            _refuse(decision, refused.code)
        except TooLarge:
            _refuse(decision, EventRefusal.PAYLOAD_TOO_LARGE)
    if decisions:
        _keep(event, decisions)


def _listeners(event: Event) -> list[Row]:
    statement, heard = (
        (_OF_SOURCE, event.source_id) if event.run is None else (_OF_RUN, event.run.trigger_id)
    )
    return fetch_all(statement, {"heard_id": heard, "environment_id": event.environment_id})


def _keep(event: Event, decisions: list[EventDecision]) -> None:
    names = ("id", "trigger_id", "decision", "code", "run_id")
    columns: Row = {name: [getattr(each, name) for each in decisions] for name in names}
    columns["clause"] = [each.clause and json.dumps(each.clause) for each in decisions]
    of_event = {
        "event_id": event.id,
        "environment_id": event.environment_id,
        "source_id": event.source_id,
        "received_at": event.received_at,
    }
    execute_later(_KEEP, {**of_event, **columns})


def _first_that_hears(event: Event, listeners: Iterable[Row]) -> tuple[Row | None, Payload | None]:
    """Returns the first that lets the event pass, or None and the clause that did not hold of the first of all."""
    clause = None
    for listener in listeners:
        failing = _failing(event, listener)
        if failing is None:
            return listener, None
        clause = clause or failing
    return None, clause


def _failing(event: Event, listener: Row) -> Payload | None:
    """Returns the clause that does not hold, with what it saw. That of a type or an outcome has no path."""
    if event.run is not None:
        status = event.run.status
        if status in _ENDS[listener["outcome"]]:
            return None
        return _clause("outcome", listener["outcome"], status)
    if listener["types"] is not None and event.type not in listener["types"]:
        return _clause("type", listener["types"], event.type)
    failing = first_failing(listener["where"] or (), event.body)
    return None if failing is None else failing.as_json()


def _clause(op: str, value: Any, saw: str | None) -> Payload:
    return {"path": None, "op": op, "value": value, "saw": None if saw is None else shown(saw)}


def _start(
    decision: EventDecision,
    listener: Row,
    room: QueueRoom | None,
    requesters: Sequence[UUID],
    now: datetime | None,
) -> None:
    """Queues a run, or joins one, and notes it in the decision. Raises Conflict, NotFound or TooLarge."""
    event = decision.event
    depth = 0 if event.run is None else event.run.chain_depth + 1
    if depth > MAX_CHAIN_DEPTH:
        _refuse(decision, EventRefusal.CHAIN_TOO_DEEP)
        return
    payload = payload_of(event, listener["fields"])
    about: dict[str, Any] = {"requesters": requesters, "now": now}
    coalesce: Any = listener["coalesce"]
    value = None if coalesce is None else scalar_at(coalesce["path"], event.body)
    if value is None:
        _queue(decision, payload, depth, room=room, **about)
        return
    key = _key(listener, value)
    merge = add_to_all if coalesce["keep"] == "all" else None
    begun = payload if merge is None else add_to_all(None, payload)
    window = timedelta(seconds=coalesce["windowSeconds"])
    while decision.run_id is None:
        decision.run_id = join_run(
            trigger_id=listener["trigger_id"],
            environment_id=event.environment_id,
            coalesce_key=key,
            event_id=event.id,
            payload=payload,
            merge=merge,
            **about,
        )
        if decision.run_id is not None:
            decision.decision = EventDecided.COALESCED
            return
        try:
            delay = window + JOINABLE_UNTIL
            _queue(decision, begun, depth, coalesce_key=key, delay=delay, room=room, **about)
        except IntegrityError as error:
            if _ONE_TO_JOIN not in str(error):
                raise


def _queue(decision: EventDecision, payload: Payload, depth: int, **more: Any) -> None:
    with transaction.atomic():
        run = queue_run(
            trigger_id=decision.trigger_id,
            source=Source.CHAIN if depth else Source.EVENT,
            actor=SYSTEM,
            payload=payload,
            event_id=decision.event_id,
            chain_depth=depth,
            **more,
        )
    decision.run_id, decision.decision = run["id"], EventDecided.FIRED


def _refuse(decision: EventDecision, code: str) -> None:
    decision.decision, decision.code = EventDecided.REFUSED, str(code)


def _key(listener: Row, value: Any) -> bytes:
    """Returns what events that may share a run have in common. 1 and 1.0 are one value, as in clauses."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return hashlib.sha256(compact_json([str(listener["id"]), value]).encode()).digest()
