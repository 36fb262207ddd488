"""Makes `POST /triggers/:id/run` safe to repeat with an `Idempotency-Key` (SPEC §5)."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound
from pipedai.events import Actor
from pipedai.ids import new_id
from pipedai.sql import Row, fetch_one
from triggers.runs import lifecycle
from triggers.runs.queries import run_in_full
from triggers.states import Source

# Inserts the key, before the run and in the same transaction. If several equal requests come at the same moment, one of
# them inserts the key. The other requests wait until its transaction commits, and then find its row. A key older than a
# day is treated as new.
_REMEMBER = """
INSERT INTO idempotency_key (trigger_id, caller_id, key, environment_id, body_digest, run_id)
SELECT id, %(caller_id)s, %(key)s, environment_id, %(body_digest)s, %(run_id)s
FROM trigger WHERE id = %(trigger_id)s
ON CONFLICT (trigger_id, caller_id, key) DO UPDATE
SET body_digest = excluded.body_digest, run_id = excluded.run_id, created_at = excluded.created_at
WHERE idempotency_key.created_at < statement_timestamp() - interval '24 hours'
RETURNING run_id
"""

_RECALL = """
SELECT run_id, body_digest FROM idempotency_key
WHERE trigger_id = %(trigger_id)s AND caller_id = %(caller_id)s AND key = %(key)s
"""


@dataclass(frozen=True, slots=True)
class Queued:
    """The run that answers a request, and whether an earlier request with the same key made it."""

    run: Row
    replayed: bool


def run_trigger(
    *,
    trigger_id: UUID,
    caller_id: UUID,
    key: str | None,
    payload: Any,
    source: Source,
    actor: Actor,
) -> Queued:
    """Queues a run. If one caller sends several requests for one trigger with the same `key` within 24 hours, only the
    first makes a run.

    A repeated request returns the run of the first one in its present state, whatever has happened to the trigger
    since. Raises Conflict if the key was used with another body, and whatever `lifecycle.queue_run` raises. A request
    that failed is not remembered, so it may be repeated with the same key.
    """
    run_id = new_id()
    params = {
        "trigger_id": trigger_id,
        "caller_id": caller_id,
        "key": key,
        "run_id": run_id,
        "body_digest": body_digest(payload),
    }
    with transaction.atomic():
        if key is None or fetch_one(_REMEMBER, params) is not None:
            run = lifecycle.queue_run(
                trigger_id=trigger_id, source=source, actor=actor, run_id=run_id, payload=payload
            )
            return Queued(run, replayed=False)
        first = fetch_one(_RECALL, params)
        if first is None:
            raise NotFound
        if bytes(first["body_digest"]) != params["body_digest"]:
            raise Conflict(
                "This Idempotency-Key was used with another body.",
                code=ErrorCode.IDEMPOTENCY_KEY_REUSED,
            )
        return Queued(run_in_full(first["run_id"]), replayed=True)


def body_digest(payload: Any) -> bytes:
    """Returns the SHA-256 of the body as canonical JSON: the order of keys does not matter to it, and 1.0 equals 1."""
    canonical = json.dumps(_canonical(payload), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).digest()


def _canonical(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
