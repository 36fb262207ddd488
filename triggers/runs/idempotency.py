"""Makes `POST /triggers/:id/run` and `POST /runs/:id/rerun` safe to repeat with an `Idempotency-Key` (SPEC §5, §12)."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound, or_not_found
from pipedai.events import Actor
from pipedai.ids import new_id
from pipedai.sql import Row, fetch_one
from triggers.models import Run, requesters_of
from triggers.runs import lifecycle
from triggers.runs.queries import run_in_full
from triggers.runs.refusals import Refused
from triggers.states import TERMINAL, Source

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


# The foreign key that refuses a rerun of a run that was pruned meanwhile.
_RERUN_OF = "run_rerun_of_in_environment"


@dataclass(frozen=True, slots=True)
class Queued:
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
    """Queues a run. A request that repeats a `key` within 24 hours gets the first one's run, in its present state. A
    failed request may be repeated. Raises Conflict if the key came with another body, and the errors of `queue_run`.
    """
    return _queue_once(
        trigger_id=trigger_id,
        caller_id=caller_id,
        key=key,
        digest=None if key is None else body_digest(payload),
        source=source,
        actor=actor,
        payload=payload,
    )


def rerun_run(
    *, run_id: UUID, caller_id: UUID, key: str | None, source: Source, actor: Actor
) -> Queued:
    """Queues a new run of the run's trigger as it is now, with the same payload. `key` works as in `run_trigger`.
    Raises Refused if the run has not ended, Conflict, NotFound, and the errors of `queue_run`.
    """
    original: Any = or_not_found(
        Run.objects.filter(id=run_id)
        .values(
            *("trigger_id", "status", "event_id", "chain_depth", "text__payload"),
            *("requested_by", "also_requested_by"),
        )
        .first()
    )
    if original["status"] not in TERMINAL:
        raise Refused(
            f"The run is {original['status']}: only a run that has ended can be run again.",
            original,
            code=ErrorCode.RUN_STATE,
        )
    try:
        return _queue_once(
            trigger_id=original["trigger_id"],
            caller_id=caller_id,
            key=key,
            digest=hashlib.sha256(f"rerun {run_id}".encode()).digest(),
            source=source,
            actor=actor,
            payload=original["text__payload"],
            rerun_of=run_id,
            event_id=original["event_id"],
            chain_depth=original["chain_depth"],
            requesters=requesters_of(original["requested_by"], original["also_requested_by"]),
        )
    except IntegrityError as error:
        if _RERUN_OF in str(error):
            raise NotFound from None
        raise


def _queue_once(
    *, trigger_id: UUID, caller_id: UUID, key: str | None, digest: bytes | None, **run: Any
) -> Queued:
    """Queues a run, or returns the one of an earlier request with this key if the digest is the same, and raises
    Conflict otherwise. The digest is needed only with a key.
    """
    run_id = new_id()
    params = {
        "trigger_id": trigger_id,
        "caller_id": caller_id,
        "key": key,
        "run_id": run_id,
        "body_digest": digest,
    }
    with transaction.atomic():
        if key is None or fetch_one(_REMEMBER, params) is not None:
            queued = lifecycle.queue_run(trigger_id=trigger_id, run_id=run_id, **run)
            return Queued(queued, replayed=False)
        first = or_not_found(fetch_one(_RECALL, params))
        if bytes(first["body_digest"]) != digest:
            raise Conflict(
                "This Idempotency-Key was used for another request.",
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
