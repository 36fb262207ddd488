"""Lets an event join a queued run that an earlier one began, as long as the run is not about to come due (SPEC §25)."""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from pipedai.sql import Row, execute, fetch_one, fetch_row
from triggers.runs import statements as sql
from triggers.runs import texts


def join_run(
    *,
    trigger_id: UUID,
    environment_id: UUID,
    coalesce_key: bytes,
    event_id: UUID,
    payload: Any,
    merge: Callable[[Any, Any], Any] | None,
    requesters: Sequence[UUID] = (),
    now: datetime | None = None,
) -> UUID | None:
    """Gives the queued run with the key another payload: the given one, or `merge` of the present and the given one.
    `requesters` have requested the run from then on, too. Returns its id. If there is none that an event may join, it
    returns None, and the next run may have the key. The caller has locked the trigger.
    """
    params: Row = {
        "trigger_id": trigger_id,
        "environment_id": environment_id,
        "coalesce_key": coalesce_key,
        "event_id": event_id,
        "replaces": merge is None,
        "requesters": list(requesters),
        "now": now,
    }
    run = fetch_one(sql.JOIN, params)
    if run is None:
        execute(sql.CLOSE, params)
        return None
    run_id: UUID = run["id"]
    params["run_id"] = run_id
    if merge is not None:
        # Only this statement, after the lock, sees what another event has added that was waited for.
        payload = merge(fetch_row(texts.READ_PAYLOAD, params)["payload"], payload)
    execute(texts.REPLACE_PAYLOAD, {**params, "payload": json.dumps(payload, ensure_ascii=False)})
    return run_id
