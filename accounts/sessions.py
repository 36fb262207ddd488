"""Opens the browser sessions of users, lists them and ends them (SPEC §3, §15)."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from django.db import transaction
from django.db.models import Case, JSONField, Value, When
from django.db.models.functions import Now
from rest_framework.request import Request

from accounts.models import Session, User
from accounts.session_tokens import LIFETIME
from accounts.throttles import address_digest
from pipedai.api.errors import NotFound
from pipedai.api.principal import UserPrincipal, address_of
from pipedai.events import Actor, Event, emit

if TYPE_CHECKING:
    from django.db.models import QuerySet

_MAX_USER_AGENT = 255


@dataclass(frozen=True, slots=True)
class Device:
    """Where a request came from: its IP address, the HMAC of that address, and its User-Agent header."""

    digest: bytes
    address: str | None
    user_agent: str


def device_of(request: Request) -> Device:
    agent = str(request.META.get("HTTP_USER_AGENT", "")).encode(errors="replace").decode()
    shown = "".join(character if character.isprintable() else " " for character in agent)
    return Device(address_digest(request), address_of(request), shown[:_MAX_USER_AGENT])


def open_session(
    user: User, device: Device, lifetime: timedelta = LIFETIME, **columns: Any
) -> Session:
    """Opens a session for a user who has just logged in or registered: one of the API, unless `columns` say more."""
    return Session.objects.create(
        user=user,
        expires_at=Now() + lifetime,
        address_digest=device.digest,
        address=device.address,
        user_agent=device.user_agent,
        last_used_at=Now(),
        **columns,
    )


def live_sessions(user_id: UUID) -> "QuerySet[Session]":
    """Returns the sessions of the user in the API that neither expired nor were ended."""
    return Session.objects.filter(
        user_id=user_id, revoked_at__isnull=True, expires_at__gt=Now(), key_digest__isnull=True
    ).defer("address_digest")


def end_sessions(user_id: UUID) -> None:
    end(Session.objects.filter(user_id=user_id, revoked_at__isnull=True))


def end(sessions: "QuerySet[Session]") -> int:
    """Ends sessions, and forgets what Django kept in those of Django admin. Returns how many there were."""
    return sessions.update(
        revoked_at=Now(), data=Case(When(key_digest__isnull=False, then=Value({}, JSONField())))
    )


def end_session(*, principal: UserPrincipal, session_id: UUID, actor: Actor) -> None:
    """Ends one session of the caller, which may be the one that the request came with. Raises NotFound unless it is a
    live session of theirs.
    """
    with transaction.atomic():
        if not end(live_sessions(principal.id).filter(id=session_id)):
            raise NotFound
        emit(_event("user.session-ended", principal, actor, 1))


def end_other_sessions(*, principal: UserPrincipal, actor: Actor) -> None:
    """Ends all sessions of the caller but the one that the request came with."""
    with transaction.atomic():
        others = live_sessions(principal.id).exclude(id=principal.session_id)
        if ended := end(others):
            emit(_event("user.session-ended", principal, actor, ended))


def _event(action: str, principal: UserPrincipal, actor: Actor, sessions: int) -> Event:
    return Event(action, actor, None, "user", principal.id, {"sessions": sessions})
