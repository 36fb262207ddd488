"""Decides what an event starts, for each trigger that listens to it, and starts runs as a request for them would.

A trigger gets one decision for an event: by the first entry in its `on` that lets the event pass, or else by its first
entry. An event of a source is decided in the transaction that stores it, unless its clauses take too long. The end of a
run writes an event in its own transaction (`triggers.runs.ending`), so no end is lost. The scheduler decides both kinds
of undecided events later. An event is locked while it is decided, so none is decided twice.
"""

import hashlib
import json
import math
import time
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models.functions import Now

from pipedai.api.errors import Conflict, NotFound
from pipedai.api.renderers import compact_json, iso_time
from pipedai.events import SYSTEM
from pipedai.sql import Row, execute_later, fetch_all
from pipedai.turns import due_rows
from triggers.events.clauses import (
    Searched,
    TooLarge,
    clauses_of,
    first_failing,
    pick,
    scalar_at,
    shown,
)
from triggers.events.refusals import tell_source
from triggers.models import Event, EventDecision, requesters_of
from triggers.runs.ending import lock_triggers
from triggers.runs.queueing import QueueRoom, join_run, queue_run, take_turns
from triggers.runs.serializers import MAX_PAYLOAD_BYTES
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

Payload = dict[str, Any]


# The name of the constraint that PostgreSQL reports if another event has just begun a run that this one could join.
_ONE_TO_JOIN = "run_one_to_join"

_LISTENERS = """
SELECT id, trigger_id, outcome, types, "where"::text AS "where", fields::json AS fields, coalesce::json AS coalesce
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


def decide(
    event: Event,
    *,
    requesters: Sequence[UUID] = (),
    now: datetime | None = None,
    cpu_seconds: float = math.inf,
) -> bool:
    """Decides what the event starts, writes the decisions and queues the runs, in the caller's transaction. The caller
    has stored the event, and read its `received_at`. `requesters` has the user or the API key that replays it. The
    requesters of a run also request what its end starts, so that nobody approves calls that they caused. If the clauses
    use up `cpu_seconds` of the thread before all have been tried, nothing is written, and it returns False.
    """
    if event.run is not None:
        requesters = requesters_of(event.run.requested_by, event.run.also_requested_by)
    heard = _heard(event, cpu_seconds)
    if heard is None:
        return False
    decisions, passed = heard
    room = None
    # The order of locks has the environment before triggers and triggers before runs. So a transaction that locks
    # several triggers, or a run first, must take the locks of the environment and the triggers here.
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
    return True


def _heard(
    event: Event, cpu_seconds: float
) -> tuple[list[EventDecision], list[tuple[EventDecision, Row]]] | None:
    """Returns the decisions of all triggers that listen, and those that let the event pass with their first listener
    that does. Returns None if that takes too long.
    """
    began = time.thread_time()
    decisions, passed = [], []
    of_run = (_OF_SOURCE, event.source_id) if event.run is None else (_OF_RUN, event.run.trigger_id)
    statement, heard_id = of_run
    searched = Searched()
    found = fetch_all(statement, {"heard_id": heard_id, "environment_id": event.environment_id})
    for trigger_id, listeners in groupby(found, key=itemgetter("trigger_id")):
        if time.thread_time() - began > cpu_seconds:
            return None
        decision = EventDecision(event=event, trigger_id=trigger_id, decision=EventDecided.FILTERED)
        decisions.append(decision)
        try:
            listener, decision.clause = _first_that_hears(event, listeners, searched)
        except TooLarge:
            _refuse(decision, EventRefusal.PAYLOAD_TOO_LARGE)
            continue
        if listener is not None:
            passed.append((decision, listener))
    return decisions, passed


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


def _first_that_hears(
    event: Event, listeners: Iterable[Row], searched: Searched
) -> tuple[Row | None, Payload | None]:
    """Returns the first listener that lets the event pass, or None and the clause by which the first one refused it."""
    clause = None
    for listener in listeners:
        failing = _failing(event, listener, searched)
        if failing is None:
            return listener, None
        clause = clause or failing
    return None, clause


def _failing(event: Event, listener: Row, searched: Searched) -> Payload | None:
    """Returns the clause that does not hold, and what it saw; None if all hold. A type or an outcome has no path."""
    if event.run is not None:
        status = event.run.status
        if status in _ENDS[listener["outcome"]]:
            return None
        return _clause("outcome", listener["outcome"], status)
    if listener["types"] is not None and event.type not in listener["types"]:
        return _clause("type", listener["types"], event.type)
    clauses = clauses_of(listener["where"]) if listener["where"] else ()
    failing = first_failing(clauses, event.body, searched)
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
    """Queues a run, or joins a queued one, and notes the run in the decision. Raises Conflict, NotFound or TooLarge."""
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
    """Returns the hash that events share if they may share a run. It treats 1 and 1.0 as one value, as clauses do."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return hashlib.sha256(compact_json([str(listener["id"]), value]).encode()).digest()


def payload_of(event: Event, fields: dict[str, str] | None) -> Payload:
    """Returns `{ event, data }` for an event of a source, with the values at the paths in `fields` or the whole body,
    and `{ event, output }` for the end of a run. Raises TooLarge.
    """
    if event.run is None:
        assert event.source is not None
        data = event.body if fields is None else _picked(fields, event.body)
        payload = {"event": _about(event, "source", event.source, event.type), "data": data}
    else:
        result = getattr(event.run, "result", None)
        about = _about(event, "trigger", event.run.trigger, event.run.status)
        about["runId"] = str(event.run_id)
        payload = {"event": about, "output": result and result.output}
    if _size(payload) > MAX_PAYLOAD_BYTES:
        raise TooLarge
    return payload


def _picked(fields: dict[str, str], body: Any) -> Payload:
    """Returns the values at the paths. Raises TooLarge as soon as the values are too long together, because each of 50
    paths may lead to a body of 256 KiB.
    """
    picked, room = pick(fields, body), MAX_PAYLOAD_BYTES
    for value in picked.values():
        room -= _size(value)
        if room < 0:
            raise TooLarge
    return picked


def _about(event: Event, kind: str, sender: Any, type_: str | None) -> Payload:
    return {
        "id": str(event.id),
        "source": {"type": kind, "id": str(sender.id), "name": sender.name},
        "type": type_,
        "receivedAt": iso_time(event.received_at),
    }


def add_to_all(several: Payload | None, payload: Payload) -> Payload:
    """Returns `{ events, omitted }` with this payload as the last event. `several` is the earlier such object, or None.
    If the limit is exceeded, it drops the oldest events and counts them in `omitted`. Raises TooLarge.
    """
    events = [*(several["events"] if several else ()), payload]
    omitted = several["omitted"] if several else 0
    # Commas and brackets are counted generously, so that the sum is never too small.
    room = MAX_PAYLOAD_BYTES - _size({"events": [], "omitted": 10**9})
    sizes = [_size(each) + 1 for each in events]
    if sizes[-1] > room:
        raise TooLarge
    total, kept = 0, 0
    for size in reversed(sizes):
        total += size
        if total > room:
            break
        kept += 1
    return {"events": events[-kept:], "omitted": omitted + len(events) - kept}


def _size(value: Any) -> int:
    return len(compact_json(value).encode())


# The events that nobody has decided yet.
_TURNS = due_rows(
    "event", waits="decided_at IS NULL", order="received_at", is_due=False, lock=False
)


def decide_ends(*, limit: int = 20, now: datetime | None = None) -> int:
    """Decides up to `limit` events, each in a transaction of its own, and returns how many. If one fails, it decides
    the others nevertheless, and raises the error afterwards. The events of an environment whose trigger somebody is
    changing wait for the next turn.
    """
    return _TURNS.each(lambda row: _decide(row["id"], now), limit=limit, now=now)


def _decide(event_id: UUID, now: datetime | None) -> bool:
    """Returns whether it decided the event. Another scheduler may have done so, or may be doing so."""
    event = (
        Event.objects.select_for_update(skip_locked=True, of=("self",))
        .select_related("run__trigger", "run__result", "source")
        .filter(id=event_id, decided_at__isnull=True)
        .first()
    )
    if event is None:
        return False
    decide(event, requesters=requesters_of(event.requested_by, None), now=now)
    Event.objects.filter(id=event_id).update(decided_at=now or Now())
    if event.source_id is not None:
        tell_source({"environment_id": event.environment_id, "source_id": event.source_id})
    return True
