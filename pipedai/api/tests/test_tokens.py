"""The format of bearer tokens."""

import hashlib
import re
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai.api import tokens
from testing.world.cases import cases

ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def number(digits):
    value = 0
    for digit in digits:
        value = value * 62 + ALPHABET.index(digit)
    return value


@cases("prefix", ["pwk", "wrk", "wkt"])
def test_a_token_is_a_prefix_32_random_bytes_and_a_checksum(prefix):
    value = tokens.mint(prefix).value
    assert re.fullmatch(rf"{prefix}_[0-9A-Za-z]{{43}}[0-9A-Za-z]{{6}}", value)
    assert number(value[4:47]) < 2**256
    assert number(value[47:]) == zlib.crc32(value[:47].encode())
    assert tokens.prefix_of(value) == prefix


def test_small_numbers_are_padded_on_the_left(monkeypatch):
    monkeypatch.setattr("secrets.token_bytes", lambda n: (62).to_bytes(n, "big"))
    value = tokens.mint("pwk").value
    assert value[:47] == "pwk_" + "0" * 41 + "10"
    assert len(value) == 53


def test_no_two_are_alike():
    assert len({tokens.mint("wkt").value for _ in range(100)}) == 100


def test_what_is_stored_is_the_sha256_and_what_is_listed_the_last_four():
    token = tokens.mint("pwk")
    assert token.digest == tokens.digest(token.value)
    assert token.digest == hashlib.sha256(token.value.encode()).digest()
    assert token.last_four == token.value[-4:]


def test_it_is_not_in_its_repr():
    token = tokens.mint("pwk")
    assert token.value[4:10] not in repr(token)
    assert token.value[4:10] not in f"{token}"


def test_an_unknown_prefix_cannot_be_minted():
    with pytest.raises(ValueError, match="unknown token prefix 'xyz'"):
        tokens.mint("xyz")


MINTED = tokens.mint("pwk").value


@given(st.integers(0, 52), st.sampled_from(ALPHABET + "_- \n"))
def test_one_mistyped_character_is_noticed(place, character):
    typed = MINTED[:place] + character + MINTED[place + 1 :]
    assert tokens.prefix_of(typed) == ("pwk" if typed == MINTED else None)


@given(st.integers(4, 51))
def test_two_characters_that_changed_places_are_noticed(place):
    swapped = MINTED[:place] + MINTED[place + 1] + MINTED[place] + MINTED[place + 2 :]
    assert tokens.prefix_of(swapped) == ("pwk" if swapped == MINTED else None)


@cases(
    "change",
    [
        lambda token: "",
        lambda token: token[:3],
        lambda token: token[:4],
        lambda token: token[:-1],
        lambda token: token + "0",
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token.replace("_", "-"),
        lambda token: token.replace("pwk", "PWK"),
        lambda token: token.replace("pwk", "wkt"),
        lambda token: token.replace("pwk", "xyz"),
    ],
)
def test_anything_else_has_no_prefix(change):
    assert tokens.prefix_of(change(MINTED)) is None


@given(st.text(max_size=60))
def test_garbage_has_no_prefix(text):
    assert tokens.prefix_of(text) is None
