"""Domain events, by which a service reports what it did.

Receivers run at once, in the same transaction: an error in one rolls the action back, so no action lacks its audit row.
A transaction with many changes makes them `together`: work that each would repeat, such as locking or reading, is done
once, and all events are sent at the end. A rehearsal is rolled back, sends no events, and makes nobody wait for a lock.
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

# The kinds of things that users make, change and delete.
_KINDS = ("environment", "trigger", "pool", "connection", "source", "channel", "budget")
# The actions on each kind of thing. The kinds in _KINDS are also created, updated and deleted.
_HAPPENINGS = {
    "pool": "worker-added worker-removed",
    "connection": "authorized login-needed user-left",
    "channel": "tested",
    "user": (
        "registered logged-in login-failed logged-out password-changed password-reset"
        " verification-requested email-verified email-change-requested email-changed"
        " session-ended displaced linked unlinked link-undone updated deleted deactivated reactivated"
    ),
    "staff": "created",
    "authenticator": "enabled disabled",
    "workspace": "created updated",
    "member": "added role-changed removed",
    "invitation": "created revoked accepted",
    "api-key": "created revoked",
    "enrollment": "created revoked approved denied redeemed",
    "mcp-token": "rotated",
    "run": (
        "created not-started scheduled skipped retried handed-out claimed started completed"
        " late-result lost timed-out cancel-requested canceled waiting approval-expired"
        " events-read"
    ),
    "runs": "pruned",
    "worker": "registered approved updated limited token-revoked deregistered",
    "approval": "decided spent",
    "webhook": "delivered failed redelivered tested",
    "files": "applied",
    "event": "replayed",
    "notice": "failed",
    "address": "confirmed refused",
    "incident": "opened closed acknowledged",
    "master-key": "rotated",
    "data-key": "rotated",
    "demo": "seeded",
}
# All actions that an event may name. `emit` refuses any other action.
ACTIONS = frozenset(
    [
        *(f"{kind}.{action}" for kind in _KINDS for action in ("created", "updated", "deleted")),
        *(f"{kind}.{action}" for kind, all_of in _HAPPENINGS.items() for action in all_of.split()),
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
    """Send events to the receivers. Raises RuntimeError outside of a transaction, which must be that of the action."""
    if not events:
        return
    if not transaction.get_connection().in_atomic_block:
        raise RuntimeError("emit() needs a transaction")
    present = _present.get()
    if present is not None:
        present.events.extend(events)
    else:
        happened.send(sender=Event, events=events)


def on_committed(tell: Callable[[Event], None]) -> Callable[[Event], None]:
    """Decorator: calls the function with every event after its commit. An error of the function is only logged, because
    the action is committed and must not look failed.
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
    events: list[Event] = field(default_factory=list)
    done: dict[Hashable, Any] = field(default_factory=dict)


_present: ContextVar[_Together | None] = ContextVar("together", default=None)


@contextmanager
def together(*, is_rehearsal: bool = False) -> Iterator[None]:
    """Wraps the changes of one transaction. Their events are sent at the end of the block, or not at all."""
    present = _Together(is_rehearsal)
    token = _present.set(present)
    try:
        yield
    finally:
        _present.reset(token)
    if not is_rehearsal:
        emit(*present.events)


def once(what: Hashable, do: Callable[[], T]) -> T:
    """Returns the result of `do`. Among changes made together, `do` is called only once for each `what`."""
    present = _present.get()
    if present is None:
        return do()
    if what not in present.done:
        present.done[what] = do()
    found: T = present.done[what]
    return found


def keep(what: Hashable, found: Any) -> None:
    """Makes `once` return `found` for `what`. Code that has read many rows at once saves later statements by it."""
    present = _present.get()
    assert present is not None, "keep() needs together()"
    present.done[what] = found


def is_together() -> bool:
    return _present.get() is not None


def is_rehearsal() -> bool:
    present = _present.get()
    return present is not None and present.is_rehearsal
