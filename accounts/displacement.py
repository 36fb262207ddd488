"""Displaces accounts: takes an address away from an account that never proved it, when somebody else proves that the
address is theirs (SPEC §15).

The account is deactivated and gets a placeholder as its address. Its memberships and keys end, so that nothing that
others gave to the address stays with the stranger who registered it. The environments, triggers and runs that the
account made stay.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from django.db.models import Q

from accounts.mail.tokens import make_void
from accounts.models import AccountMail, User
from accounts.sessions import end_sessions
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.events import Actor, Event, emit

_PLACEHOLDER = "@displaced.invalid"
EMAIL_TAKEN = "This e-mail address is already registered."


@dataclass(frozen=True, slots=True)
class Consequence:
    """Two functions of another app: `lock` is called before an account is displaced, and `end` when it is displaced."""

    # Called before users are locked. It locks the rows that come before users in the order of locks
    # (docs/architecture.md). Its arguments are the id of the account that may be displaced, or None, and the mail whose
    # token is used.
    lock: Callable[[UUID | None, AccountMail], None]
    # Called with the id of the displaced account and the actor. It ends what that account has in the other app.
    end: Callable[[UUID, Actor], None]


_consequences: list[Consequence] = []


def register_consequence(consequence: Consequence) -> None:
    """Registers what another app does when an account is displaced. Call it from `AppConfig.ready()`."""
    _consequences.append(consequence)


def lock_holder(mail: AccountMail, *also: UUID) -> User | None:
    """Returns the account that has the address of the mail, or None, and locks it until the transaction ends.

    Call it before anything else is locked. The users whose ids are in `also` are locked too, all in the order of their
    ids. The lock on an account that may be displaced also keeps others from making rows that refer to it, such as
    memberships.
    """
    holders = User.objects.filter(email=mail.address)
    holder_id = holders.values_list("id", flat=True).first()
    may_be_displaced = None if holder_id in also else holder_id
    for consequence in _consequences:
        consequence.lock(may_be_displaced, mail)
    for user_id in sorted({*also, *([holder_id] if holder_id else [])}):
        weak = user_id in also
        User.objects.select_for_update(no_key=weak).filter(id=user_id).first()
    return holders.first()


def is_displaced(user: User) -> bool:
    """Returns whether the account has lost its address to somebody who proved it."""
    return not user.is_active and user.email.endswith(_PLACEHOLDER)


def displace(holder: User, *, actor: Actor) -> None:
    """Deactivates an account and frees its address, which somebody else has proved. The caller has locked the account
    with `lock_holder`.

    Raises Conflict if the account has proved the address itself.
    """
    if holder.has_proved_email:
        raise Conflict(EMAIL_TAKEN, code=ErrorCode.EMAIL_TAKEN)
    # The placeholder is random. The stranger knows the account's id, and could register a placeholder that followed
    # from it beforehand, so that the address could never be taken back.
    placeholder = f"{uuid4()}{_PLACEHOLDER}"
    User.objects.filter(id=holder.id).update(email=placeholder, is_active=False)
    end_sessions(holder.id)
    make_void(Q(user_id=holder.id))
    emit(Event("user.displaced", actor, None, "user", holder.id))
    for consequence in _consequences:
        consequence.end(holder.id, actor)
