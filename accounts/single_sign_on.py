"""Signs in people who have an account at the issuer, and links their accounts here to those there.

Two signed cookies carry the state for ten minutes: the sign-in that a browser has begun, and the account to be
linked.
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from secrets import token_urlsafe
from typing import Any

from django.conf import settings
from django.core import signing
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.db.models.functions import Now
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
from accounts.sessions import Device, open_session
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
        self.cookie = signing.dumps({**whom, "next": on}, salt=PENDING)


def opened(cookie: str | None, kind: str) -> dict[str, Any]:
    """Returns the content of our cookie of this kind. Raises SignInFailed if it is not ours or is too old."""
    try:
        found: dict[str, Any] = signing.loads(cookie or "", salt=kind, max_age=LIFETIME_SECONDS)
    except signing.BadSignature:
        raise SignInFailed(_NOT_BEGUN) from None
    return found


def begin(*, on: str, address: str) -> tuple[str, str]:
    """Begins a sign-in. Returns the issuer's URL and the cookie that proves which browser has begun. `on` is the page
    that the browser opens afterwards. Raises IssuerAway, NoSlot.
    """
    said = {"state": token_urlsafe(32), "nonce": token_urlsafe(32), "verifier": new_verifier()}
    found = issuer.known()
    if found is None:
        with issuer.slot(address) as until:
            found = issuer.discover(until)
    return issuer.url_at(found, **said), signing.dumps({**said, "next": on}, salt=BEGUN)


def finish(
    *,
    cookie: str | None,
    brought: Mapping[str, str],
    address: str,
    replaces: UserPrincipal | None,
    device: Device,
    actor: Actor,
) -> tuple[User, Session, str]:
    """Signs in a person who comes back from the issuer; `brought` is the query that the issuer gave the browser.
    Returns the user, their session, and the page to open. Raises SignInFailed, LinkNeeded, RegistrationClosed,
    IssuerAway, and NoSlot, after which the same request may be repeated.
    """
    begun, state = opened(cookie, BEGUN), brought["state"]
    if not hmac.compare_digest(begun["state"].encode(), state.encode()):
        raise SignInFailed(_NOT_BEGUN)
    with issuer.slot(address) as until:
        if count_hit(_STATE, hashlib.sha256(state.encode()).hexdigest())[0] > 1:
            raise SignInFailed(_NOT_BEGUN)
        if brought["error"] or not brought["code"]:
            why = brought["error"] if _ERROR.fullmatch(brought["error"]) else "it did not say why"
            raise SignInFailed(f"The sign-in service let nobody in ({why}).")
        claims = issuer.who(brought, nonce=begun["nonce"], verifier=begun["verifier"], until=until)

    def enter() -> tuple[User, Session, str]:
        with transaction.atomic():
            user = _user_of(claims, begun["next"], actor)
            if replaces is not None:
                revoke(replaces.session_id)
            return user, open_session(user, device, began=Session.Began.SSO.value), begun["next"]

    try:
        return enter()
    except IntegrityError:
        # Another request has just made the account, or taken the address. A second try finds that account.
        return enter()


def _user_of(claims: Claims, on: str, actor: Actor) -> User:
    """Returns the user who signs in, locked. At the first sign-in, makes an account if none has the address."""
    linked = User.objects.filter(identity__issuer=claims.issuer, identity__sub=claims.sub)
    user = User.objects.select_for_update(no_key=True).filter(id__in=linked.values("id")).first()
    if user is not None:
        if not user.is_active:
            raise SignInFailed(_INACTIVE)
        _follow_address(user, claims, actor)
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
    if settings.REGISTRATION == "closed" and not has_live_mail(Purpose.INVITATION, email):
        raise RegistrationClosed
    if holder is not None:
        displace(holder, actor=actor)
    return _create(claims, email, actor)


def _create(claims: Claims, email: Email, actor: Actor) -> User:
    try:
        name = NameField(max_length=200).run_validation(claims.name)
    except serializers.ValidationError:
        name = ""
    user = User(email=email, name=name, must_prove_email=proof_counts())
    user.set_unusable_password()
    user.email_verified_at = Now()
    user.save(force_insert=True)
    Identity.objects.create(user=user, issuer=claims.issuer, sub=claims.sub)
    make_void(Q(address=email, purpose=Purpose.REGISTRATION))
    emit_own("user.registered", user.id, actor, issuer=claims.issuer)
    return user


def _follow_address(user: User, claims: Claims, actor: Actor) -> None:
    """Gives the user the address that they have at the issuer now, unless another account has it."""
    email = _email_of(claims)
    if email is None or (user.email == email and user.has_proved_email):
        return
    if User.objects.filter(email=email).exclude(id=user.id).exists():
        return
    action = "user.email-verified" if user.email == email else "user.email-changed"
    User.objects.filter(id=user.id).update(email=email, email_verified_at=Now())
    make_void(Q(user_id=user.id))
    user.refresh_from_db(fields=["email", "email_verified_at"])
    emit_own(action, user.id, actor)


def _email_of(claims: Claims) -> Email | None:
    try:
        return Email(NewEmailField().run_validation(claims.email))
    except serializers.ValidationError:
        return None


def link(
    *, cookie: str | None, password: str, code: str, device: Device, actor: Actor
) -> tuple[User, Session, str]:
    """Links the account that the cookie names, and signs its user in. Staff also need a code of their authenticator if
    they have one. Raises Unauthenticated for a wrong password or code, and SignInFailed.
    """
    pending = opened(cookie, PENDING)

    def enter(user: User) -> tuple[User, Session, str] | None:
        if str(user.id) != pending["user"] or (user.is_staff and not accept_code(user.id, code)):
            return None
        _link(user, pending["issuer"], pending["sub"], actor)
        session = open_session(user, device, began=Session.Began.SSO.value)
        return user, session, pending["next"]

    email = User.objects.values_list("email", flat=True).get(id=pending["user"])
    return admit(Email(email), password, actor, enter, _WRONG)


def mail_link(*, cookie: str | None) -> None:
    """Sends a mail that links the account which the cookie names. Raises SignInFailed, and Conflict without mail."""
    check_mail_is_on()
    pending = opened(cookie, PENDING)
    user = User.objects.get(id=pending["user"])
    facts = {"issuer": pending["issuer"], "sub": pending["sub"]}
    with transaction.atomic():
        if user.is_active:
            queue_mail(Purpose.LINK, address=user.email, user_id=user.id, facts=facts)


def link_by_mail(*, token: str, code: str, actor: Actor) -> None:
    """Links the account to which the mail went. Raises LinkUnusable, SignInFailed, and Invalid if a member of staff
    gives no code of their authenticator, which leaves the token usable.
    """
    mail = find_mail(token, Purpose.LINK)
    assert mail.user_id is not None, "the mail is about an account"
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
    identity = Identity(user=user, issuer=issuer_name, sub=sub)
    Identity.objects.bulk_create([identity], ignore_conflicts=True)
    if not Identity.objects.filter(user=user, issuer=issuer_name, sub=sub).exists():
        raise SignInFailed(_TAKEN)
    emit_own("user.linked", user.id, actor, issuer=issuer_name)
    if mail_is_on():
        queue_mail(Purpose.LINK_NOTICE, address=user.email, user_id=user.id)
