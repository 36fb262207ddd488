"""Redaction finds secrets in every spelling that the module promises, also when they lie in two pieces."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipedai_worker.redact import MARK, RedactingStream, Redactor

SECRET = 'a"b/c\\d<é>+ %&=1234'
SPELLINGS = {
    "as it is": SECRET,
    "JSON": json.dumps(SECRET),
    "JSON in UTF-8": json.dumps(SECRET, ensure_ascii=False),
    "JSON with escaped slashes": json.dumps(SECRET).replace("/", "\\/"),
    "JSON made safe for HTML": json.dumps(SECRET)
    .replace("<", "\\u003c")
    .replace(">", "\\u003e")
    .replace("&", "\\u0026"),
    "JSON in JSON": json.dumps(json.dumps(SECRET)),
    "percent": quote(SECRET, safe=""),
    "percent in lower case": quote(SECRET, safe="").lower(),
    "percent in a path": quote(SECRET),
    "form": quote_plus(SECRET),
    "base64": base64.b64encode(SECRET.encode()).decode(),
    "base64 for URLs": base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
    "amid base64, 1": base64.b64encode(b"x" + SECRET.encode() + b"yz").decode(),
    "amid base64, 2": base64.b64encode(b"xx" + SECRET.encode() + b"y").decode(),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("value", [SECRET, f"Bearer {SECRET}"], ids=["bare", "with scheme"])
def test_a_value_is_found(value: str, spelling: str) -> None:
    redacted = Redactor([value]).redact(f"before {SPELLINGS[spelling]} after")
    assert MARK in redacted
    # At each end, base64 characters may be left that also depend on the bytes next to the secret.
    assert len(redacted) <= len("before  after") + len(MARK) + 8


def test_the_password_inside_basic_credentials_is_found() -> None:
    header = "Basic " + base64.b64encode(b"user:correct horse").decode()
    assert Redactor([header]).redact("said correct horse") == f"said {MARK}"
    assert Redactor([header]).redact("said user:correct horse") == f"said {MARK}"


@pytest.mark.parametrize("value", ["Basic kein-base64-ø", "Basic !!", "Bearer ", "x", "\u00e9"])
def test_odd_values_are_no_trouble(value: str) -> None:
    assert Redactor([value]).redact(f"<{value.strip()}>") == f"<{MARK}>"


def test_short_values_are_redacted_too_but_an_empty_one_is_nothing() -> None:
    assert Redactor(["7", ""]).redact("x7y") == f"x{MARK}y"
    assert Redactor(["", "  "]).redact("as it was") == "as it was"


def test_our_own_tokens_are_found_by_their_form() -> None:
    for prefix in ("pwk", "wrk", "wkt", "hos", "enr"):
        assert Redactor().redact(f"({prefix}_{'0aZ' * 16})") == f"({MARK})"
    assert Redactor().redact("wkt_short") == "wkt_short"


def test_redacting_twice_changes_nothing() -> None:
    redactor = Redactor(["red", "[", "acted]", "e"])
    once = redactor.redact("red [redacted] e")
    assert redactor.redact(once) == once


def test_the_longer_of_two_values_is_taken() -> None:
    assert Redactor(["abc", "abcdef"]).redact("abcdef") == MARK


def test_a_secret_that_is_cut_off_at_the_end_is_redacted() -> None:
    stream = RedactingStream(Redactor(["Bearer abcdefghijkl"]))
    assert stream.feed("the header is Bearer abcdefgh") == ""
    assert stream.finish(cut_off=True) == f"the header is {MARK}"
    assert stream.feed("it is called Bearer") == ""
    assert stream.finish(cut_off=False) == "it is called Bearer"


@given(st.lists(st.integers(1, 9), max_size=40), st.text("ab", max_size=30))
def test_a_stream_says_the_same_however_it_is_cut(sizes: list[int], filler: str) -> None:
    redactor = Redactor(["aab", "abba", "secret"])
    text = f"{filler}secret{filler}aab{filler}"
    stream = RedactingStream(redactor)
    pieces, position = [], 0
    for size in sizes:
        pieces.append(stream.feed(text[position : position + size]))
        position += size
    pieces += [stream.feed(text[position:]), stream.finish(cut_off=False)]
    assert "".join(pieces) == redactor.redact(text)
