"""Makes and reads the codes by which hosts enroll, and computes the HMACs that are stored in their place."""

import secrets

from django.conf import settings
from django.utils.crypto import salted_hmac

# RFC 8628 §6.1: without vowels they make no words, and no two of them are easily confused. 20^8 is 34.6 bits.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
_DEVICE_BYTES = 32


def make_user_code() -> str:
    """Returns a new code for a person to type, such as `WDJB-MJHT`."""
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF))
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def normal_user_code(typed: str) -> str | None:
    """Returns a typed code as `make_user_code` spells it, whatever its case and punctuation; None if it is no code."""
    letters = [character for character in typed.upper() if character.isalnum()]
    if len(letters) != 2 * _HALF or not set(letters) <= set(_LETTERS):
        return None
    return f"{''.join(letters[:_HALF])}-{''.join(letters[_HALF:])}"


def make_device_code() -> str:
    """Returns a new secret of 256 bits. The host that began a pairing shows it when it asks for its tokens."""
    return secrets.token_urlsafe(_DEVICE_BYTES)


def digest(purpose: str, code: str) -> bytes:
    """Returns the HMAC that is stored in place of a code. `purpose` is `code`, `device` or `user`."""
    return digests(purpose, code)[0]


def digests(purpose: str, code: str) -> list[bytes]:
    """Returns all HMACs by which a code may be stored: one under SECRET_KEY and one under each key before it."""
    return [
        salted_hmac(f"pipedai.enrollment.{purpose}", code, secret=key, algorithm="sha256").digest()
        for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    ]
