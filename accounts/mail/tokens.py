"""Makes, finds and uses up the one-time tokens of mails, and makes their links (SPEC §15).

A token is an HMAC of the id of its mail's row, so the sender can make it and no table holds it. A transaction that uses
a token locks environments first, then users, and the mail's row last.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.crypto import salted_hmac

from accounts.models import AccountMail
from pipedai.api import tokens
from pipedai.api.error_codes import ErrorCode
from pipedai.api.errors import Conflict
from pipedai.links import link_to_page

if TYPE_CHECKING:
    from django.db.models import QuerySet

PREFIX = "acc"
UNUSABLE = "This link does not work: it was used, is too old, or is for another account. Ask for a new mail."


class LinkUnusable(Conflict):
    """409: the token of a mail is unknown, used, expired or void, or it is for another account or purpose."""

    def __init__(self) -> None:
        super().__init__(UNUSABLE, code=ErrorCode.LINK_UNUSABLE)


def new_token(mail_id: UUID) -> tokens.Token:
    return _token_under(settings.SECRET_KEY, mail_id)


def token_with_digest(mail_id: UUID, digest: bytes) -> str | None:
    """Makes the token again. Returns None if the service no longer has the secret under which it was made."""
    return next((token.value for token in _tokens(mail_id) if token.digest == digest), None)


def link_to(page: str, token: str) -> str:
    """The token is in the fragment, which browsers send to no server and write into no Referer header."""
    return f"{link_to_page(page)}#token={token}"


def find_mail(token: str, *purposes: AccountMail.Purpose) -> AccountMail:
    """Returns the mail if the token works for one of the purposes. Raises LinkUnusable. Until `use_up` has succeeded,
    another request may use the token up.
    """
    if tokens.prefix_of(token) != PREFIX:
        raise LinkUnusable
    found = _usable(Q(token_digest=tokens.digest(token), purpose__in=purposes)).first()
    if found is None:
        raise LinkUnusable
    return found


def use_up(mail: AccountMail) -> None:
    """Raises LinkUnusable if another request used the token first, or if it has expired or become void."""
    if not _usable(Q(id=mail.id)).update(ended_at=Now()):
        raise LinkUnusable


def make_void(of: Q) -> None:
    _usable(of).update(ended_at=Now())


def outstanding() -> Q:
    return Q(token_digest__isnull=False, ended_at__isnull=True, expires_at__gt=Now())


def _usable(of: Q) -> "QuerySet[AccountMail]":
    return AccountMail.objects.filter(of, outstanding())


def _tokens(mail_id: UUID) -> Iterator[tokens.Token]:
    for secret in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        yield _token_under(secret, mail_id)


def _token_under(secret: str, mail_id: UUID) -> tokens.Token:
    code = salted_hmac("pipedai.account-mail", str(mail_id), secret=secret, algorithm="sha256")
    return tokens.of_bytes(PREFIX, code.digest())
