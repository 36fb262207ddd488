"""Why a run is not queued, not claimed or not moved on: the errors 409 of the state machine (SPEC §6)."""

from collections.abc import Mapping
from uuid import UUID

from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, NotFound
from pipedai.sql import Row
from triggers.models import Trigger

# After so many seconds a worker may ask again for a run's credentials, or for a run that waits for them (SPEC §24).
CREDENTIALS_SECONDS = 5


class Refused(Conflict):
    """The error 409 for a transition of a run that is not possible now. The answer names the run's state (SPEC §6)."""

    def __init__(
        self,
        message: str,
        run: Row,
        *,
        code: ErrorCode = ErrorCode.RUN_STATE,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, code=code, headers=headers, status=run["status"])


class NotReady(Refused):
    """The error 409 for a trigger whose connection has no fresh token. The caller lets a scheduler know, outside of the
    transaction that this error rolls back.
    """

    def __init__(self, run: Row, connection_id: UUID) -> None:
        super().__init__(
            "The trigger's connection has no fresh token.",
            run,
            code=ErrorCode.CONNECTION_NOT_READY,
            headers={"Retry-After": str(CREDENTIALS_SECONDS)},
        )
        self.connection_id = connection_id


UNAPPROVED = (
    "The worker gets no run whose trigger has headers, until an admin approves it"
    " (POST /workers/:id/approve): it was registered by a key's token."
)
_LACKS_APPROVALS = (
    "The run's trigger has rules for approvals, or the run has waited by such rules, and the claim does not name"
    " approvals among its features."
)
_FIRST = ("Another worker comes first for the run.", ErrorCode.FIRST_WORKER)
# Why a claim is refused if one of these conditions does not hold; the first one counts.
_UNMET = {
    "is_not_paused": ("The environment is paused.", ErrorCode.ENVIRONMENT_PAUSED),
    "is_due": ("The run is not due yet.", ErrorCode.NOT_DUE),
    "is_in_time": ("The run's start deadline has passed.", ErrorCode.START_DEADLINE),
    **dict.fromkeys(("may_start", "is_offered", "is_not_avoided"), _FIRST),
    "headers_may_go": (UNAPPROVED, ErrorCode.WORKER_UNAPPROVED),
    "approvals_may_go": (_LACKS_APPROVALS, ErrorCode.WORKER_LACKS_APPROVALS),
}


def refusal_of_claim(run: Row, met: Row, capacity: int) -> Refused:
    for name, (message, code) in _UNMET.items():
        if not met[name]:
            return Refused(message, run, code=code)
    if met["limited_until"] is not None:
        return Refused(
            "The usage limit of the worker's account was reached: it gets no new runs for now.",
            run,
            code=ErrorCode.WORKER_LIMITED,
        )
    if not met["budgets_have_room"]:
        return no_room(run)
    if capacity == 0:
        return Refused(
            "The worker is disabled and gets no new runs.", run, code=ErrorCode.WORKER_DISABLED
        )
    if not met["trigger_has_room"]:
        return Refused(
            "As many runs of the trigger are held as its maxConcurrentRuns allows.",
            run,
            code=ErrorCode.TRIGGER_FULL,
        )
    return _no_slot_or_token(run, met)


def _no_slot_or_token(run: Row, met: Row) -> Refused:
    if met["free_slots"] and not met["connection_is_ready"]:
        return NotReady(run, met["connection_id"])
    return Refused("The worker holds as many runs as it may.", run, code=ErrorCode.WORKER_FULL)


def no_room(run: Row) -> Refused:
    return Refused("A budget has no room for the run.", run, code=ErrorCode.BUDGET_EXHAUSTED)


def why_not_queued(trigger_id: UUID) -> Conflict | NotFound:
    rows = Trigger.objects.filter(id=trigger_id, deleted_at__isnull=True)
    trigger = rows.values("enabled", "environment__paused_at").first()
    if trigger is None:
        return NotFound()
    if not trigger["enabled"]:
        return Conflict("The trigger is disabled.", code=ErrorCode.TRIGGER_DISABLED)
    if trigger["environment__paused_at"] is not None:
        return Conflict("The environment is paused.", code=ErrorCode.ENVIRONMENT_PAUSED)
    return Conflict(
        "The trigger has neither a worker nor a pool.", code=ErrorCode.TRIGGER_WITHOUT_WORKER
    )
