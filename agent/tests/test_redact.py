"""Redaction finds secrets in every spelling that the module promises, also when they lie in two pieces."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from time import thread_time
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from testing.world.cases import cases

from pipedai_worker.redact import (
    LONGEST_MESSAGE,
    MARK,
    LogFormatter,
    RedactingStream,
    RedactingTexts,
    Redactor,
)

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


@cases("spelling", SPELLINGS)
@cases("value", [SECRET, f"Bearer {SECRET}"])
def test_a_value_is_found(value: str, spelling: str) -> None:
    redacted = Redactor([value]).redact(f"before {SPELLINGS[spelling]} after")
    assert MARK in redacted
    # At each end, base64 characters may be left that also depend on the bytes next to the secret.
    assert len(redacted) <= len("before  after") + len(MARK) + 8


def test_the_password_inside_basic_credentials_is_found() -> None:
    header = "Basic " + base64.b64encode(b"user:correct horse").decode()
    assert Redactor([header]).redact("said correct horse") == f"said {MARK}"
    assert Redactor([header]).redact("said user:correct horse") == f"said {MARK}"


@cases("value", ["Basic kein-base64-ø", "Basic !!", "Bearer ", "x", "\u00e9"])
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
    assert stream.feed("the header is Bearer abcdefgh") == "the header is "
    assert stream.finish(cut_off=True) == MARK
    assert stream.feed("it is called Bearer") == "it is called "
    assert stream.finish(cut_off=False) == "Bearer"


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


HEADER = "Bearer sk-live-0123456789abcdef"
TOKEN = "wkt_" + "0aZ" * 16


@cases("secret", [HEADER, HEADER[7:], TOKEN])
def test_a_secret_that_is_cut_anywhere_leaves_in_no_pieces(secret: str) -> None:
    """Whether the pieces are parts of a stream, or texts of their own, no 6 characters of the secret get through."""
    redactor = Redactor([HEADER])
    for cut in range(len(secret) + 1):
        stream, texts = RedactingStream(redactor), RedactingTexts(redactor)
        first, second = f"It is {secret[:cut]}", f"{secret[cut:]}, you see."
        whole = stream.feed(first) + stream.feed(second) + stream.finish(cut_off=False)
        assert whole == f"It is {MARK}, you see."
        pieces = [texts.next(first, 100), texts.next(second, 100)]
        for start in range(len(secret) - 5):
            assert secret[start : start + 6] not in f"{pieces[0]} {pieces[1]}"
        assert pieces[0].startswith("It is ")
        assert pieces[1].endswith(", you see.")


def test_a_secret_that_comes_character_by_character_stops_after_the_fifth() -> None:
    texts = RedactingTexts(Redactor([HEADER]))
    told = [texts.next(character, 10) for character in HEADER[7:]]
    assert "".join(told[:5]) == HEADER[7:12]
    assert set(told[5:]) == {MARK}
    assert texts.next("and then", 10) == "and then"


def test_a_secret_at_the_edge_of_what_is_kept_is_replaced() -> None:
    for before in range(95, 101):
        shown = RedactingTexts(Redactor([HEADER])).next("x" * before + HEADER + "y" * 5_000, 100)
        assert len(shown) == 100
        assert "Bea" not in shown


def test_a_stream_holds_back_no_more_than_may_be_a_secret() -> None:
    stream = RedactingStream(Redactor([HEADER]))
    assert stream.feed("10 % done.\n") == "10 % done.\n"
    assert stream.feed("20 % done, B") == "20 % done, "
    assert stream.feed("ut") == "But"


def test_a_secret_that_is_learned_later_is_found_by_what_redacts_already() -> None:
    redactor = Redactor([HEADER])
    stream, texts = RedactingStream(redactor), RedactingTexts(redactor)
    assert stream.feed("It was ") == texts.next("It was ") == "It was "
    redactor.hide([HEADER, "Bearer planted-new-0123456789"])
    for secret in (HEADER, "planted-new-0123456789"):
        assert stream.feed(f"{secret}, {secret[:7]}") == f"{MARK}, "
        assert stream.feed(f"{secret[7:]}.\n") == f"{MARK}.\n"
        assert texts.next(f"{secret}.") == f"{MARK}."


def test_the_values_of_many_headers_take_little_longer_than_one() -> None:
    values = [f"Bearer {hashlib.sha512(bytes([n])).hexdigest()}" for n in range(50)]
    text = base64.b64encode(hashlib.shake_256(b"").digest(100_000)).decode()
    took = []
    for secrets in (values[:1], values):
        redactor = Redactor(secrets)
        begun = thread_time()
        assert redactor.redact(text) == text
        took.append(thread_time() - begun)
    assert took[1] < 25 * took[0]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_line_of_the_log_is_short_however_long_its_message(as_json: bool) -> None:
    message = "x" * 1_000_000
    record = logging.LogRecord("worker", logging.WARNING, "", 0, message, (), None)
    line = LogFormatter(as_json=as_json).format(record)
    assert len(line) < LONGEST_MESSAGE + 200
