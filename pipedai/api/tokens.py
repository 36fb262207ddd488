"""The format of our bearer tokens: `<prefix>_<43 base62 characters><6 base62 characters of CRC32>`.

By the checksum, scanners recognise a token, and the service refuses a mistyped one without a query. Only the SHA-256
is stored: nobody can guess 32 random bytes, so they need no slow hash.
"""

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass

from django.core.signing import b62_encode

_RANDOM_BYTES = 32
_RANDOM_LENGTH = 43  # 43 base62 characters can hold 256 random bits, because 62**43 > 2**256.
_CHECKSUM_LENGTH = 6  # 6 base62 characters can hold a CRC32, because 62**6 > 2**32.
_SHAPE = re.compile(
    rf"(?P<prefix>[a-z]{{3}})_[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECKSUM_LENGTH}}}", re.ASCII
)

# The kinds of tokens by their prefixes, in the words that error sentences use.
KINDS = {
    "pwk": "An API key (pwk_)",
    "wrk": "A registration token (wrk_)",
    "wkt": "A worker token (wkt_)",
    "hos": "A host credential (hos_)",
    "enr": "An enrollment code (enr_)",
    "acc": "The token of a mail (acc_)",
}


@dataclass(frozen=True, slots=True, repr=False)
class Token:
    """A new token. `value` is shown to its owner once; the other fields are stored."""

    value: str
    digest: bytes
    last_four: str


def mint(prefix: str) -> Token:
    return of_bytes(prefix, secrets.token_bytes(_RANDOM_BYTES))


def of_bytes(prefix: str, secret: bytes) -> Token:
    if prefix not in KINDS:
        raise ValueError(f"unknown token prefix {prefix!r}")
    number = int.from_bytes(secret, "big")
    body = f"{prefix}_{_base62(number, _RANDOM_LENGTH)}"
    value = body + _checksum(body)
    return Token(value=value, digest=digest(value), last_four=value[-4:])


def prefix_of(value: str) -> str | None:
    """Returns the prefix of a well-formed token with a correct checksum, else None."""
    match = _SHAPE.fullmatch(value)
    if match is None or match["prefix"] not in KINDS:
        return None
    body, checksum = value[:-_CHECKSUM_LENGTH], value[-_CHECKSUM_LENGTH:]
    return match["prefix"] if secrets.compare_digest(_checksum(body), checksum) else None


def digest(value: str) -> bytes:
    return hashlib.sha256(value.encode()).digest()


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode()), _CHECKSUM_LENGTH)


def _base62(number: int, length: int) -> str:
    return b62_encode(number).rjust(length, "0")
