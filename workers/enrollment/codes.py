"""Makes and reads the codes by which hosts enroll, and computes the HMACs that are stored in their place."""

import secrets

from django.conf import settings
from django.utils.crypto import salted_hmac

# The letters of the code that a person types (RFC 8628 §6.1). Without vowels a code spells no word, and no two letters
# look alike. A code of 8 letters has 20^8 values, or 34.6 bits.
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
_HALF = 4
_DEVICE_BYTES = 32


def make_user_code() -> str:
    letters = "".join(secrets.choice(_LETTERS) for _ in range(2 * _HALF))
    return f"{letters[:_HALF]}-{letters[_HALF:]}"


def normal_user_code(typed: str) -> str | None:
    """Returns a typed code in the form of `make_user_code`, whatever its case and punctuation, or None."""
    letters = [character for character in typed.upper() if character.isalnum()]
    if len(letters) != 2 * _HALF or not set(letters) <= set(_LETTERS):
        return None
    return f"{''.join(letters[:_HALF])}-{''.join(letters[_HALF:])}"


def make_device_code() -> str:
    return secrets.token_urlsafe(_DEVICE_BYTES)


def digest(purpose: str, code: str) -> bytes:
    """Returns the HMAC that is stored instead of a code. `purpose` is the enrollment's kind, or `user`."""
    return digests(purpose, code)[0]


def digests(purpose: str, code: str) -> list[bytes]:
    return [
        salted_hmac(f"pipedai.enrollment.{purpose}", code, secret=key, algorithm="sha256").digest()
        for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS)
    ]
