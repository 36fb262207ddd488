"""The watch over all tests sees a secret in a log line, an audit row and an answer."""

import logging
from types import SimpleNamespace

import pytest

from accounts.factories import PASSWORD, UserFactory
from audit.models import AuditEntry
from pipedai.api import tokens
from testing.cast import session_cookie
from testing.leaks import Watch, secrets_in

TOKEN = tokens.mint("pwk").value


@pytest.fixture
def watch():
    """One that nobody else asks."""
    watch = Watch()
    watch.setFormatter(logging.Formatter())
    return watch


@pytest.mark.parametrize("kind", ["pwk", "wrk", "wkt"])
def test_tokens_are_known_by_their_checksum(kind):
    token = tokens.mint(kind).value
    assert secrets_in(f"x {token} y") == [token]
    assert secrets_in(token[:-1] + ("a" if token[-1] != "a" else "b")) == []


def test_a_session_and_a_password_are_known(db):
    cookie = session_cookie(UserFactory.create())
    assert secrets_in(f"{cookie} {PASSWORD}") == [cookie, PASSWORD]


def test_a_log_line_is_looked_at(watch):
    for message in ("fine", f"not {TOKEN}"):
        watch.emit(logging.LogRecord("x", logging.INFO, "x", 1, message, (), None))
    assert watch.leaks == [f"log line: not {TOKEN}"]


def test_an_audit_row_is_looked_at(watch):
    for name in ("fine", TOKEN):
        watch.look_at_row(AuditEntry, SimpleNamespace(action="a", metadata={"name": ["", name]}))
    assert len(watch.leaks) == 1


@pytest.mark.parametrize(
    ("path", "may"),
    [
        ("/api/v1/workers/register", True),
        ("/api/v1/environments/01a2-b/api-keys", True),
        ("/api/v1/environments/01a2-b/api-keys/c", False),
        ("/api/v1/auth/me", False),
    ],
)
def test_only_what_mints_a_token_may_answer_it(watch, path, may):
    watch.look_at_answer(path, "", f'{{"token": "{TOKEN}"}}'.encode())
    assert (watch.leaks == []) is may


def test_what_a_caller_sent_may_come_back(watch):
    watch.look_at_answer("/api/v1/workspaces", f"name {TOKEN}", TOKEN.encode())
    assert watch.leaks == []
