"""JSON bodies are parsed strictly everywhere, and only `complete` accepts characters that we can't store."""

import contextlib
import json
import tracemalloc
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from pipedai.api.parsers import (
    MAX_DEPTH,
    EventsJSONParser,
    OutcomeJSONParser,
    StrictJSONParser,
    parse_json,
)
from testing.probes.shapes import invalid
from testing.world.cases import cases
from triggers.models import Run, RunText

URL = "/api/v1/workspaces"
TOO_DEEP = "The JSON is nested more than 64 levels deep."
TOO_LARGE = "The JSON holds a number that is too large."
UNSTORABLE = "The JSON holds a NUL character or a lone surrogate."
DUPLICATE = "The JSON has an object with a duplicate key."
NOT_UTF8 = "The body is not valid UTF-8."


def nested(levels):
    return b"[" * levels + b"]" * levels


REFUSED = {
    "nothing-but-a-blank": (b" ", "Malformed JSON at line 1, column 2."),
    "cut-off": (b'{"name": "x"', "Malformed JSON at line 1, column 13."),
    "second-line": (b'{\n"name": x}', "Malformed JSON at line 2, column 9."),
    "two-values": (b"{} {}", "Malformed JSON at line 1, column 4."),
    "no-comma": (b'{"a": 1 "b": 2}', "Malformed JSON at line 1, column 9."),
    "single-quotes": (b"{'a': 1}", "Malformed JSON at line 1, column 2."),
    "byte-order-mark": (b'\xef\xbb\xbf{"name": "x"}', "Malformed JSON at line 1, column 1."),
    "control-character": (b'{"name": "a\nb"}', "Malformed JSON at line 1, column 12."),
    "utf-16": ('{"name": "x"}'.encode("utf-16"), NOT_UTF8),
    "latin-1": (b'{"name": "caf\xe9"}', NOT_UTF8),
    "surrogate-bytes": (b'{"name": "\xed\xa0\x80"}', NOT_UTF8),
    "overlong": (b'{"name": "\xc0\x80"}', NOT_UTF8),
    "duplicate-key": (b'{"name": "x", "name": "y"}', DUPLICATE),
    "duplicate-key-inside": (b'{"name": {"a": [{"b": 1, "b": 1}]}}', DUPLICATE),
    "duplicate-key-escaped": (b'{"name": "x", "n\\u0061me": "y"}', DUPLICATE),
    "nan": (b'{"name": NaN}', "The JSON holds NaN, which is not a JSON value."),
    "infinity": (b'{"name": Infinity}', "The JSON holds Infinity, which is not a JSON value."),
    "minus-infinity": (
        b'{"name": [-Infinity]}',
        "The JSON holds -Infinity, which is not a JSON value.",
    ),
    "float-overflow": (b'{"name": 1e999}', TOO_LARGE),
    "negative-overflow": (b'{"name": -1E+999}', TOO_LARGE),
    "integer-overflow": (b'{"name": 2%s}' % (b"0" * 308), TOO_LARGE),
    "long-integer": (b'{"name": %s}' % (b"9" * 100_000), TOO_LARGE),
    "nul": (b'{"name": "a\\u0000b"}', UNSTORABLE),
    "nul-in-a-key": (b'{"a\\u0000b": 1}', UNSTORABLE),
    "high-surrogate": (b'{"name": "\\ud83d"}', UNSTORABLE),
    "low-surrogate": (b'{"name": ["\\ude00"]}', UNSTORABLE),
    "surrogates-the-wrong-way-round": (b'{"name": "\\ude00\\ud83d"}', UNSTORABLE),
    "too-deep": (nested(MAX_DEPTH + 1), TOO_DEEP),
    "too-deep-in-objects": (b'{"a":' * 65 + b"1" + b"}" * 65, TOO_DEEP),
    "absurdly-deep": (nested(100_000), TOO_DEEP),
    "too-many": (nested(100_001), "The JSON has more than 100,000 lists and objects."),
}


def test_what_cannot_be_read_or_held_is_400(cast):
    client = cast.client(cast.owner)
    for name, (body, sentence) in REFUSED.items():
        response = client.post(URL, body, content_type="application/json")
        assert response.status_code == 400, name
        assert response.json() == {"error": sentence, "code": "malformed_body"}, name


ACCEPTED = {
    "64-levels": nested(MAX_DEPTH),
    "large-integer": b"1%s" % (b"0" * 307),
    "large-float": b"1.7e308",
    "tiny-float": b"1e-999",
    "an-emoji-in-two-escapes": b'"\\ud83d\\ude00"',
    "an-emoji": '"😀"'.encode(),
    "blanks-around": b' \r\n\t{"a": 1} ',
}


@cases("body", ACCEPTED.values())
def test_what_can_be_held_is_read(body):
    assert StrictJSONParser().parse(BytesIO(body)) == json.loads(body)


def test_a_body_that_is_no_object_is_400(cast):
    client = cast.client(cast.owner)
    for body in (b"[]", b'["name"]', b'"name"', b"5", b"true", b"null"):
        response = client.post(URL, body, content_type="application/json")
        assert response.status_code == 400, body
        assert response.json() == invalid(None, "The body must be a JSON object."), body


def test_no_body_is_an_empty_object(cast):
    response = cast.client(cast.owner).generic("POST", URL, b"", content_type="application/json")
    assert response.json() == invalid({"name": ["This field is required."]})


def test_any_other_media_type_is_415(cast):
    client = cast.client(cast.owner)
    for content_type in (
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/merge-patch+json",
        "application/jsonx",
        "garbage",
        "",
    ):
        response = client.generic("POST", URL, b'{"name": "x"}', content_type=content_type)
        assert response.status_code == 415, content_type
        assert response.json() == {
            "error": "The body must be application/json.",
            "code": "unsupported_media_type",
        }, content_type


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8"],
)
def test_json_is_known_in_any_spelling(cast, content_type):
    response = cast.client(cast.owner).generic(
        "POST", URL, '{"name": "Fjörd"}'.encode(), content_type=content_type
    )
    assert response.status_code == 201
    assert response.json()["name"] == "Fjörd"


class TestAnOutcome:
    @pytest.fixture
    def complete(self, cast):
        """Returns a function that sends a body to `complete` of a running run and returns the answer."""
        run = cast.key_client().post(f"/api/v1/triggers/{cast.trigger_id}/run", {}).json()["id"]
        worker, url = cast.worker_client(), f"/api/v1/workers/{cast.worker.worker_id}/runs/{run}"
        assert worker.post(f"{url}/claim", {}).status_code == 200
        return lambda body: worker.post(f"{url}/complete", body, content_type="application/json")

    def test_it_is_never_thrown_away_for_characters_that_cannot_be_stored(self, complete):
        response = complete(
            b'{"status": "failed", "shortMessage": "a\\u0000b\\ud83d", "errorMessage": "\\ude00!",'
            b' "k\\u0000": ["\\ud800"]}'
        )
        assert response.status_code == 200
        assert Run.objects.get().short_message == "a\ufffdb\ufffd"
        assert RunText.objects.get().error_message == "\ufffd!"

    @pytest.mark.parametrize(
        "name", ["cut-off", "duplicate-key", "nan", "float-overflow", "latin-1", "too-deep"]
    )
    def test_but_for_everything_else(self, complete, name):
        body, sentence = REFUSED[name]
        response = complete(body)
        assert (response.status_code, response.json()) == (
            400,
            {"error": sentence, "code": "malformed_body"},
        )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**300), 10**300) | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@cases("piece", [b"[],", b"{},", b'{"a":[]},'])
@cases("parser", [StrictJSONParser, OutcomeJSONParser, EventsJSONParser])
def test_a_body_of_nothing_but_containers_is_refused_before_it_takes_memory(parser, piece):
    body = b"[" + piece * (7_600_000 // len(piece)) + b"0]"
    tracemalloc.start()
    try:
        with pytest.raises(ParseError, match="more than 100,000 lists and objects"):
            parser().parse(BytesIO(body))
        assert tracemalloc.get_traced_memory()[1] < 2 * len(body)
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
def test_whatever_comes_is_read_or_refused(raw):
    with contextlib.suppress(ParseError):
        OutcomeJSONParser().parse(BytesIO(raw))


@given(JSON)
def test_what_another_program_writes_reads_the_same(value):
    raw = json.dumps(value)
    if "Infinity" in raw:
        return
    assert parse_json(raw.encode()) == value
