"""The one-time passwords of staff users (RFC 6238) and their recovery codes."""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from uuid import UUID

import pyotp
from django.db import transaction
from django.db.models.functions import Now

from accounts.models import Authenticator, RecoveryCode, User
from pipedai import crypto
from pipedai.events import Actor, Event, emit
from pipedai.logs import get_logger
from pipedai.sql import database_now

log = get_logger(__name__)

_ISSUER = "PipedAI"
_SECRET_BYTES = 20  # The length of a secret in bytes, as RFC 4226 recommends.
_STEP_SECONDS = 30
# The time steps of 30 s whose codes are accepted: the present one, the one before it and the one after it. Clocks
# differ, and people type slowly.
_STEPS_ASIDE = (0, -1, 1)
_RECOVERY_CODES = 10
_RECOVERY_BYTES = 10


@dataclass(frozen=True, slots=True, repr=False)
class Setup:
    """A new secret, also as a URI. The class has no repr, so that nobody prints the secret by mistake."""

    secret: str
    uri: str


def begin_setup(user: User) -> Setup | None:
    """Makes a secret. Returns None if the user has an authenticator. `confirm_setup` makes logins ask for codes."""
    with transaction.atomic():
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        Authenticator.objects.filter(user=user, confirmed_at__isnull=True).delete()
        if Authenticator.objects.filter(user=user).exists():
            return None
        held = Authenticator(user=user)
        _wrap(held, secrets.token_bytes(_SECRET_BYTES))
        held.save(force_insert=True)
        totp = _totp(held)
    return Setup(totp.secret, totp.provisioning_uri(name=user.email, issuer_name=_ISSUER))


def confirm_setup(user: User, code: str, *, actor: Actor) -> list[str] | None:
    """Turns the authenticator on and returns the recovery codes, or returns None if the code is wrong."""
    with transaction.atomic():
        held = _locked(user.pk)
        if held is None or held.confirmed_at is not None or not _accept(held, code):
            return None
        Authenticator.objects.filter(pk=held.pk).update(confirmed_at=Now())
        texts = [
            base64.b32encode(secrets.token_bytes(_RECOVERY_BYTES)).decode().lower()
            for _ in range(_RECOVERY_CODES)
        ]
        codes = ["-".join(text[n : n + 4] for n in range(0, len(text), 4)) for text in texts]
        RecoveryCode.objects.bulk_create(
            RecoveryCode(authenticator=held, code_digest=_digest(code)) for code in codes
        )
        emit(Event("authenticator.enabled", actor, None, "user", user.pk))
    return codes


def remove_authenticator(user_id: UUID, *, actor: Actor) -> None:
    """Deletes the user's authenticator and its recovery codes. Does nothing if there is none."""
    with transaction.atomic():
        held = _locked(user_id)
        if held is None:
            return
        held.delete()
        if held.confirmed_at is not None:
            emit(Event("authenticator.disabled", actor, None, "user", user_id))


def has_authenticator(user_id: UUID) -> bool:
    return Authenticator.objects.filter(user_id=user_id, confirmed_at__isnull=False).exists()


def accept_code(user_id: UUID, code: str) -> bool:
    """Returns whether the user may log in with this code. An accepted code is used up, so call this in the login's
    transaction. A user without an authenticator may log in with any code, even an empty one.
    """
    held = _locked(user_id)
    if held is None or held.confirmed_at is None:
        return True
    unused = held.recovery_codes.filter(code_digest=_digest(code), used_at__isnull=True)
    return _accept(held, code) or unused.update(used_at=Now()) == 1


def disable(user_id: UUID, code: str, *, actor: Actor) -> bool:
    with transaction.atomic():
        accepted = accept_code(user_id, code)
        if accepted:
            remove_authenticator(user_id, actor=actor)
    return accepted


def rewrap_authenticators(*, limit: int = 100) -> int:
    """Encrypts authenticator secrets of older master keys with the newest one. Returns how many."""
    newest, *older = (master.id for master in crypto.masters())
    with transaction.atomic():
        # If the master key of a secret is not in this process's setting MASTER_KEYS, the process can't decrypt the
        # secret, so the secret stays as it is.
        rows = Authenticator.objects.select_for_update(skip_locked=True, no_key=True)
        old = list(rows.filter(master_key_id__in=older).order_by("pk")[:limit])
        for held in old:
            _wrap(held, _open(held))
            held.save(update_fields=["secret", "master_key_id"])
    if old:
        log.info("authenticators.rewrapped", count=len(old), master_key_id=newest)
    return len(old)


def probe_authenticators() -> Iterator[tuple[UUID, str, crypto.CannotOpen | None]]:
    """Tries to decrypt each secret. Yields the user's id, the master key's id, and the error, or None."""
    for held in Authenticator.objects.order_by("pk"):
        try:
            _open(held)
        except crypto.CannotOpen as error:
            yield held.pk, held.master_key_id, error
        else:
            yield held.pk, held.master_key_id, None


def _locked(user_id: UUID) -> Authenticator | None:
    return Authenticator.objects.select_for_update(no_key=True).filter(user_id=user_id).first()


def _accept(held: Authenticator, code: str) -> bool:
    """Returns whether the code is right, and marks it as used. The caller has locked the authenticator's row."""
    try:
        totp = _totp(held)
    except crypto.CannotOpen:
        # If the secret can't be decrypted, no code is accepted. The user can still log in with a recovery code, or
        # other staff can remove the authenticator.
        log.error("authenticator.cannot_open", user_id=held.pk, master_key_id=held.master_key_id)
        return False
    now = int(database_now().timestamp()) // _STEP_SECONDS
    code = code.replace(" ", "")
    for aside in _STEPS_ASIDE:
        step = now + aside
        if step > held.last_step and secrets.compare_digest(
            totp.generate_otp(step).encode(), code.encode()
        ):
            Authenticator.objects.filter(pk=held.pk).update(last_step=step)
            return True
    return False


def _digest(code: str) -> bytes:
    plain = code.lower().replace("-", "").replace(" ", "")
    return hashlib.sha256(f"pipedai.recovery-code {plain}".encode()).digest()


def _totp(held: Authenticator) -> pyotp.TOTP:
    return pyotp.TOTP(base64.b32encode(_open(held)).decode(), interval=_STEP_SECONDS)


def _wrap(held: Authenticator, secret: bytes) -> None:
    master = crypto.masters()[0]
    held.master_key_id = master.id
    held.secret = crypto.wrap(crypto.DataKey(str(held.pk), secret), master, _PLACE)


def _open(held: Authenticator) -> bytes:
    return crypto.unwrap(
        bytes(held.secret), str(held.pk), held.master_key_id, _PLACE, crypto.masters()
    ).key


# This text is authenticated together with the encrypted secret of an authenticator. Data keys are authenticated
# together with the id of their environment instead, so neither can be copied to the other's place.
_PLACE = "staff.authenticator"
