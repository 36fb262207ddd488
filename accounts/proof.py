"""Proof that an address belongs to its account: whether it counts, what needs it, and what becomes of an account that
never proved its address when somebody else does (SPEC §15).

Such an account is displaced: it is deactivated and gets a placeholder as its address. Its memberships and keys end, so
that nothing that others gave to the address stays with the stranger who registered it. The environments, triggers and
runs that the account made stay.
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
    """Returns whether an account needs a proved address before others can find it or give it anything.

    This is so only while a mail server is set. Without one, in development too, users could not be sure to get the mail
    that proves their address, so accounts then work without proof.
    """
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
    """Raises Conflict if no mail can be sent, for calls that need one."""
    if not mail_is_on():
        raise Conflict(
            "This service sends no mail: its operator has not set EMAIL_URL.",
            code=ErrorCode.MAIL_OFF,
        )


@dataclass(frozen=True, slots=True)
class Rights:
    """The functions of the app that knows what users may do in environments. They are called in the transaction that
    changes an account.
    """

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
    """Registers what follows from changes of accounts. Call it in the module `ready` of the app."""
    _registered[:] = [rights]


def registered_rights() -> Rights:
    return _registered[0]


def keeps_address(holder: User) -> bool:
    """Returns whether nobody else can take the address of this account by proving it."""
    return holder.has_proved_email or not proof_counts()


def lock_holder(mail: AccountMail, *also: UUID) -> User | None:
    """Returns the account that has the address of the mail, or None, and locks it until the transaction ends.

    Call it before anything else is locked. The users whose ids are in `also` are locked too, all in the order of their
    ids. The lock on an account that may be displaced also keeps others from making rows that refer to it, such as
    memberships.
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
    """Returns whether the account has lost its address to somebody who proved it."""
    return not user.is_active and user.email.endswith(_PLACEHOLDER)


def displace(holder: User, *, actor: Actor) -> None:
    """Deactivates an account and frees its address, which somebody else has proved. The caller has locked the account
    with `lock_holder`.

    Raises EmailTaken if the account keeps its address.
    """
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
