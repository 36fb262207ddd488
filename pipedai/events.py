"""Domain events, by which a service tells what it did.

Receivers run at once, in the same transaction: an error in one rolls the action back, so that none lacks its audit row.
A transaction that makes many changes `together` does once what each of them alone would do: lock, count, read, tell. A
rehearsal is such a transaction that is rolled back: it tells nobody, and takes no lock that others could wait for.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Literal, TypeVar
from uuid import UUID

from django.db import transaction
from django.dispatch import Signal

ActorType = Literal["user", "api_key", "worker", "staff", "system"]

# The kinds of things that users make, change and delete. Each has the actions `created`, `updated` and `deleted`.
_KINDS = ("environment", "trigger", "pool", "connection", "source", "channel", "budget")

# All actions that an event may name. `emit` refuses any other action.
ACTIONS = frozenset(
    [
        *(f"{kind}.{action}" for kind in _KINDS for action in ("created", "updated", "deleted")),
        "user.registered",
        "user.logged-in",
        "user.login-failed",
        "user.logged-out",
        "user.password-changed",
        "user.password-reset",
        "user.verification-requested",
        "user.email-verified",
        "user.email-change-requested",
        "user.email-changed",
        "user.session-ended",
        "user.displaced",
        "user.linked",
        "user.updated",
        "user.deleted",
        "user.deactivated",
        "user.reactivated",
        "staff.created",
        "authenticator.enabled",
        "authenticator.disabled",
        "workspace.created",
        "workspace.updated",
        "member.added",
        "member.role-changed",
        "member.removed",
        "invitation.created",
        "invitation.revoked",
        "invitation.accepted",
        "api-key.created",
        "api-key.revoked",
        "enrollment.created",
        "enrollment.revoked",
        "enrollment.approved",
        "enrollment.denied",
        "enrollment.redeemed",
        "mcp-token.rotated",
        "run.created",
        "run.not-started",
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
        "run.waiting",
        "run.approval-expired",
        "run.events-read",
        "runs.pruned",
        "worker.registered",
        "worker.approved",
        "worker.updated",
        "worker.limited",
        "worker.token-revoked",
        "worker.deregistered",
        "pool.worker-added",
        "pool.worker-removed",
        "approval.decided",
        "approval.spent",
        "webhook.delivered",
        "webhook.failed",
        "webhook.redelivered",
        "webhook.tested",
        "files.applied",
        "connection.authorized",
        "connection.login-needed",
        "connection.user-left",
        "event.replayed",
        "channel.tested",
        "notice.failed",
        "address.confirmed",
        "address.refused",
        "incident.opened",
        "incident.closed",
        "incident.acknowledged",
        "master-key.rotated",
        "data-key.rotated",
        "demo.seeded",
    ]
)


@dataclass(frozen=True, slots=True)
class Actor:
    """Who performed an action: the principal's kind, its id (None for the system), its address and the request's id."""

    type: ActorType
    id: UUID | None = None
    ip: str | None = None
    request_id: str | None = None


SYSTEM = Actor("system")


@dataclass(frozen=True, slots=True)
class Event:
    """One action on one target. `metadata` must hold no secret. Only made-up demo data sets `at`."""

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


# The signal by which receivers get events. Its argument `events` is a tuple of Event.
happened = Signal()


def emit(*events: Event) -> None:
    """Tell the receivers what was done. Raises RuntimeError outside the transaction that does it."""
    if not events:
        return
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("emit() needs a transaction")
    gathered = _gathered.get()
    if gathered is not None:
        gathered.extend(events)
    else:
        happened.send(sender=Event, events=events)


_gathered: ContextVar[list[Event] | None] = ContextVar("gathered", default=None)


@contextmanager
def gathering(events: list[Event]) -> Iterator[None]:
    """Puts what happens in the block into the list instead of telling it, so that the caller tells it all at once."""
    token = _gathered.set(events)
    try:
        yield
    finally:
        _gathered.reset(token)


def on_committed(tell: Callable[[Event], None]) -> Callable[[Event], None]:
    """Decorator: calls the function with every event after its commit. Its errors are only logged, so that what is
    committed does not look failed.
    """

    def tell_all(events: tuple[Event, ...]) -> None:
        for event in events:
            tell(event)

    def receive(events: tuple[Event, ...], **_: Any) -> None:
        transaction.on_commit(partial(tell_all, events), robust=True)

    happened.connect(receive, weak=False, dispatch_uid=f"{tell.__module__}.{tell.__name__}")
    return tell


T = TypeVar("T")


@dataclass(slots=True)
class _Together:
    is_rehearsal: bool
    done: dict[Hashable, Any] = field(default_factory=dict)


_present: ContextVar[_Together | None] = ContextVar("together", default=None)


@contextmanager
def together(*, is_rehearsal: bool = False) -> Iterator[None]:
    """Wraps the changes of one transaction. Their events are sent at the end of the block, or not at all."""
    events: list[Event] = []
    token = _present.set(_Together(is_rehearsal))
    try:
        with gathering(events):
            yield
    finally:
        _present.reset(token)
    if not is_rehearsal:
        emit(*events)


def once(what: Hashable, do: Callable[[], T]) -> T:
    """Returns what `do` returns. Of changes made together, only the first one that asks for `what` does it."""
    present = _present.get()
    if present is None:
        return do()
    if what not in present.done:
        present.done[what] = do()
    found: T = present.done[what]
    return found


def keep(what: Hashable, found: Any) -> None:
    """Lets `once` return this. Code that reads many rows by one statement so saves a statement for each."""
    present = _present.get()
    assert present is not None, "keep() needs together()"
    present.done[what] = found


def is_together() -> bool:
    return _present.get() is not None


def is_rehearsal() -> bool:
    present = _present.get()
    return present is not None and present.is_rehearsal
