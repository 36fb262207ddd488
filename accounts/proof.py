"""Proof that an address belongs to its account (SPEC §15).

If somebody else proves the address, an account that never did is displaced: it is deactivated and loses its memberships
and keys, so that nothing given to the address stays with a stranger.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID, uuid4

from django.conf import settings
from django.db.models import Q

from accounts.mail.tokens import make_void
from accounts.models import AccountMail, User
from accounts.sessions import end_sessions
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.events import Actor, Event, emit
from pipedai.outgoing import mail_is_on

_PLACEHOLDER = "@displaced.invalid"


class EmailTaken(Conflict):
    """409: another account has the address and keeps it."""

    def __init__(self) -> None:
        super().__init__("This e-mail address is already registered.", code=ErrorCode.EMAIL_TAKEN)


def proof_counts() -> bool:
    """Returns whether accounts need a proved address. Without a mail server nobody could prove one."""
    return bool(settings.EMAIL_URL)


def is_findable(user: User) -> bool:
    """Returns whether others may find the user by their address and give them something, such as a membership."""
    return user.has_proved_email or not user.must_prove_email or not proof_counts()


def check_proof(user: User) -> None:
    """Raises Conflict if `proof_counts()` is true and the user has not proved their address."""
    if proof_counts() and not user.has_proved_email:
        raise Conflict(
            "This needs a confirmed e-mail address: open the link in the mail, or ask for another one.",
            code=ErrorCode.EMAIL_UNVERIFIED,
        )


def check_mail_is_on() -> None:
    if not mail_is_on():
        raise Conflict(
            "This service sends no mail: its operator has not set EMAIL_URL.",
            code=ErrorCode.MAIL_OFF,
        )


@dataclass(frozen=True, slots=True)
class Rights:
    """The functions by which the app that knows users' rights takes part in changes of accounts."""

    # Locks the rows that come before users in the order of locks (docs/architecture.md), before users are locked. Its
    # arguments are the id of the account that may be displaced, or None, and the mail whose token is used.
    lock: Callable[[UUID | None, AccountMail], None]
    # Accepts the invitation in the mail for a user who has just registered with its token.
    accept: Callable[[AccountMail, User, Actor], None]
    # Ends what a displaced account, with this id, must not keep.
    end_of_displaced: Callable[[UUID, Actor], None]
    # Ends what a deactivated user, with this id, must not keep, such as keys. The user's row is locked.
    end_of_deactivated: Callable[[UUID, Actor], None]


_registered: list[Rights] = []


def register_rights(rights: Rights) -> None:
    _registered[:] = [rights]


def registered_rights() -> Rights:
    return _registered[0]


def keeps_address(holder: User) -> bool:
    return holder.has_proved_email or not proof_counts()


def lock_holder(mail: AccountMail, *also: UUID) -> User | None:
    """Returns the account with the mail's address, or None, and locks it and the users in `also`, in the order of ids.
    Call it before any other lock. While it is locked, nobody adds rows that refer to it, such as memberships.
    """
    holders = User.objects.filter(email=mail.address)
    holder_id = holders.values_list("id", flat=True).first()
    may_be_displaced = None if holder_id in also else holder_id
    registered_rights().lock(may_be_displaced, mail)
    for user_id in sorted({*also, *([holder_id] if holder_id else [])}):
        weak = user_id in also
        User.objects.select_for_update(no_key=weak).filter(id=user_id).first()
    return holders.first()


def is_displaced(user: User) -> bool:
    return not user.is_active and user.email.endswith(_PLACEHOLDER)


def displace(holder: User, *, actor: Actor) -> None:
    """Deactivates an account that `lock_holder` has locked, and frees its address. Raises EmailTaken."""
    if keeps_address(holder):
        raise EmailTaken
    # The placeholder is random. The stranger knows the account's id, and could register a placeholder that followed
    # from it beforehand, so that the address could never be taken back.
    placeholder = f"{uuid4()}{_PLACEHOLDER}"
    User.objects.filter(id=holder.id).update(email=placeholder, is_active=False)
    end_sessions(holder.id)
    make_void(Q(user_id=holder.id))
    emit(Event("user.displaced", actor, None, "user", holder.id))
    registered_rights().end_of_displaced(holder.id, actor)
