"""Signs in people who have an account at the issuer, and links their accounts here to those there.

Two signed cookies carry the state: the sign-in that a browser has begun, and the account to be linked.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from typing import Any
from uuid import UUID

from django.conf import settings
from django.core import signing
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.urls import reverse
from rest_framework import serializers

from accounts import issuer
from accounts.addresses import (
    check_mail_is_on,
    displace,
    keeps_address,
    lock_holder,
    proof_counts,
)
from accounts.authenticators import accept_code
from accounts.emails import Email
from accounts.issuer import Claims, SignInFailed
from accounts.mails import (
    LINK_LIFETIME,
    UNDOING,
    LinkUnusable,
    Purpose,
    find_mail,
    has_live_mail,
    make_void,
    queue_mail,
    use_up,
)
from accounts.models import Identity, Session, User
from accounts.registration import RegistrationClosed
from accounts.serializers import NewEmailField
from accounts.services import admit, emit_own, revoke
from accounts.sessions import Device, SessionStore, open_session, open_staff_session
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict, Invalid
from pipedai.api.fields import NameField
from pipedai.api.principal import UserPrincipal
from pipedai.api.throttling import Rate, count_hit
from pipedai.events import Actor
from pipedai.outgoing.mails import mail_is_on
from pipedai.outgoing.oauth import new_verifier

LIFETIME_SECONDS = 600
BEGUN, PENDING = "pipedai.sso.begun", "pipedai.sso.pending"
# Once a mail to link an account is asked for, the cookie of the account to be linked lives as long as the mail's link.
MAILED_SECONDS = round(LINK_LIFETIME.total_seconds())
# A state works once in all processes. Its count must outlive the cookie, or the state would work again.
_STATE = Rate("sso-state", limit=1, seconds=2 * LIFETIME_SECONDS, in_a_row=True)
_ERROR = re.compile(r"[a-z_]{1,40}", re.ASCII)
_NOT_BEGUN = "This sign-in was not begun in this browser, was finished already, or took more than ten minutes."
_INACTIVE = "The account is deactivated: ask the operator of this service."
_TAKEN = (
    "Another account of the sign-in service is linked to the account with this e-mail address: ask the operator of this"
    " service."
)
_WRONG = "The password or the code is wrong."
_OTHER_BROWSER = (
    "Open this link in the browser in which you signed in, within an hour of that sign-in."
)
_NO_STAFF = "Only staff get in there. Sign in on the console's page instead."


class LinkNeeded(Conflict):
    """409: an account here has the address. `cookie` says which account to link to which, and the page to go on to."""

    def __init__(self, holder: User, claims: Claims, on: str) -> None:
        super().__init__(
            f"An account with the e-mail address {holder.email} exists. Link it once, by its password or by a mail to"
            " it.",
            code=ErrorCode.LINK_NEEDED,
            email=holder.email,
        )
        whom = {"issuer": claims.issuer, "sub": claims.sub, "user": str(holder.id)}
        self.cookie = signing.dumps({**whom, "email": holder.email, "next": on}, salt=PENDING)


@dataclass(frozen=True, slots=True, repr=False)
class Entered:
    """A person who has signed in: their session, the page to open, and the admin session if that is a page of admin."""

    user: User
    session: Session
    path: str
    staff_session: SessionStore | None


def opened(cookie: str | None, kind: str, seconds: int = LIFETIME_SECONDS) -> dict[str, Any]:
    """Returns the content of our cookie of this kind. Raises SignInFailed if it is not ours or is too old."""
    try:
        found: dict[str, Any] = signing.loads(cookie or "", salt=kind, max_age=seconds)
    except signing.BadSignature:
        raise SignInFailed(_NOT_BEGUN) from None
    return found


def begin(*, on: str) -> tuple[str, str]:
    """Begins a sign-in. Returns the issuer's URL and the cookie that proves which browser has begun. `on` is the page
    that the browser opens afterwards. Raises IssuerAway, Overloaded.
    """
    said = {"state": token_urlsafe(32), "nonce": token_urlsafe(32), "verifier": new_verifier()}
    found = issuer.known()
    if found is None:
        with issuer.slot() as until:
            found = issuer.discover(until)
    return issuer.url_at(found, **said), signing.dumps({**said, "next": on}, salt=BEGUN)


def finish(
    *,
    cookie: str | None,
    brought: Mapping[str, str],
    replaces: UserPrincipal | None,
    device: Device,
    actor: Actor,
) -> Entered:
    """Signs in a person who comes back from the issuer; `brought` is the query that the issuer gave the browser. Raises
    SignInFailed, LinkNeeded, RegistrationClosed, IssuerAway, and Overloaded, after which the same request may be
    repeated.
    """
    begun, state = opened(cookie, BEGUN), brought["state"]
    if not hmac.compare_digest(begun["state"].encode(), state.encode()):
        raise SignInFailed(_NOT_BEGUN)
    with issuer.slot() as until:
        if count_hit(_STATE, hashlib.sha256(state.encode()).hexdigest())[0] > 1:
            raise SignInFailed(_NOT_BEGUN)
        if brought["error"] or not brought["code"]:
            why = brought["error"] if _ERROR.fullmatch(brought["error"]) else "it did not say why"
            raise SignInFailed(f"The sign-in service let nobody in ({why}).")
        claims = issuer.who(brought, nonce=begun["nonce"], verifier=begun["verifier"], until=until)

    def enter() -> Entered:
        with transaction.atomic():
            user = _user_of(claims, begun["next"], actor)
            if replaces is not None:
                revoke(replaces.session_id)
            return _enter(user, begun["next"], device, actor)

    try:
        return enter()
    except IntegrityError:
        # Another request has just made the account, taken the address or ended the link. A second try sees that.
        return enter()


def _enter(user: User, on: str, device: Device, actor: Actor) -> Entered:
    """Opens a session by the link, whose use it notes, and one of admin if the sign-in began at a page of admin. No
    session of the API opens one later. Raises SignInFailed for such a page if the user is not staff.
    """
    began = Session.Began.SSO.value
    session = open_session(user, device, began=began)
    Identity.objects.filter(user=user).update(last_used_at=Now())
    staff_session = None
    if is_of_admin(on):
        if not user.is_staff:
            raise SignInFailed(_NO_STAFF)
        staff_session = open_staff_session(user, device, began=began, came_from=session.id)
        emit_own("user.logged-in", user.id, replace(actor, type="staff"))
    return Entered(user, session, on, staff_session)


def is_of_admin(path: str) -> bool:
    return path.startswith(reverse("admin:index"))


def _user_of(claims: Claims, on: str, actor: Actor) -> User:
    """Returns the user who signs in, locked. At the first sign-in, makes an account if none has the address."""
    if (user := _linked_user(claims, actor)) is not None:
        emit_own("user.logged-in", user.id, actor)
        return user
    email = _email_of(claims)
    if email is None:
        raise SignInFailed("The sign-in service does not vouch for an e-mail address of yours.")
    holder = lock_holder(email)
    if holder is not None and keeps_address(holder):
        known = Identity.objects.filter(user=holder, issuer=claims.issuer).first()
        if known is not None and known.sub == claims.sub:
            # Another sign-in of the person has just made the account, and now the link can be seen.
            return _user_of(claims, on, actor)
        if known is not None:
            raise SignInFailed(_TAKEN)
        if not holder.is_active:
            raise SignInFailed(_INACTIVE)
        raise LinkNeeded(holder, claims, on)
    is_open = settings.REGISTRATION != "closed"
    if not is_open and not has_live_mail(Purpose.INVITATION, address=email):
        raise RegistrationClosed
    if holder is not None:
        displace(holder, actor=actor)
    return _create(claims, email, actor)


def _linked_user(claims: Claims, actor: Actor) -> User | None:
    links = Identity.objects.filter(issuer=claims.issuer, sub=claims.sub)
    users = User.objects.select_for_update(no_key=True)
    user = users.filter(id__in=links.values("user_id")).first()
    if user is None:
        return None
    if not user.is_active:
        raise SignInFailed(_INACTIVE)
    if (link := links.filter(user=user).first()) is None:
        # The link has ended while this sign-in waited for the lock.
        raise IntegrityError
    _follow_address(user, link, claims, actor)
    return user


def _create(claims: Claims, email: Email, actor: Actor) -> User:
    try:
        name = NameField(max_length=200).run_validation(claims.name)
    except serializers.ValidationError:
        name = ""
    user = User(email=email, name=name, must_prove_email=proof_counts())
    user.set_unusable_password()
    user.email_verified_at = Now()
    user.save(force_insert=True)
    Identity.objects.create(user_id=user.id, issuer=claims.issuer, sub=claims.sub, address=email)
    make_void(Q(address=email, purpose=Purpose.REGISTRATION))
    emit_own("user.registered", user.id, actor, issuer=claims.issuer)
    return user


def _follow_address(user: User, link: Identity, claims: Claims, actor: Actor) -> None:
    """Gives the user the address that the issuer tells, if it told another one before and no
    other account has it. A mail tells the old address first. So an address that was changed here stays.
    """
    email = _email_of(claims)
    Identity.objects.filter(user=user).update(address=email or link.address)
    if email is None or (user.email == email and user.has_proved_email):
        return
    if user.email != email:
        if link.address is None or link.address == email:
            return
        if User.objects.filter(email=email).exists():
            return
    make_void(Q(user_id=user.id) & ~Q(purpose__in=UNDOING))
    if user.email != email and mail_is_on():
        facts = {"new_address": email}
        queue_mail(Purpose.FOLLOW_NOTICE, address=user.email, user_id=user.id, facts=facts)
    action = "user.email-verified" if user.email == email else "user.email-changed"
    User.objects.filter(id=user.id).update(email=email, email_verified_at=Now())
    user.refresh_from_db(fields=["email", "email_verified_at"])
    emit_own(action, user.id, actor)


def _email_of(claims: Claims) -> Email | None:
    try:
        return Email(NewEmailField().run_validation(claims.email))
    except serializers.ValidationError:
        return None


def link(*, cookie: str | None, password: str, code: str, device: Device, actor: Actor) -> Entered:
    """Links the account that the cookie names, and signs its user in. Staff also need a code of their authenticator if
    they have one. Raises Unauthenticated for a wrong password or code, and SignInFailed.
    """
    pending = _pending(cookie)

    def enter(held: User) -> Entered | None:
        # The row is read again under the lock, because the account may have got another address, or become staff.
        user = User.objects.get(id=held.id)
        if user.is_staff and not accept_code(user.id, code):
            return None
        if not _is_of(user, pending):
            raise SignInFailed(_NOT_BEGUN)
        _link(user, pending["issuer"], pending["sub"], actor)
        return _enter(user, pending["next"], device, actor)

    return admit(Email(pending["email"]), password, actor, enter, _WRONG)


def mail_link(*, cookie: str | None) -> str:
    """Sends a mail that links the account which the cookie names. Returns a fresh cookie, which the browser needs when
    it opens the mail's link. Raises SignInFailed, and Conflict without mail.
    """
    check_mail_is_on()
    pending = _pending(cookie)
    facts = {"issuer": pending["issuer"], "sub": pending["sub"]}
    with transaction.atomic():
        queue_mail(
            Purpose.LINK, address=pending["email"], user_id=UUID(pending["user"]), facts=facts
        )
    return signing.dumps(pending, salt=PENDING)


def _pending(cookie: str | None, seconds: int = LIFETIME_SECONDS) -> dict[str, Any]:
    """Returns the link that the browser's cookie asks for. Raises SignInFailed if its account has another address now,
    or is deactivated.
    """
    pending = opened(cookie, PENDING, seconds)
    user = User.objects.filter(id=pending["user"], is_active=True).first()
    if user is None or not _is_of(user, pending):
        raise SignInFailed(_NOT_BEGUN)
    return pending


def _is_of(user: User, pending: Mapping[str, Any]) -> bool:
    # Cookies of older releases have no address.
    return (str(user.id), user.email) == (pending["user"], pending.get("email"))


def link_by_mail(*, cookie: str | None, token: str, code: str, actor: Actor) -> None:
    """Links the account to which the mail went, if the cookie is that of the sign-in that asked for the mail. Raises
    LinkUnusable, SignInFailed for another browser, and Invalid if a member of staff gives no code of their
    authenticator. The last two leave the token usable.
    """
    mail = find_mail(token, Purpose.LINK)
    assert mail.user_id is not None, "the mail is about an account"
    try:
        pending = opened(cookie, PENDING, MAILED_SECONDS)
    except SignInFailed:
        raise SignInFailed(_OTHER_BROWSER) from None
    of_mail = {**mail.facts, "user": str(mail.user_id), "email": mail.address}
    if any(pending.get(name) != value for name, value in of_mail.items()):
        raise SignInFailed(_OTHER_BROWSER)
    with transaction.atomic():
        users = User.objects.select_for_update(no_key=True)
        user = users.filter(id=mail.user_id, email=mail.address, is_active=True).first()
        if user is None:
            raise LinkUnusable
        if user.is_staff and not accept_code(user.id, code):
            raise Invalid({"code": ["Staff need a code of their authenticator."]})
        use_up(mail)
        _link(user, mail.facts["issuer"], mail.facts["sub"], actor)


def _link(user: User, issuer_name: str, sub: str, actor: Actor) -> None:
    """Links a user, whom the caller has locked, and ends a link to a former issuer. Raises SignInFailed if the user has
    another link, or the account at the issuer belongs to another user.
    """
    Identity.objects.filter(user=user).exclude(issuer=issuer_name).delete()
    identity = Identity(user_id=user.id, issuer=issuer_name, sub=sub, address=user.email)
    Identity.objects.bulk_create([identity], ignore_conflicts=True)
    if not Identity.objects.filter(user=user, issuer=issuer_name, sub=sub).exists():
        raise SignInFailed(_TAKEN)
    emit_own("user.linked", user.id, actor, issuer=issuer_name)
    if mail_is_on():
        queue_mail(Purpose.LINK_NOTICE, address=user.email, user_id=user.id)
