"""Redaction removes secrets and control characters from text and data."""

from datetime import UTC, datetime
from time import thread_time
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from pipedai import redaction
from pipedai.redaction import REDACTED, escape_control, is_secret_name, redact, redact_text
from testing.world.cases import cases

TOKEN = "wkt_" + "0aZ" * 16 + "9"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
SECRET = "hunter2-hunter2"


@cases("prefix", ["pwk", "wrk", "wkt", "hos", "enr"])
def test_a_token_leaves_only_its_prefix(prefix):
    token = prefix + TOKEN[3:]
    assert redact_text(f"got {token}, sorry") == f"got {prefix}_[redacted], sorry"
    assert token[10:] not in redact_text(f"x{token}")
    assert token[10:30] not in redact_text(f"cut off: {token[:30]}")
    assert token[10:] not in redact_text(f"?q={token.replace('_', '%5F')}")


@cases(
    "text",
    [
        f"Authorization: Bearer {SECRET}",
        f"authorization={SECRET}",
        f"Proxy-Authorization: Basic {SECRET}",
        f"'Authorization': 'Basic {SECRET}'",
        f"(b'authorization', b'Basic {SECRET}')",
        f"Cookie: theme=dark; auth_token={SECRET}",
        f'"cookie": "a=b; c={SECRET}"',
        f"Set-Cookie: auth_token={SECRET}; Path=/",
        f"Bearer {SECRET}",
        f"jwt {JWT}",
        f"postgres://app:{SECRET}@db.example.com/app",
        f"postgres://app:@{SECRET}@db.example.com/app",
        f"https://:{SECRET}@example.com/",
        f"host=db password={SECRET} dbname=app",
        f"password='{SECRET} {SECRET}' dbname=app",
        f'{{"password": "{SECRET}"}}',
        f'{{"password": "a\\"{SECRET}"}}',
        f'{{"password": "{SECRET}',
        f"{{'webhookSecret': '{SECRET}'}}",
        f'{{"mcpHeaders": {{"x-key": "{SECRET}"}}}}',
        f"mcp_headers={{'x-key': '{SECRET}'}}",
        f"/callback?token={SECRET}&next=1",
        f"X-Api-Key={SECRET}",
        f"MASTER_KEYS='new:{SECRET}'",
        f"DETAIL:  Failing row contains (1, x (y), {SECRET}).",
    ],
)
def test_a_secret_in_text_is_replaced(text):
    redacted = redact_text(text)
    assert SECRET not in redacted
    assert JWT[20:] not in redacted
    assert REDACTED in redacted
    assert redact_text(redacted) == redacted


@cases(
    "text",
    [
        "",
        "inputTokens=12 monthTokenSpendUsd=0.5",
        '{"hasWebhookSecret": true, "password": null}',
        "The Authorization header must be sent.",
        "https://example.com:8000/path?limit=5",
        "GET /api/v1/environments/0192b7a0-0000-7000-8000-000000000000/api-keys",
        "mcp-token.rotated by user",
        "Key (email)=(a@example.com) already exists.",
    ],
)
def test_ordinary_text_is_left_alone(text):
    assert redact_text(text) == text


@cases(
    "name",
    [
        "password",
        "newPassword",
        "password_hash",
        "passwd",
        "mcpHeaders",
        "mcp_headers",
        "mcpHeader",
        "webhookSecret",
        "webhook_secret",
        "client-secret",
        "token",
        "workerToken",
        "auth_token",
        "token_digest",
        "Authorization",
        "cookie",
        "Set-Cookie",
        "api_key",
        "deviceCode",
        "user_code",
        "apiKey",
        "X-Api-Key",
        "master_keys",
        "SECRET_KEY",
        "private_key",
        "sealed_headers",
        "jwt",
        "DATABASE_URL",
        "credentials",
    ],
)
def test_a_name_of_a_secret_is_known(name):
    assert is_secret_name(name)
    assert redact({name: SECRET}) == {name: REDACTED}
    assert redact({"deep": [{name: [SECRET]}]}) == {"deep": [{name: REDACTED}]}
    assert redact({name: None}) == {name: None}
    assert redact({name: True}) == {name: True}


@cases(
    "name",
    ["inputTokens", "cacheReadTokens", "monthTokenSpendUsd", "author", "key", "webhookUrl"],
)
def test_a_name_of_something_else_is_too(name):
    assert not is_secret_name(name)
    assert redact({name: 5}) == {name: 5}


def test_data_becomes_plain_json_without_secrets():
    worker = UUID("0192b7a0-0000-7000-8000-000000000000")
    value = {
        "worker": worker,
        "at": datetime(2026, 11, 24, tzinfo=UTC),
        "said": f"my token is {TOKEN}",
        TOKEN: 1,
        "raw": b"line\nline \xff",
        "number": float("inf"),
        "pairs": [("authorization", SECRET), (b"cookie", b"x=y"), ("accept", "*/*")],
    }
    assert redact(value) == {
        "worker": str(worker),
        "at": "2026-11-24 00:00:00+00:00",
        "said": "my token is wkt_[redacted]",
        "wkt_[redacted]": 1,
        "raw": "line\\nline \\xff",
        "number": "inf",
        "pairs": [["authorization", REDACTED], ["cookie", REDACTED], ["accept", "*/*"]],
    }


def test_the_old_and_the_new_name_of_a_thing_are_no_header():
    changes = {"name": ["Rotate secrets", "Reset passwords"]}
    assert redact(changes) == changes
    assert redact([["cookie", "x=y"]]) == [["cookie", REDACTED]]
    assert redact(("cookie", "x=y")) == ["cookie", REDACTED]


def test_a_structure_that_holds_itself_ends():
    loop: list[object] = []
    loop.append(loop)
    assert "…" in str(redact(loop))


def test_an_object_that_cannot_be_shown_is_named():
    class Broken:
        def __str__(self) -> str:
            raise RuntimeError

    assert redact([Broken()]) == ["<Broken>"]


def test_control_characters_are_spelled_out():
    assert escape_control("a\r\nb\x1b[31m\x00\x85\u2028\u202e\ud800é") == (
        "a\\r\\nb\\x1b[31m\\x00\\x85\\u2028\\u202e\\ud800é"
    )
    assert escape_control("a\r\n\tb\r\x1b", keep_lines=True) == "a\r\n\tb\\r\\x1b"
    assert redact({"said": ["a\nb\x1b"]}, keep_lines=True) == {"said": ["a\nb\\x1b"]}


@given(st.text())
def test_no_text_crashes_it_or_keeps_a_token(text):
    redact_text(text)
    assert TOKEN[4:] not in redact_text(f"{text} {TOKEN} {text}")


# Texts are made of parts of the patterns, so that many of them almost match.
_PIECES = st.sampled_from(
    [
        *('"', "'", ":", ",", "=", " ", "_", "%5F", "://", "@", "a", "7", "{", "}", "\n"),
        *("token", "cookie", "Authorization", "set-", "proxy-", "password", "database_url"),
        *("pwk", "WKT", "hos", "eyJhbGciOi", ".eyJz", "Bearer", "Failing row contains (", SECRET),
    ]
)


@given(st.lists(_PIECES | st.text(max_size=2), max_size=12).map("".join))
def test_the_first_look_passes_over_nothing_that_a_pattern_matches(text):
    thorough = text
    for pattern in redaction._PATTERNS:
        thorough = pattern.sub(rf"\g<1>{REDACTED}", thorough)
    assert redact_text(text) == thorough


def test_a_text_that_begins_many_jwts_takes_hardly_longer_than_another():
    took = []
    for part in ("abc", "eyJ"):
        begun = thread_time()
        redact_text(part * 50_000 + "=")
        took.append(thread_time() - begun)
    assert took[1] < 12 * took[0]
