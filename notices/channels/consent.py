"""Asks owners of addresses whether they want notices, and takes their answers (SPEC §14).

The token in a mail is stored nowhere. It names the row of the asked address and carries an HMAC of it, so the sender
makes the same token at each attempt.
"""

import base64
import binascii
from typing import Final
from uuid import UUID

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now
from django.utils.crypto import constant_time_compare, salted_hmac

from accounts.mail.links import link_to
from notices.channels.models import AskedAddress, RefusedAddress
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.events import Actor, Event, emit

_ID_BYTES: Final = 16


def token_of(asked_id: UUID) -> str:
    """Returns the token by which the owner of an asked address answers."""
    return _token(asked_id.bytes, settings.SECRET_KEY)


def link_of(asked_id: UUID) -> str:
    """Returns the URL of the page on which the owner answers."""
    return link_to("notices", token_of(asked_id))


def confirm_address(*, token: str, actor: Actor) -> None:
    """Records that the owner of the address wants the notices of the environment. A second call changes nothing.

    It also removes an earlier refusal by this owner, because the later answer counts. Raises Conflict for a bad token.
    """
    with transaction.atomic():
        asked = _asked(token)
        refused = RefusedAddress.objects.filter(address=asked.address).delete()[0]
        if asked.confirmed_at is None or refused:
            AskedAddress.objects.filter(id=asked.id).update(confirmed_at=Now())
            emit(_event("address.confirmed", asked, actor))


def refuse_address(*, token: str, actor: Actor) -> None:
    """Records that the owner of the address wants no notices of any environment, ever. A second call changes nothing.
    Raises Conflict for a bad token.
    """
    with transaction.atomic():
        asked = _asked(token)
        _, is_new = RefusedAddress.objects.get_or_create(address=asked.address)
        AskedAddress.objects.filter(address=asked.address).update(confirmed_at=None)
        if is_new:
            emit(_event("address.refused", asked, actor))


def _asked(token: str) -> AskedAddress:
    """Returns the row that a token names, and locks it. Raises Conflict if there is none."""
    row = None
    if (asked_id := _read(token)) is not None:
        row = AskedAddress.objects.select_for_update(no_key=True).filter(id=asked_id).first()
    if row is None:
        raise Conflict(
            "The link is not complete, or its address is not asked any more.",
            code=ErrorCode.LINK_UNUSABLE,
        )
    return row


def _read(token: str) -> UUID | None:
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii") + b"==")
    except (binascii.Error, UnicodeError):
        return None
    named = raw[:_ID_BYTES]
    keys = (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    if len(named) < _ID_BYTES or not any(
        constant_time_compare(_token(named, key), token) for key in keys
    ):
        return None
    return UUID(bytes=named)


def _token(named: bytes, key: str) -> str:
    proof = salted_hmac("pipedai.asked-address", named, secret=key, algorithm="sha256").digest()
    return base64.urlsafe_b64encode(named + proof).rstrip(b"=").decode()


def _event(action: str, asked: AskedAddress, actor: Actor) -> Event:
    return Event(action, actor, asked.environment_id, "address", asked.id)
