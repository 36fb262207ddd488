"""Domain events: what a service says it did, inside the transaction that did it (SPEC §9).

A service calls `emit()` with one event for each action. Receivers run at once, in the same transaction, and
their errors propagate: an action whose audit row can't be written does not happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

ActorType = Literal["user", "api_key", "worker", "staff", "system"]

# The registry of actions: SPEC §9. Nothing else may be emitted.
ACTIONS = frozenset(
    [
        "user.registered",
        "user.logged-in",
        "user.login-failed",
        "user.logged-out",
        "user.password-changed",
        "user.deactivated",
        "user.reactivated",
        "staff.created",
        "authenticator.enabled",
        "authenticator.disabled",
        "workspace.created",
        "environment.created",
        "environment.updated",
        "environment.deleted",
        "member.added",
        "member.role-changed",
        "member.removed",
        "api-key.created",
        "api-key.revoked",
        "enrollment.created",
        "enrollment.revoked",
        "enrollment.approved",
        "enrollment.denied",
        "enrollment.redeemed",
        "trigger.created",
        "trigger.updated",
        "trigger.deleted",
        "mcp-token.rotated",
        "run.created",
        "run.scheduled",
        "run.skipped",
        "run.retried",
        "run.handed-out",
        "run.claimed",
        "run.started",
        "run.completed",
        "run.late-result",
        "run.lost",
        "run.timed-out",
        "run.cancel-requested",
        "run.canceled",
        "runs.pruned",
        "worker.registered",
        "worker.approved",
        "worker.updated",
        "worker.token-revoked",
        "worker.deregistered",
        "webhook.delivered",
        "webhook.failed",
        "webhook.redelivered",
        "webhook.tested",
        "master-key.rotated",
        "data-key.rotated",
        "demo.seeded",
    ]
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did it: a principal's kind and id (None for the system), the address and the request it came by."""

    type: ActorType
    id: UUID | None = None
    ip: str | None = None
    request_id: str | None = None


SYSTEM = Actor("system")


@dataclass(frozen=True, slots=True)
class Event:
    """One action on one target. `metadata` must hold no token and no secret (SPEC §9).

    `at` is when it was done, for a made-up past; whatever really happens leaves it to the database's clock.
    """

    action: str
    actor: Actor
    environment_id: UUID | None
    target_type: str
    target_id: UUID | None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    at: datetime | None = None

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise ValueError(f"{self.action!r} is not a registered action")


# Sent with `events`, a tuple of Event.
happened = Signal()


def emit(*events: Event) -> None:
    """Tell the receivers what was done. Call it inside the transaction that does it.

    Raises RuntimeError outside a transaction: an action and its audit row must stand or fall together.
    """
    if not events:
        return
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("emit() needs a transaction")
    happened.send(sender=Event, events=events)
