"""Collects the secrets of tests: everything that this process seals or hashes, and the data keys that it makes."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.contrib.auth.hashers import check_password, make_password

from accounts import passwords
from pipedai import crypto
from testing.world.users import PASSWORD

# A shorter secret is taken for a placeholder, because it can't be told from ordinary words.
_SHORTEST = 8
_SECRET_FIELDS = {"mcpHeaders", "headers", "webhookSecret", "clientSecret"}
_SECRET_FIELDS |= {"password", "currentPassword", "newPassword"}


class Planted:
    """A collection of secrets, with every spelling in which each could appear in a text."""

    def __init__(self) -> None:
        # Whether a test has planted a secret besides those of the rows that it was given.
        self.has_own = False
        self._spellings: dict[str, str] = {}
        # Some threads of a test add secrets while others search for them.
        self._changing = threading.Lock()

    def add(self, secret: str | bytes) -> None:
        """Adds a secret, for which all later searches look."""
        if len(secret) >= _SHORTEST:
            shown = secret if isinstance(secret, str) else secret.hex()
            with self._changing:
                self._spellings |= dict.fromkeys(_spellings(secret), shown)

    def add_all_of(self, other: "Planted") -> None:
        """Adds the secrets of another collection."""
        with self._changing:
            self._spellings |= other._spellings

    def found_in(self, text: str) -> list[str]:
        """Returns the secrets that can be read in a text."""
        with self._changing:
            spellings = self._spellings.copy()
        found = (secret for spelling, secret in spellings.items() if spelling in text)
        return list(dict.fromkeys(found))


_collecting: list[Planted] = []


@contextmanager
def planted() -> Iterator[Planted]:
    """Collects the secrets that are planted during the block, and those that every test uses."""
    collection = Planted()
    for secret in (PASSWORD, settings.SECRET_KEY):
        collection.add(secret)
    for master in crypto.parse_master_keys(tuple(settings.MASTER_KEYS)):
        collection.add(master.key)
    _collecting.append(collection)
    try:
        yield collection
    finally:
        _collecting.remove(collection)


def plant(secret: str | bytes) -> None:
    """Adds a secret to all collections that are open now."""
    for collection in _collecting:
        collection.add(secret)
        collection.has_own = True


def plant_all(secrets: Planted) -> None:
    """Plants each secret of a collection, which many tests share."""
    for collection in _collecting:
        collection.add_all_of(secrets)


def plant_body(body: bytes) -> None:
    """Plants the values in a request's body that the service will seal or hash."""
    try:
        sent = json.loads(body)
    except ValueError:
        return
    if isinstance(sent, dict):
        for name in _SECRET_FIELDS & sent.keys():
            value = sent[name]
            for secret in _parts(
                json.dumps(value).encode() if isinstance(value, dict) else str(value).encode()
            ):
                plant(secret)


@contextmanager
def noting() -> Iterator[None]:
    """Replaces the functions that seal and hash, for the time of the block, so that they also plant what they get."""
    with pytest.MonkeyPatch.context() as patch:
        seal, new_data_key = crypto.seal, crypto.new_data_key

        def noting_seal(data_key: crypto.DataKey, place: crypto.Place, plaintext: bytes) -> bytes:
            for secret in _parts(plaintext):
                plant(secret)
            return seal(data_key, place, plaintext)

        def noting_new_data_key(data_key_id: str) -> crypto.DataKey:
            made = new_data_key(data_key_id)
            plant(made.key)
            return made

        def noting_make(password: str | None, *rest: Any) -> str:
            plant(password or "")
            return make_password(password, *rest)

        def noting_check(password: str | None, *rest: Any, **more: Any) -> bool:
            plant(password or "")
            return check_password(password, *rest, **more)

        patch.setattr(crypto, "seal", noting_seal)
        patch.setattr(crypto, "new_data_key", noting_new_data_key)
        patch.setattr(passwords, "make_password", noting_make)
        patch.setattr(passwords, "check_password", noting_check)
        yield


def _parts(plaintext: bytes) -> list[str] | list[bytes]:
    """Returns the secrets in a sealed value. Of headers these are the values, and the part after "Bearer " as well."""
    try:
        text = plaintext.decode()
    except UnicodeDecodeError:
        return [plaintext]
    try:
        headers = json.loads(text)
    except ValueError:
        headers = None
    if not isinstance(headers, dict):
        return [text]
    texts = [str(value) for value in headers.values()]
    return [part for text in texts for part in (text, text.rpartition(" ")[2])]


def _spellings(secret: str | bytes) -> set[str]:
    raw = secret.encode() if isinstance(secret, str) else secret
    # Base64 encodes groups of three bytes, so in a longer text the encoding of a secret depends on where it begins.
    shifted = (
        base64.b64encode(bytes(shift) + raw).decode()[(0, 2, 3)[shift] : -4] for shift in range(3)
    )
    spellings = {raw.hex(), base64.b64encode(raw).decode().rstrip("="), *shifted}
    if isinstance(secret, str):
        in_json = json.dumps(secret)[1:-1]
        spellings |= {secret, in_json, _in_row(secret), _in_row(in_json), quote(secret)}
    return spellings


def _in_row(text: str) -> str:
    """Returns a text as PostgreSQL writes it in the text form of a row."""
    return text.replace("\\", "\\\\").replace('"', '""')
