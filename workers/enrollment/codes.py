"""The codes by which a host enrolls: how they are made, written, and kept as HMACs under keys of their own."""

import secrets

from django.conf import settings
from django.utils.crypto import salted_hmac

# RFC 8628 §6.1: no vowels, so no words; nothing that looks or sounds like another. 20^8 is 34.6 bits.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
_DEVICE_BYTES = 32


def make_user_code() -> str:
    """A code for a person to type, as it is shown: `WDJB-MJHT`."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF))
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def normal_user_code(typed: str) -> str | None:
    """What was typed as `make_user_code` writes it, whatever its case and punctuation; None for what is no code."""
    letters = [character for character in typed.upper() if character.isalnum()]
    if len(letters) != 2 * _HALF or not set(letters) <= set(_LETTERS):
        return None
    return f"{''.join(letters[:_HALF])}-{''.join(letters[_HALF:])}"


def make_device_code() -> str:
    """A secret of 256 bits, by which the host that began a pairing asks for its end."""
    return secrets.token_urlsafe(_DEVICE_BYTES)


def digest(purpose: str, code: str) -> bytes:
    """What is stored of a code. `purpose` is `code`, `device` or `user`."""
    return digests(purpose, code)[0]


def digests(purpose: str, code: str) -> list[bytes]:
    """What may be stored of a code: by today's secret key, and by those before it."""
    return [
        salted_hmac(f"pipedai.enrollment.{purpose}", code, secret=key, algorithm="sha256").digest()
        for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    ]
