"""Takes an address away from an account that never proved it, when its owner proves that it is theirs (SPEC §15).

The account of the stranger is deactivated and gets a placeholder as its address. Its memberships and keys end, so that
nothing which others gave to the address stays with the stranger. What the account made for others stays: environments,
triggers and runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from accounts.mail.tokens import make_void
from accounts.models import AccountMail, User
from accounts.sessions import end_sessions
from accounts.staff_sessions import end_staff_sessions
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.events import Actor, Event, emit

EMAIL_TAKEN = "This e-mail address is already registered."


@dataclass(frozen=True, slots=True)
class Consequence:
    """What another app locks before an account is displaced, and ends afterwards."""

    # Is called before users are locked, to lock what comes before them in the order of locks (docs/architecture.md).
    # Its arguments are the id of the account that may be displaced, or None, and the mail whose token is used.
    lock: Callable[[UUID | None, AccountMail], None]
    # Is called with the id of the displaced account and the actor.
    end: Callable[[UUID, Actor], None]


_consequences: list[Consequence] = []


def register_consequence(consequence: Consequence) -> None:
    """Registers what ends with an account that is displaced. Call it from `AppConfig.ready()`."""
    _consequences.append(consequence)


def lock_holder(mail: AccountMail, *also: UUID) -> User | None:
    """Returns the account that has the address of the mail, or None, and locks it until the transaction ends.

    Call it before anything else is locked. `also` are ids of users that are locked with it, in the order of their ids.
    An account that may be displaced is locked so that nobody can make a row which refers to it, such as a membership.
    """
    email = mail.address
    holder_id = User.objects.filter(email=email).values_list("id", flat=True).first()
    may_be_displaced = None if holder_id in also else holder_id
    for consequence in _consequences:
        consequence.lock(may_be_displaced, mail)
    for user_id in sorted({*also, *([holder_id] if holder_id else [])}):
        weak = user_id in also
        User.objects.select_for_update(no_key=weak).filter(id=user_id).first()
    return User.objects.filter(email=email).first()


def displace(holder: User, *, actor: Actor) -> None:
    """Deactivates an account and frees its address, which somebody else has proved. `lock_holder` has locked it.

    Raises Conflict if the account has proved the address itself.
    """
    if holder.has_proved_email:
        raise Conflict(EMAIL_TAKEN, code=ErrorCode.EMAIL_TAKEN)
    placeholder = f"{holder.id}@displaced.invalid"
    User.objects.filter(id=holder.id).update(email=placeholder, is_active=False)
    end_sessions(holder.id)
    end_staff_sessions(holder.id)
    make_void(Q(user_id=holder.id))
    emit(Event("user.displaced", actor, None, "user", holder.id))
    for consequence in _consequences:
        consequence.end(holder.id, actor)
