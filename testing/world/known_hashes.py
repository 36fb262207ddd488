"""Computes each hash of a password once in a process of the suite, as one takes more CPU time than most tests.

Every hash is a real one. The salts are the same in each test, so tests that hash the same passwords get the same
hashes; within a test no salt comes twice.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
from django.contrib.auth.hashers import Argon2PasswordHasher

_salts: list[str] = []
_numbers = itertools.count()


@contextmanager
def computed_once() -> Iterator[None]:
    """Computes no hash twice, and verifies no password twice against the same hash, for the time of the block."""
    new_salt, encode = Argon2PasswordHasher.salt, Argon2PasswordHasher.encode
    verify = Argon2PasswordHasher().verify

    def next_salt(hasher: Argon2PasswordHasher) -> str:
        number = next(_numbers)
        while len(_salts) <= number:
            _salts.append(new_salt(hasher))
        return _salts[number]

    @cache
    def encoded(kind: Any, password: str, salt: str) -> str:
        return encode(kind(), password, salt)

    def encode_once(hasher: Any, password: str, salt: str) -> str:
        return encoded(hasher.__class__, password, salt)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Argon2PasswordHasher, "salt", next_salt)
        patch.setattr(Argon2PasswordHasher, "encode", encode_once)
        verified = cache(verify)
        patch.setattr(
            Argon2PasswordHasher,
            "verify",
            lambda _hasher, password, encoded: verified(password, encoded),
        )
        yield


def begin_salts_anew() -> None:
    """Gives the next hash the first salt again."""
    global _numbers
    _numbers = itertools.count()
