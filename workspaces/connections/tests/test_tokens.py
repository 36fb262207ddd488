"""Tokens are asked for as RFC 6749 says, and nonsense is not taken for tokens."""

import base64
from urllib.parse import unquote

import pytest

from pipedai.outgoing.oauth import (
    LONGEST_LIFE,
    UNSAID_LIFE,
    Client,
    NoTokens,
    ask_for_tokens,
    challenge_of,
    new_verifier,
)
from testing.processes.told_server import told_server

SECRET = "planted-secret of a client"
TOKENS = {"access_token": "planted-access", "token_type": "Bearer", "expires_in": 20}
FORM = {"grant_type": "refresh_token", "refresh_token": "planted-refresh", "resource": "https://m/"}
SENT = "grant_type=refresh_token&refresh_token=planted-refresh&resource=https%3A%2F%2Fm%2F"


@pytest.fixture
def ask(settings):
    settings.WEBHOOK_ALLOWED_NETWORKS = ("127.0.0.0/8",)

    def asking(status, body, *, method="none"):
        client = Client("an id:1", SECRET, method)
        with told_server({"/token": (status, {}, body)}) as origin:
            return ask_for_tokens(f"{origin}/token", client=client, form=FORM)

    return asking


BASIC = base64.b64encode(b"an+id%3A1:planted-secret+of+a+client").decode()


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("client_secret_basic", f"POST Basic {BASIC} {SENT}&client_id=an+id%3A1"),
        (
            "client_secret_post",
            f"POST None {SENT}&client_id=an+id%3A1&client_secret=planted-secret+of+a+client",
        ),
        ("none", f"POST None {SENT}&client_id=an+id%3A1"),
    ],
)
def test_the_client_authenticates_as_the_server_knows(ask, method, asked):
    found = ask(200, {**TOKENS, "refresh_token": "{asked}"}, method=method)
    assert unquote(found.refresh_token) == asked
    assert (found.access_token, found.lives) == ("planted-access", 20)
    assert "planted" not in repr(found)


@pytest.mark.parametrize(
    ("said", "lives"),
    [
        (None, UNSAID_LIFE), ("3599", 3599), ("soon", UNSAID_LIFE), (0, UNSAID_LIFE), (-5, UNSAID_LIFE),
        (True, UNSAID_LIFE), (1.5, UNSAID_LIFE), (10**11, LONGEST_LIFE),
    ],
)  # fmt: skip
def test_a_life_that_is_nonsense_counts_as_unsaid(ask, said, lives):
    assert ask(200, {**TOKENS, "expires_in": said}).lives == lives


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": "invalid_grant", "error_description": "planted-words"}, "invalid_grant"),
        (401, {"error": "invalid_client"}, "invalid_client"),
        (400, {"error": "planted-words"}, "other"),
        (400, {"error": ["invalid_grant"]}, "other"),
        (403, {"error": "unauthorized_client"}, "unauthorized_client"),
        (401, "<html>", "other"),
        (200, {"error": "bad_refresh_token"}, "bad_refresh_token"),
        (200, {"ok": False, "error": "planted-words"}, "other"),
        (404, {"error": "invalid_grant"}, None),
        (429, {"error": "invalid_grant"}, None),
        (503, {"error": "invalid_grant"}, None),
        (302, "", None),
        (200, "<html>", None),
        (200, "[" * 60_000, None),
        (200, "endless", None),
        (200, {**TOKENS, "token_type": "mac"}, None),
        (200, {**TOKENS, "access_token": "a\r\nb"}, None),
        (200, {**TOKENS, "access_token": "x" * 5000}, None),
        (200, {**TOKENS, "access_token": None}, None),
    ],
)
def test_a_refusal_says_its_code_and_nonsense_may_be_asked_again(ask, status, body, code):
    with pytest.raises(NoTokens) as refused:
        ask(status, body)
    assert refused.value.code == code
    assert "planted" not in str(refused.value)


def test_the_challenge_is_that_of_the_rfc():
    assert challenge_of("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk") == (
        "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
    )
    assert len(new_verifier()) == 64
    assert new_verifier() != new_verifier()
